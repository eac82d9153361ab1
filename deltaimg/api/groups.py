# SPDX-License-Identifier: Apache-2.0
"""Groups of images: backed up as of one moment, and restored together."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from deltaimg import __version__
from deltaimg.api.backup import forecast_image, remove_tracking, warn_of_loss
from deltaimg.api.restore import open_snapshot, refuse_in_repository
from deltaimg.api.vanished import remember_snapshots
from deltaimg.domains.interface import MAX_CONFIG_BYTES
from deltaimg.domains.rewrite import move_path, rewrite_paths
from deltaimg.engine.backup.forecast import BackupForecast
from deltaimg.engine.backup.group import MemberSource, back_up_group
from deltaimg.engine.backup.opened_image import OpenedImage, choose_format, find_used_bytes, open_image, restrain
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.restore.run import RestoreResult, restore_all
from deltaimg.errors import ImageError, UnsupportedImage, UsageError
from deltaimg.format.manifest import Group, Manifest, name_member
from deltaimg.freeze.freeze import FrozenGroup, check_freeze_options, freeze_group
from deltaimg.freeze.interface import FreezeRequest
from deltaimg.image.nbd.address import is_address
from deltaimg.image.open_source import open_source
from deltaimg.image.open_target import open_target
from deltaimg.image.qemu.address import is_monitor_address
from deltaimg.image.qemu.formats import BY_NAME
from deltaimg.image.target import ImageTarget
from deltaimg.options.backup import BackupOptions
from deltaimg.options.definition import validate
from deltaimg.options.restore import RestoreOptions
from deltaimg.posix import describe_mode
from deltaimg.repo.groups import CONFIG_DISK, GroupSnapshot, check_group_name, find_group, select_group
from deltaimg.repo.repository import Repository
from deltaimg.repo.reserve import make_reserve
from deltaimg.repo.selector import check_image_name
from deltaimg.tracking import bitmap
from deltaimg.tracking.choose import choose_tracker, plan_freezing
from deltaimg.tracking.interface import KeepsImages
from deltaimg.tracking.reflink import make_key

_DEVICES = "/dev/"
_MADE_OF = "a group is made of image files and block devices"


def backup_group(
    repository: Repository,
    name: str,
    disks: Mapping[str, str],
    options: BackupOptions | None = None,
    *,
    config: bytes | None = None,
    formats: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[Manifest]:
    """Store files and devices as the newest snapshot of a group, all or none, and return their manifests in order.

    They are frozen together: as `auto` does where `options.freeze` is `none`.

    Args:
        disks: the path of each, by its name in the group: the image `<group>.<name>`.
        config: a text that is stored with them, as a member called `config`.
        formats: as `--format` has them, of disks in files with a format of their own, where `options` leave it to their names.
    """
    options = dataclasses.replace(options or BackupOptions(), software=f"deltaimg {__version__}")
    progress = progress or NoProgress()
    with _opened(repository, name, _Parts(disks, config, formats or {}), options, progress) as (group, members, frozen):
        make_reserve(repository)
        for each in members:
            warn_of_loss(repository, each.image, progress)
        manifests = back_up_group(repository, group, members, frozen, progress=progress)
        for each in members:
            remember_snapshots(repository, each.image)
            if not isinstance(each.tracker, KeepsImages) and each.point_in_time is not None:
                remove_tracking(repository, each.source.path, each.image)
        return manifests


def plan_group_backup(
    repository: Repository,
    name: str,
    disks: Mapping[str, str],
    options: BackupOptions | None = None,
    *,
    config: bytes | None = None,
    formats: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> dict[str, BackupForecast]:
    """Return what `backup_group` would store, by image; nothing is stored."""
    options, progress = options or BackupOptions(), progress or NoProgress()
    planned = {}
    with _opened(repository, name, _Parts(disks, config, formats or {}), options, progress) as (_, members, frozen):
        for each in members:
            opened = OpenedImage(each.source, each.point_in_time, each.tracker)
            planned[each.image] = forecast_image(repository, each.image, opened, each.options, progress)
        frozen.end_reading()
    return planned


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a group is made of."""

    disks: Mapping[str, str]
    config: bytes | None
    formats: Mapping[str, str]


