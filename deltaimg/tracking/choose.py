# SPDX-License-Identifier: Apache-2.0
"""Which tracker a backup uses: what its options ask for, as far as the image allows.

Trackers that need LVM or the library of Ceph are imported where one is used: a start has no time for the others.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from msgspec.structs import replace

from deltaimg.errors import FreezeFailed, ProgramMissing, UnsupportedImage, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.freeze.freeze import PointInTime
from deltaimg.freeze.methods import LVM, QMP, RBD, REFLINK
from deltaimg.image.nbd.address import is_nbd_address
from deltaimg.image.qemu.address import is_monitor_address
from deltaimg.image.qemu.formats import BY_NAME, find_named_driver
from deltaimg.image.rbd.address import is_rbd_address, parse_rbd_address
from deltaimg.image.source import HasBitmaps, ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.options.freeze import FreezeOptions
from deltaimg.tracking import bitmap
from deltaimg.tracking.bitmap import FileBitmaps, KeptBitmap, KeptBitmaps, NamedBitmap
from deltaimg.tracking.hints import HintsFile
from deltaimg.tracking.interface import THIN, ChangeClaim, Tracker
from deltaimg.tracking.reflink import KeptClones, ReflinkTracker

_IMPLIED = {"auto": "auto", "scan": "auto", REFLINK: REFLINK, THIN: LVM, RBD: RBD}
"""How an image is frozen for each kind of tracking, where nothing else was asked for."""
_FITTING = {
    REFLINK: ("none", "auto", REFLINK),
    bitmap.METHOD: ("none",),
    THIN: ("none", "auto", LVM),
    RBD: ("none", "auto", RBD),
}
_READ = {
    REFLINK: "the clone that is compared",
    bitmap.METHOD: "a file that nothing else can write to",
    THIN: "the snapshot that is compared",
    RBD: "the snapshot that is compared",
}


class NoTracker:
    """Stands for tracking that was asked for and cannot be used, for a reason."""

    method = "scan"

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def find_changes(self, base: Manifest) -> ChangeClaim:  # noqa: ARG002
        """Return that nothing is known."""
        return ChangeClaim(None, self._reason)

    def keep(self, snapshot: str) -> str | None:  # noqa: ARG002
        """Keep nothing."""
        return None

    def settle(self, snapshot: str) -> None:
        """Do nothing."""


def plan_bitmaps(
    options: BackupOptions,
    path: str,
    format: str,  # noqa: A002  as the option
    key: str,
    snapshot: str | None,
) -> KeptBitmaps | None:
    """Return the bitmaps that a backup is to keep of a disk; None where it keeps none.

    Args:
        format: `auto`, `raw` or a driver. key: of `reflink.make_key`. snapshot: see `KeptBitmaps`.

    Raises:
        UnsupportedImage: bitmaps were asked for, and the image has none. UsageError: that of a server, and there is none.
    """
    if options.bitmap is not None and not is_nbd_address(path):
        raise UsageError("--bitmap is for exports of NBD servers", hint="--track bitmap is for qcow2 files")
    is_tracked = options.track in ("auto", "scan", bitmap.METHOD)
    if is_monitor_address(path):
        return KeptBitmaps(key, snapshot) if is_tracked else None
    driver = find_named_driver(path) if format == BY_NAME else format
    if options.track == bitmap.METHOD and (driver != "qcow2" or is_nbd_address(path)):
        hint = (
            "--bitmap is for exports of NBD servers" if is_nbd_address(path) else "--track auto takes what works here"
        )
        raise UnsupportedImage(path, "is no qcow2 file: --track bitmap keeps dirty bitmaps in one", hint=hint)
    is_kept = is_tracked and driver == "qcow2" and options.freeze == "none"
    return FileBitmaps(path, key, snapshot) if is_kept else None


def plan_freezing(options: BackupOptions, path: str, kept: KeptBitmaps | None) -> FreezeOptions:
    """Return how an image is to be frozen: as asked for, or as tracking needs it; raises UsageError.

    Args:
        path: of the image. kept: in a file, they make sure that nothing else can open it to write while it is read.
    """
    asked = {"--hints": options.hints is not None, "--bitmap": options.bitmap is not None}
    asked[f"--track {options.track}"] = options.track != "none"
    chosen = [name for name, is_asked in asked.items() if is_asked]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[-1]} and {chosen[0]} cannot both be used", hint="leave one of them out")
    freezing = options.freezing
    if is_monitor_address(path) and freezing.freeze in ("none", "auto"):
        return replace(freezing, freeze=QMP)
    if options.track in _FITTING and freezing.freeze not in _FITTING[options.track]:
        raise UsageError(
            f"--track {options.track} and --freeze {freezing.freeze} cannot both be used",
            hint=f"leave --freeze out: {_READ[options.track]} is a point in time",
        )
    if kept is None and options.track in _IMPLIED and (freezing.freeze == "none" or options.track in _FITTING):
        return replace(freezing, freeze=_IMPLIED[options.track])
    return freezing


def choose_tracker(
    options: BackupOptions,
    source: ImageSource,
    path: str,
    point: PointInTime | None,
    key: str,
    kept: KeptBitmaps | None,
) -> Tracker | None:
    """Return what is asked what changed; None where everything is to be read.

    Args:
        path: of the image. point: of what it is read. key: of `reflink.make_key`. kept: of `plan_bitmaps`.

    Raises:
        UnsupportedImage: the volume is not thin, or its changes cannot be found, though just that was asked for.
    """
    if options.hints is not None:
        return HintsFile(options.hints)
    if options.bitmap is not None:
        assert isinstance(source, HasBitmaps), "plan_bitmaps has refused any other"
        return NamedBitmap(options.bitmap.name, options.bitmap.snapshot, source.find_dirty)
    if kept is not None and isinstance(source, HasBitmaps):
        return KeptBitmap(kept, source.find_dirty)
    if kept is not None:
        return NoTracker("the file is flat, though its name says otherwise")
    if options.track == "none" or point is None:
        return None
    if point.method == REFLINK and isinstance(source, HasBitmaps):
        return NoTracker("clones of a file that holds an image in a format of its own say nothing of the image")
    if point.method == REFLINK:
        return ReflinkTracker(path, point.path, key)
    if point.method == RBD:
        from deltaimg.tracking.rbd import RbdTracker

        return RbdTracker(parse_rbd_address(point.path), key)
    if point.method == LVM:
        from deltaimg.tracking.thin import ThinTracker

        try:
            return ThinTracker.of(path, point.path, key)
        except FreezeFailed as error:
            if options.track == THIN:
                hint = error.hint if isinstance(error, ProgramMissing) else "--track auto takes what works here"
                raise UnsupportedImage(path, f"{error.problem}: --track thin cannot be used", hint=hint) from error
            return NoTracker(f"LVM: {error.problem}")
    if is_nbd_address(path):
        return NoTracker("an export is tracked by a bitmap of its server: --bitmap")
    if point.method == "none":
        return NoTracker(f"the image was not cloned: {point.reason}")
    return NoTracker(f"the image was frozen by {point.method}, which tracks no changes")


def remove_kept(path: str, key: str) -> None:
    """Remove what earlier backups of an image kept to track its changes, but for bitmaps. Nothing is raised.

    Args:
        path: of the image. key: of `reflink.make_key`.
    """
    if is_rbd_address(path):
        from deltaimg.tracking.rbd import remove_kept_snapshots

        remove_kept_snapshots(path, key)
        return
    KeptClones(path, key).remove()
    with suppress(OSError, ValueError):
        if stat.S_ISBLK(os.stat(path).st_mode):
            from deltaimg.tracking.thin import remove_kept_volumes

            remove_kept_volumes(path, key)
