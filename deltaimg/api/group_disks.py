# SPDX-License-Identifier: Apache-2.0
"""Make the disks of a group ready to be backed up as of one moment.

plan      how each is read, and which dirty bitmaps are kept of it
open      qcow2 files whose bitmaps are kept: no qemu can write to them from then on
freeze    all others; the disks of one running qemu, and their bitmaps, in one step
open      these
read      by whoever opened the context
close, unfreeze, remove bitmaps of other snapshots, if these were committed
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

from msgspec import Struct
from msgspec.structs import replace

from deltaimg.engine.backup.group import MemberSource
from deltaimg.engine.backup.opened_image import choose_format, find_used_bytes, open_image, restrain
from deltaimg.engine.backup.request import make_snapshot_id
from deltaimg.engine.progress import Progress
from deltaimg.errors import ImageError, ImageInUse, UnsupportedImage, UsageError
from deltaimg.format.manifest import Group, name_member
from deltaimg.freeze.choose import check_freeze_options
from deltaimg.freeze.freeze import FrozenGroup, PointInTime, freeze_group
from deltaimg.freeze.interface import FreezeRequest
from deltaimg.image.nbd.address import is_nbd_address
from deltaimg.image.open_source import open_source
from deltaimg.image.qemu.address import is_monitor_address, parse_monitor_address
from deltaimg.image.qemu.formats import BY_NAME
from deltaimg.image.qemu.source import QemuSource
from deltaimg.image.rbd.address import is_rbd_address, parse_rbd_address
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.options.definition import validate
from deltaimg.posix import describe_mode
from deltaimg.repo.groups import CONFIG_DISK, check_group_name
from deltaimg.repo.repository import Repository
from deltaimg.repo.selector import check_image_name
from deltaimg.tracking import bitmap
from deltaimg.tracking.bitmap import FileBitmaps, KeptBitmaps
from deltaimg.tracking.choose import choose_tracker, plan_bitmaps, plan_freezing
from deltaimg.tracking.reflink import make_key

_MADE_OF = "a group is made of image files, block devices, images of Ceph and disks of a running qemu"


class GroupParts(Struct, frozen=True):
    """What a group is made of."""

    disks: Mapping[str, str]
    config: bytes | None
    formats: Mapping[str, str]
    is_dry_run: bool = False
    """Whether nothing is to be changed, and so no bitmap begun."""


@contextmanager
def open_group(
    repository: Repository,
    name: str,
    parts: GroupParts,
    options: BackupOptions,
    progress: Progress,
) -> Iterator[tuple[Group, list[MemberSource], FrozenGroup]]:
    """Freeze the disks of a group and open them; they are closed, and nothing is left, at the end.

    Raises:
        UsageError: names and options that do not fit. FreezeFailed, HookFailed: see `freeze_group`.
        ImageError: a disk that cannot be read, or cannot be in a group.
    """
    _check(name, parts.disks, options)
    if options.freeze == "none" and options.track == "none":
        options = dataclasses.replace(options, freeze="auto")
    freezing = plan_freezing(options, "", None)
    # Disks of a running qemu are frozen with bitmaps alone, and commands may run around that.
    check_freeze_options(replace(freezing, freeze="auto") if options.track == bitmap.METHOD else freezing)
    with ExitStack() as stack:
        disks = [_Disk.plan(repository, name, disk, parts, options) for disk in parts.disks]
        for each in disks:
            each.open_still(options, stack)
        requests = [each.make_request(repository, options) for each in disks]
        frozen = stack.enter_context(freeze_group(requests, progress.warn, name=name))
        members = [each.open(point, options, stack) for each, point in zip(disks, frozen.points, strict=True)]
        if parts.config is not None:
            members.append(_open_config(name, parts.config, options, stack))
        group = Group(name=name, members=tuple(each.image for each in members), spread_s=frozen.spread_s)
        yield group, members, frozen


class _Disk(Struct):
    """A disk of a group on its way to a member: planned, opened at once where that keeps others from it, frozen, opened."""

    path: str
    image: str
    format: str
    key: str
    """Of `reflink.make_key`."""
    snapshot: str
    """The id that its snapshot will have."""
    kept: KeptBitmaps | None
    source: ImageSource | None = None

    @classmethod
    def plan(cls, repository: Repository, name: str, disk: str, parts: GroupParts, options: BackupOptions) -> _Disk:
        """Decide how a disk is read, and which bitmaps are kept of it; raises UnsupportedImage and UsageError."""
        path, image, snapshot = parts.disks[disk], name_member(name, disk), make_snapshot_id()
        chosen = options
        if options.format == BY_NAME and not options.stores_containers:
            chosen = dataclasses.replace(options, format=parts.formats.get(disk, BY_NAME))
        format_ = choose_format(repository, path, image, chosen)
        key = make_key(repository.config.repository_id, image)
        kept = plan_bitmaps(options, path, format_, key, None if parts.is_dry_run else snapshot)
        return cls(path, image, format_, key, snapshot, kept)

    def open_still(self, options: BackupOptions, stack: ExitStack) -> None:
        """Begin the bitmap of a qcow2 file and open it: no qemu can write to it from now on.

        One that a qemu has open already is frozen as any other file, unless only bitmaps will do. Raises ImageError.
        """
        if not isinstance(self.kept, FileBitmaps):
            return
        self.kept.begin()
        stack.callback(self.kept.end)
        try:
            source = self._open(self.path, options, stack)
        except ImageInUse:
            if options.track == bitmap.METHOD:
                raise
            self.kept = None
            return
        if isinstance(source, QemuSource):
            self.source = source
        else:
            self.kept = None  # flat, though its name says otherwise: like any other file

    def make_request(self, repository: Repository, options: BackupOptions) -> FreezeRequest:
        """Return how it is to be frozen."""
        used_before = find_used_bytes(repository, self.image)
        freezing = plan_freezing(options, self.path, self.kept)
        return FreezeRequest(self.path, freezing, used_before, self.kept, is_still=self.source is not None)

    def open(self, point: PointInTime, options: BackupOptions, stack: ExitStack) -> MemberSource:
        """Open it as it was frozen; raises ImageError."""
        source = self.source or self._open(point.path, options, stack)
        tracker = choose_tracker(options, source, self.path, point, self.key, self.kept)
        return MemberSource(self.image, restrain(source, options), options, point, tracker, self.snapshot)

    def _open(self, path: str, options: BackupOptions, stack: ExitStack) -> ImageSource:
        bitmaps = () if self.kept is None else self.kept.usable
        return stack.enter_context(closing(open_image(path, self.path, self.format, options, bitmaps)))


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
    seen: dict[object, str] = {}
    for path in disks.values():
        if is_monitor_address(path):
            parse_monitor_address(path)
            continue
        place = _find_place(path)
        if place in seen:
            raise UsageError(f"{path} and {seen[place]} are the same", hint="name each disk once")
        seen[place] = path


def _find_place(path: str) -> object:
    """Return what is the same for two paths of one disk; raises UsageError, and ImageError where it cannot be in a group."""
    if is_rbd_address(path):
        return parse_rbd_address(path)
    if is_nbd_address(path):
        raise UnsupportedImage(path, f"is an export of a server: {_MADE_OF}")
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "is not a possible path"
        raise ImageError(path, f"cannot be read: {reason}") from error
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise UnsupportedImage(path, f"is {describe_mode(found.st_mode)}: {_MADE_OF}")
    return (found.st_rdev, 0) if stat.S_ISBLK(found.st_mode) else (found.st_dev, found.st_ino)


def _open_config(name: str, config: bytes, options: BackupOptions, stack: ExitStack) -> MemberSource:
    """Return a text as a member of a group; it lies in memory and never changes."""
    descriptor = os.memfd_create(f"deltaimg-{CONFIG_DISK}", os.MFD_CLOEXEC)
    with open(descriptor, "r+b", buffering=0, closefd=False) as file:
        file.write(config)
    stack.callback(os.close, descriptor)
    source = stack.enter_context(closing(open_source(f"/proc/self/fd/{descriptor}", name=f"configuration of {name}")))
    chosen = dataclasses.replace(options, allow_shrink=True, stores_containers=True, track="none", free_space="keep")
    return MemberSource(name_member(name, CONFIG_DISK), source, chosen)