@contextmanager
def _opened(
    repository: Repository,
    name: str,
    parts: _Parts,
    options: BackupOptions,
    progress: Progress,
) -> Iterator[tuple[Group, list[MemberSource], FrozenGroup]]:
    """Freeze the disks of a group and open them; they are closed, and nothing is left, at the end."""
    disks = parts.disks
    _check(name, disks, options)
    images = [name_member(name, disk) for disk in disks]
    if options.freeze == "none" and options.track == "none":
        options = dataclasses.replace(options, freeze="auto")
    freezing = plan_freezing(options, "", None)
    check_freeze_options(freezing)
    requests = [
        FreezeRequest(path, freezing, find_used_bytes(repository, image))
        for image, path in zip(images, disks.values(), strict=True)
    ]
    with ExitStack() as stack:
        frozen = stack.enter_context(freeze_group(requests, progress.warn, name=name))
        members = []
        for image, disk, point in zip(images, disks, frozen.points, strict=True):
            path = disks[disk]
            chosen = options
            if options.format == BY_NAME and not options.stores_containers:
                chosen = dataclasses.replace(options, format=parts.formats.get(disk, BY_NAME))
            format_ = choose_format(repository, path, image, chosen)
            source = stack.enter_context(closing(open_image(point.path, path, format_, options)))
            key = make_key(repository.config.repository_id, image)
            tracker = choose_tracker(options, source, path, point, key, None)
            members.append(MemberSource(image, restrain(source, options), options, point, tracker))
        if parts.config is not None:
            members.append(_open_config(name, parts.config, options, stack))
        group = Group(name=name, members=tuple(each.image for each in members), spread_s=frozen.spread_s)
        yield group, members, frozen


def _check(name: str, disks: Mapping[str, str], options: BackupOptions) -> None:
    """Raise UsageError for names and options that do not fit a group; UnsupportedImage for what cannot be in one."""
    validate(options)
    check_group_name(name)
    if not disks:
        raise UsageError(f"group '{name}' has no disk", hint="give some, such as disk0=/dev/vg/web1-root")
    for disk in disks:
        check_image_name(name_member(name, disk))
        if not disk or disk == CONFIG_DISK:
            raise UsageError(
                f"no disk of a group can be called '{disk}'", hint="disk0, root, xvda and the like will do"
            )
    of_one = {"--hints": options.hints, "--size": options.expected_bytes, "--bitmap": options.bitmap}
    for option, value in of_one.items():
        if value is not None:
            raise UsageError(f"{option} is about one image, and cannot be used for a group", hint="leave it out")
    if options.track == bitmap.METHOD:
        raise UsageError(
            "--track bitmap is about one file, and cannot be used for a group", hint="--track auto will do"
        )
    seen: dict[tuple[int, int], str] = {}
    for path in disks.values():
        if is_address(path) or is_monitor_address(path):
            raise UnsupportedImage(path, f"is an export of a server: {_MADE_OF}")
        try:
            found = os.stat(path)
        except (OSError, ValueError) as error:
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "is not a possible path"
            raise ImageError(path, f"cannot be read: {reason}") from error
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            raise UnsupportedImage(path, f"is {describe_mode(found.st_mode)}: {_MADE_OF}")
        place = (found.st_rdev, 0) if stat.S_ISBLK(found.st_mode) else (found.st_dev, found.st_ino)
        if place in seen:
            raise UsageError(f"{path} and {seen[place]} are the same", hint="name each disk once")
        seen[place] = path


def _open_config(name: str, config: bytes, options: BackupOptions, stack: ExitStack) -> MemberSource:
    """Return a text as a member of a group; it lies in memory and never changes."""
    descriptor = os.memfd_create(f"deltaimg-{CONFIG_DISK}", os.MFD_CLOEXEC)
    with open(descriptor, "r+b", buffering=0, closefd=False) as file:
        file.write(config)
    stack.callback(os.close, descriptor)
    source = stack.enter_context(closing(open_source(f"/proc/self/fd/{descriptor}", name=f"configuration of {name}")))
    chosen = dataclasses.replace(options, allow_shrink=True, stores_containers=True, track="none", free_space="keep")
    return MemberSource(name_member(name, CONFIG_DISK), source, chosen)


# -- restore -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RestoredGroup:
    """What a restore of a group wrote."""

    snapshot: GroupSnapshot
    results: dict[str, RestoreResult]
    """Of the disks, by target, in order."""
    config_path: str | None = None
    """Where the configuration of a guest was written to; None where there is none, or no place for it."""


def find_group_snapshot(repository: Repository, selector: str) -> GroupSnapshot:
    """Return the snapshot of a group that `selector` means: `web1`, `web1@2026-11-23`, `web1@latest~2`, or by an id."""
    return select_group(repository, selector)


def find_named_group(repository: Repository, selector: str) -> GroupSnapshot | None:
    """As `find_group_snapshot`; None where the name is that of an image, or of nothing."""
    return find_group(repository, selector)


