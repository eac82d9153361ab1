# SPDX-License-Identifier: Apache-2.0
"""Groups of images, for `backup`, `restore` and `show`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deltaimg.cli.damage import list_extents
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_moment, format_seconds
from deltaimg.errors import ContentDamaged, RestoreIncomplete, SourceUnreadable, UsageError

if TYPE_CHECKING:
    from deltaimg.api.results import (
        BackupForecast,
        GroupSnapshot,
        LeftOut,
        Manifest,
        Repository,
        RestoredGroup,
        RestoreResult,
    )
    from deltaimg.options.backup import BackupOptions
    from deltaimg.options.groups import GroupOptions, GroupRestoreOptions
    from deltaimg.options.restore import RestoreOptions

_EXAMPLE = "for example: deltaimg backup --group web1 disk0=/dev/vg/web1-root disk1=/dev/vg/web1-data"


def parse_disks(words: Sequence[str]) -> dict[str, str]:
    """Return the paths of a group's disks by name, from `NAME=PATH` each; raises UsageError."""
    disks = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise UsageError(f"'{word[:60]}' is not a disk of a group: its name, '=', and its image", hint=_EXAMPLE)
        if name in disks:
            raise UsageError(f"two disks of the group are called '{name}'", hint=_EXAMPLE)
        disks[name] = path
    if not disks:
        raise UsageError("no disk of the group was given", hint=_EXAMPLE)
    return disks


def check_group_words(words: Sequence[str], chosen: GroupOptions, name: str | None, command: str | None) -> None:
    """Raise UsageError where arguments of `backup` do not fit a group or a guest."""
    option = "--guest" if chosen.guest is not None else "--group"
    others = (("--image", name), ("--stdin-from-command", command), ("--group", chosen.guest and chosen.group))
    for other, value in others:
        if value is not None:
            raise UsageError(f"{option} and {other} cannot both be given", hint="leave one of them out")
    if chosen.guest is None:
        if chosen.guest_config is not None or chosen.excluded_disks:
            raise UsageError(
                "--guest-config and --exclude-disk are for --guest", hint="name the disks of a group one by one"
            )
        parse_disks(words)
    elif words:
        raise UsageError("a guest's disks are found by themselves", hint="leave them out, or name them with --group")


def back_up_group(
    repository: Repository,
    words: Sequence[str],
    chosen: GroupOptions,
    options: BackupOptions,
    terminal: Terminal,
    *,
    is_dry_run: bool,
) -> None:
    """Back up a group or a guest, or say what that would store."""
    from deltaimg.api.domains import backup_guest, find_guest, plan_guest_backup
    from deltaimg.api.groups import backup_group, plan_group_backup

    if chosen.guest is not None:
        guest = find_guest(chosen.guest, config_path=chosen.guest_config, excluded=chosen.excluded_disks)
        if is_dry_run:
            planned = plan_guest_backup(repository, guest, options, progress=terminal)
            report_group_forecast(planned, guest.name, terminal, guest.left_out)
        else:
            report_group(backup_guest(repository, guest, options, progress=terminal), terminal, guest.left_out)
    elif chosen.group is not None:
        disks = parse_disks(words)
        if is_dry_run:
            planned = plan_group_backup(repository, chosen.group, disks, options, progress=terminal)
            report_group_forecast(planned, chosen.group, terminal)
        else:
            report_group(backup_group(repository, chosen.group, disks, options, progress=terminal), terminal)


def report_group(manifests: Sequence[Manifest], terminal: Terminal, left_out: Sequence[LeftOut] = ()) -> None:
    """Print what a backup of a group stored; raises SourceUnreadable where a disk could not be read as a whole."""
    from deltaimg.describe.groups import describe_group_backup, format_group_freezing

    first = manifests[0]
    assert first.group is not None
    if terminal.as_json:
        terminal.print_json(describe_group_backup(manifests, left_out))
    else:
        terminal.remark(f"group {first.group.name}@{first.id[:8]}: {format_count(len(manifests), 'image')}")
        for each in manifests:
            done = each.statistics
            kind = "full" if each.base is None else f"incremental on {each.base[:8]}"
            terminal.remark(
                f"  {each.label} ({kind}): {format_bytes(done.apparent_bytes)} image, {format_bytes(done.changed_bytes)} "
                f"changed, {format_bytes(done.stored_bytes)} stored, in {format_seconds(done.duration_s)}"
            )
        if how := format_group_freezing(manifests):
            terminal.remark(f"  {how}")
        for disk in left_out:
            terminal.remark(f"  left out: {disk.name} ({disk.reason})")
    lost = [each for each in manifests if each.unreadable]
    if lost:
        raise SourceUnreadable(
            lost[0].source,
            f"group {first.group.name}@{first.id[:8]} was stored, but parts of {lost[0].label} could not be read",
            hint=f"'deltaimg show {lost[0].label} --json' lists all of them; replace the disk soon",
        )


