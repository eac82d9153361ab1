# SPDX-License-Identifier: Apache-2.0
"""`deltaimg backup`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.group import back_up_group, check_group_words
from deltaimg.cli.lock_wait import LockWait, open_to_lock
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import CacheDir, Json, Quiet, Repo, Verbose
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_seconds
from deltaimg.errors import SourceUnreadable, UsageError
from deltaimg.options.backup import BackupOptions
from deltaimg.options.groups import GroupOptions
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import BackupForecast, Extent, Manifest, Repository

_SHOWN = 10
"""Extents that are listed one by one."""


@takes_options
def backup(
    options: BackupOptions,
    group_options: GroupOptions,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Image file, device, pipe ('-': standard input), nbd://host/export, rbd:POOL/IMAGE. Of a group: NAME=IMAGE.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--image", "-i", metavar="NAME", help="Name of the image in the repository.", show_default=False),
    ] = None,
    command: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--stdin-from-command",
            metavar="COMMAND",
            help="Back up what this shell command prints, if it ends with exit status 0.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would be stored, and store nothing.")
    ] = False,
    cache_dir: CacheDir = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep nothing on this host.")] = False,
    lock_wait: LockWait = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Store an image as a new snapshot.

    The first snapshot of an image is a full one. Each later one stores what changed. Holes are neither read nor stored.

    Nothing may write to an image while it is read: --freeze makes a clone or a snapshot for as long as that takes. One
    that is mounted read-write, used as swap space or held by another program, or that was written to meanwhile, is
    refused, unless --allow-live is given. So is a stream that is shorter than the last snapshot, since it may have been
    cut short, unless --allow-shrink is given.

    With --track only what changed is read, and a random sample of the rest; everything, where that sample did change. Another
    program that tracks changes can say what need not be read, with --hints.

    An image is stored flat. Of a qcow2, VMDK, VHDX, VDI or VHD file it is the image in it, by --format. An archive or a
    compressed file is refused, with the hint how to back up what is in it. A disk that fails ends the backup, unless
    --on-read-error zero is given: then the rest is stored, and the exit code is 19.

    With --group, several images become snapshots of one moment, all or none, frozen as --freeze auto does where nothing
    else is given. With --guest, xl or virsh find them, and the guest is paused meanwhile.

    Examples:

        deltaimg backup /var/lib/images/vm1.raw --image vm1
        deltaimg backup /dev/vg0/vm1 --image vm1 --freeze lvm --tag nightly
        deltaimg backup /srv/vm1.raw --image vm1 --track auto
        deltaimg backup 'qmp+unix:///drive0?socket=/run/vm4.qmp' --image vm4
        deltaimg backup --image vm2 --stdin-from-command 'ssh host cat /dev/vg0/vm2'
        deltaimg backup old.raw --image vm1 --time 2024-05-01 --dry-run
        deltaimg backup --group web1 root=/dev/vg/web1 data=/dev/vg/web1-data
        deltaimg backup --guest web1 --exclude-disk xvdb
    """
    if is_group := (group_options.group is not None or group_options.guest is not None):
        check_group_words(images or [], group_options, name, command)
    else:
        source = _choose_source(images or [], command, name)
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        options = replace(options, cache_folder=None if no_cache else cache_dir or _find_cache_folder(terminal))
        repository = open_to_lock(
            repo, lock_wait, store, terminal, uses_cache=not no_cache, cache_dir=cache_dir, may_only_write=True
        )
        if is_group:
            back_up_group(repository, images or [], group_options, options, terminal, is_dry_run=dry_run)
        elif name is not None:
            _back_up_image(
                repository, source, name, options, terminal, is_command=command is not None, is_dry_run=dry_run
            )


def _back_up_image(
    repository: Repository,
    source: str,
    name: str,
    options: BackupOptions,
    terminal: Terminal,
    *,
    is_command: bool,
    is_dry_run: bool,
) -> None:
    shown = "command" if is_command else source
    if is_dry_run:
        from deltaimg.api.forecast import plan_backup

        planned = plan_backup(repository, source, name, options, is_command=is_command, progress=terminal)
        _report_forecast(planned, name, terminal)
        _warn_of_unreadable(planned.unreadable, shown, terminal)
        return
    from deltaimg.api.backup import backup as run_backup
    from deltaimg.describe.backup import describe_backup

    manifest = run_backup(repository, source, name, options, is_command=is_command, progress=terminal)
    if terminal.as_json:
        terminal.print_json(describe_backup(manifest))
    else:
        _report(manifest, terminal, threads=options.workers)
    _report_unreadable(manifest, shown, terminal)