def restore_group(
    repository: Repository,
    selector: str,
    folder: str | None,
    options: RestoreOptions | None = None,
    *,
    moves: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> RestoredGroup:
    """Write every disk of a group's snapshot into a folder, or to where `moves` say, and the configuration of a guest.

    `/dev/vg/web1-root` is written to `<folder>/web1-root`: a file, or the logical volume where the folder is one of a volume
    group. Disks that had the same name get that of their image. All targets are opened before anything is written. The
    configuration is written into the folder as `<group>.config`, with the new paths of the disks, unless it is one of devices.

    Args:
        moves: where disks go that were at a path, or below a folder.

    Raises:
        GroupIncomplete: members are missing. Else as `restore`, of the first target that cannot be written to.
    """
    options = options or RestoreOptions()
    found = select_group(repository, selector)
    found.check_whole()
    targets = choose_targets(found, folder, moves or {})
    for target in targets:
        refuse_in_repository(repository, target)
    config = found.find(CONFIG_DISK)
    config_target = None
    if config is not None and folder is not None and not _is_of_devices(folder):
        paths = {manifest.source: os.path.abspath(target) for target, manifest in targets.items()}
        text = rewrite_paths(_read_config(repository, config.manifest), paths)
        refuse_in_repository(repository, name := os.path.join(folder, config.manifest.image))
        config_target = open_target(name, len(text), is_forced=options.is_forced, is_synced=options.is_synced)
    try:
        results = restore_all(
            repository,
            targets,
            is_forced=options.is_forced,
            keep_going=options.keep_going,
            is_synced=options.is_synced,
            progress=progress,
        )
    except BaseException:
        if config_target is not None:
            config_target.abort()
        raise
    if config_target is not None:
        _write_text(config_target, text)
    return RestoredGroup(found, dict(zip(targets, results, strict=True)), config_target.path if config_target else None)


def read_guest_config(repository: Repository, selector: str, moves: Mapping[str, str] | None = None) -> bytes:
    """Return the configuration of a guest as it was when a snapshot of it was taken; of an incomplete one as well.

    Args:
        moves: where disks are now that were at a path, or below a folder: what is returned says so.

    Raises:
        UsageError: the snapshot has none.
    """
    found = select_group(repository, selector)
    config = found.find(CONFIG_DISK)
    if config is None:
        hint = "only 'backup --guest' stores it" if CONFIG_DISK not in found.disks else None
        raise UsageError(f"{found.label} has no configuration of a guest", hint=hint)
    text = _read_config(repository, config.manifest)
    sources = [each.manifest.source for each in found.snapshots if each is not config]
    return rewrite_paths(text, {source: move_path(source, moves or {}) for source in sources})


def find_guest_config(repository: Repository, found: GroupSnapshot) -> bytes | None:
    """Return the configuration of a guest in a snapshot of it, as it was; None where there is none."""
    config = found.find(CONFIG_DISK)
    return None if config is None else _read_config(repository, config.manifest)


def write_guest_config(repository: Repository, config: bytes, path: str, options: RestoreOptions | None = None) -> None:
    """Write a configuration to a new file, or to the standard output (`-`); as `restore` writes images."""
    options = options or RestoreOptions()
    refuse_in_repository(repository, path)
    _write_text(open_target(path, len(config), is_forced=options.is_forced, is_synced=options.is_synced), config)


def choose_targets(found: GroupSnapshot, folder: str | None, moves: Mapping[str, str]) -> dict[str, Manifest]:
    """Return where each disk of a group's snapshot is written to; raises UsageError, ImageError.

    Volumes must be there: a file among devices would take memory, and vanish.
    """
    if folder is not None and not os.path.isdir(folder):
        raise UsageError(f"{folder} is not a folder", hint="--into takes one that exists, such as /dev/vg")
    manifests = [each.manifest for each in found.snapshots if found.name_disk(each.manifest) != CONFIG_DISK]
    names = [_name_target(each) for each in manifests]
    targets: dict[str, Manifest] = {}
    for name, manifest in zip(names, manifests, strict=True):
        target = move_path(manifest.source, moves)
        if target == manifest.source:
            if folder is None:
                hint = f"--map {manifest.source}=PATH, or --into FOLDER for all"
                raise UsageError(f"nothing says where {manifest.source} is to be restored to", hint=hint)
            target = os.path.join(folder, name if names.count(name) == 1 else manifest.image)
        if target in targets:
            raise UsageError(f"{manifest.label} and {targets[target].label} would both be restored to {target}")
        if _is_of_devices(os.path.dirname(target)) and not os.path.exists(target):
            hint = f"'lvcreate --size {manifest.size_bytes}b --name {os.path.basename(target)} GROUP' makes it"
            raise ImageError(target, f"is not there, and {manifest.label} needs it", hint=hint)
        targets[target] = manifest
    return targets


def _write_text(target: ImageTarget, text: bytes) -> None:
    """Write all of a target, and give it its name; nothing is left of it where that fails."""
    try:
        target.write(0, memoryview(text))
        target.commit()
    except BaseException:
        target.abort()
        raise


def _is_of_devices(folder: str) -> bool:
    return os.path.join(os.path.realpath(folder or os.curdir), "").startswith(_DEVICES)


def _name_target(manifest: Manifest) -> str:
    base = os.path.basename(manifest.source)
    return manifest.image if base in ("", ".", "..") else base


def _read_config(repository: Repository, manifest: Manifest) -> bytes:
    """Return the content of a configuration, which is verified as it is read."""
    if manifest.size_bytes > MAX_CONFIG_BYTES:
        raise UsageError(f"{manifest.label} is no configuration: it has {manifest.size_bytes} bytes")
    with open_snapshot(repository, manifest.id) as reader:
        return reader.read(0, manifest.size_bytes)