def report_group_forecast(
    planned: dict[str, BackupForecast], group: str, terminal: Terminal, left_out: Sequence[LeftOut] = ()
) -> None:
    """Print what a backup of a group would store."""
    from deltaimg.describe.backup import describe_forecast
    from deltaimg.describe.groups import describe_left_out

    if terminal.as_json:
        members = [describe_forecast(each, image) for image, each in planned.items()]
        terminal.print_json(
            {"dry_run": True, "group": group, "left_out": describe_left_out(left_out), "members": members}
        )
        return
    terminal.print(f"would store a snapshot of group {group}: {format_count(len(planned), 'image')}")
    for image, each in planned.items():
        found = each.statistics
        kind = "full" if each.base is None else f"incremental on {each.base.id[:8]}"
        terminal.print(
            f"  {image} ({kind}): {format_bytes(found.apparent_bytes)} image, {format_bytes(found.changed_bytes)} changed, "
            f"{format_bytes(found.new_bytes)} new before compression"
        )
    for disk in left_out:
        terminal.print(f"  left out: {disk.name} ({disk.reason})")


def report_restored(restored: RestoredGroup, terminal: Terminal) -> None:
    """Print what a restore of a group wrote; raises ContentDamaged where something is missing."""
    from deltaimg.describe.groups import describe_restored_group

    damaged = [each for each in restored.results.values() if each.damage]
    if terminal.as_json and not damaged:
        terminal.print_json(describe_restored_group(restored))
    for target, each in restored.results.items():
        _report_image(target, each, terminal)
    if restored.config_path is not None:
        terminal.remark(f"the configuration of the guest restored to {restored.config_path}")
    if damaged:
        raise ContentDamaged(damaged[0].manifest.label, damaged[0].damage, is_rest_restored=True)


def restore_newest_images(
    repository: Repository, options: RestoreOptions, chosen: GroupRestoreOptions, terminal: Terminal
) -> None:
    """Restore the newest snapshots of many images and print what was written; raises RestoreIncomplete."""
    from deltaimg.api.restore_many import restore_newest
    from deltaimg.describe.restore import describe_restored_images

    restored = restore_newest(
        repository,
        chosen.into,
        chosen.images,
        options,
        moves=dict(chosen.moves),
        on_restored=lambda target, each: _report_image(target, each, terminal),
        progress=terminal,
    )
    if terminal.as_json:
        terminal.print_json(describe_restored_images(restored))
    for guest, path in restored.config_paths.items():
        terminal.remark(f"the configuration of {guest} restored to {path}")
    failed = [(name, str(error)) for name, error in restored.failed.items()]
    complete = sum(not each.damage for each in restored.results.values())
    rest = f", {len(failed)} not restored as a whole" if failed else ""
    terminal.remark(f"{format_count(complete, 'image')} restored and verified{rest}")
    for name, reason in failed[1:]:
        terminal.warn(f"{name} is not restored as a whole: {reason}")
    if failed:
        raise RestoreIncomplete(failed, hint=next(iter(restored.failed.values())).hint)


def _report_image(target: str, restored: RestoreResult, terminal: Terminal) -> None:
    """Print that an image was restored, and what of it is missing."""
    terminal.remark(
        f"{restored.manifest.label} restored to {target}{'' if restored.damage else ' and verified'}: "
        f"{format_bytes(restored.manifest.size_bytes)} image, {format_bytes(restored.data_bytes)} data"
    )
    for line in list_extents(restored.damage, " are missing and read as zeros", terminal):
        terminal.warn(f"{target}: {line}")


def show_group(found: GroupSnapshot, config: bytes | None, terminal: Terminal) -> None:
    """Print what a snapshot of a group consists of; `config` is the configuration of a guest."""
    from deltaimg.describe.groups import describe_group, format_group_freezing

    if terminal.as_json:
        terminal.print_json(describe_group(found, config))
        return
    manifests = [each.manifest for each in found.snapshots]
    terminal.print_pairs(
        [
            ("group", found.label),
            ("taken", format_moment(manifests[0].taken_at)),
            ("members", format_count(len(found.group.members), "image")),
            ("missing", ", ".join(found.missing) or "none"),
            ("point in time", format_group_freezing(manifests) or "as it was read"),
        ]
    )
    terminal.print("")
    rows = [
        [
            each.label,
            each.source,
            format_bytes(each.size_bytes),
            format_bytes(each.statistics.changed_bytes),
            format_bytes(each.statistics.stored_bytes),
        ]
        for each in manifests
    ]
    terminal.print_table(("snapshot", "of", ">size", ">changed", ">stored"), rows)
    if config is not None:
        terminal.print("")
        for line in config.decode(errors="replace").splitlines():
            terminal.print("  " + "".join(letter if letter.isprintable() else " " for letter in line))