def _choose_source(images: list[str], command: str | None, name: str | None) -> str:
    """Return the path or the command that is to be backed up, of which there must be one; raises UsageError."""
    if images and command is not None:
        raise UsageError("IMAGE and --stdin-from-command cannot both be given", hint="leave one of them out")
    if len(images) > 1:
        hint = "one image a backup; or with --group NAME several of one moment, as disk0=IMAGE"
        raise UsageError(f"{len(images)} images were given", hint=hint)
    source = images[0] if images else command
    if source is None:
        raise UsageError("no image to back up was given", hint="give IMAGE, '-', or --stdin-from-command")
    if name is None:
        raise UsageError("--image NAME is missing: what the image is called", hint="or --group NAME for several images")
    return source


def _report_forecast(planned: BackupForecast, image: str, terminal: Terminal) -> None:
    from deltaimg.describe.backup import describe_forecast
    from deltaimg.describe.snapshots import format_free_space, format_tracking

    if terminal.as_json:
        terminal.print_json(describe_forecast(planned, image))
        return
    found = planned.statistics
    kind = "full" if planned.base is None else f"incremental on {planned.base.id[:8]}"
    terminal.print(f"would store a snapshot of {image} ({kind})")
    terminal.print(
        f"  {format_bytes(found.apparent_bytes)} image, {format_bytes(found.allocated_bytes)} allocated, "
        f"{format_bytes(found.changed_bytes)} changed"
    )
    terminal.print(
        f"  {format_bytes(found.referenced_bytes)} deduplicated, {format_bytes(found.new_bytes)} new before compression, "
        f"compared in {format_seconds(found.duration_s)}"
    )
    if planned.tracking is not None:
        terminal.print(f"  {format_tracking(planned.tracking)}")
    if planned.free_space is not None:
        terminal.print(f"  {format_free_space(planned.free_space)}")


def _report(manifest: Manifest, terminal: Terminal, *, threads: int) -> None:
    done = manifest.statistics
    kind = "full" if manifest.base is None else f"incremental on {manifest.base[:8]}"
    terminal.remark(f"snapshot {manifest.label} ({kind})")
    terminal.remark(
        f"  {format_bytes(done.apparent_bytes)} image, {format_bytes(done.allocated_bytes)} allocated, "
        f"{format_bytes(done.changed_bytes)} changed"
    )
    terminal.remark(
        f"  {format_bytes(done.referenced_bytes)} deduplicated, {format_bytes(done.new_bytes)} new, "
        f"{format_bytes(done.stored_bytes)} stored, in {format_seconds(done.duration_s)}"
    )
    if done.rewritten_bytes:
        terminal.remark(
            f"  {format_bytes(done.rewritten_bytes)} unchanged stored again for faster restores, as "
            f"{format_bytes(done.rewritten_payload_bytes)}"
        )
    _report_point_in_time(manifest, terminal)
    if terminal.is_verbose:
        rate = done.read_bytes / max(done.duration_s, 0.001)
        terminal.remark(
            f"  {format_bytes(done.read_bytes)} read, {format_bytes(rate)}/s, in blocks of "
            f"{format_bytes(manifest.block_bytes)}, by {format_count(threads, 'thread')}"
        )


def _report_point_in_time(manifest: Manifest, terminal: Terminal) -> None:
    """Say how the image was frozen, what of it was not read, and why not in a better way."""
    from deltaimg.describe.snapshots import format_free_space, format_freezing, format_tracking

    if manifest.freeze is not None:
        terminal.remark(f"  {format_freezing(manifest.freeze)}")
    if manifest.tracking is not None:
        terminal.remark(f"  {format_tracking(manifest.tracking)}")
    if manifest.free_space is not None:
        terminal.remark(f"  {format_free_space(manifest.free_space)}")


def _warn_of_unreadable(extents: tuple[Extent, ...], image: str, terminal: Terminal) -> None:
    for lost in extents[:_SHOWN]:
        terminal.warn(f"{image}: bytes {lost.start} to {lost.end} cannot be read, and are zeros in the snapshot")


def _report_unreadable(manifest: Manifest, image: str, terminal: Terminal) -> None:
    """List what could not be read; raises SourceUnreadable if there is something."""
    _warn_of_unreadable(manifest.unreadable, image, terminal)
    if manifest.unreadable:
        lost_bytes = sum(extent.length for extent in manifest.unreadable)
        places = format_count(len(manifest.unreadable), "place")
        raise SourceUnreadable(
            image,
            f"snapshot {manifest.label} was stored, but {format_bytes(lost_bytes)} in {places} could not be read",
            hint=f"'deltaimg show {manifest.label} --json' lists all of them; replace the disk soon",
        )


def _find_cache_folder(terminal: Terminal) -> str | None:
    """Return where this user's cache is, and say what it costs where there is none."""
    from deltaimg.api.cache import find_cache_folder

    folder = find_cache_folder()
    if folder is None:
        terminal.warn(
            "this user has no home folder, so there is no cache: the image may be read twice, and more may be stored; "
            "name a folder with --cache-dir, or accept it with --no-cache"
        )
    return folder
