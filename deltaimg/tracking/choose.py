# SPDX-License-Identifier: Apache-2.0
"""Which tracker a backup uses: what its options ask for, as far as the image allows."""

from __future__ import annotations

from dataclasses import replace

from deltaimg.errors import UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.freeze.freeze import PointInTime
from deltaimg.image.qemu.source import QemuSource
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.options.freeze import FreezeOptions
from deltaimg.tracking.hints import HintsFile
from deltaimg.tracking.interface import ChangeClaim, Tracker
from deltaimg.tracking.reflink import METHOD, ReflinkTracker

_IMPLIED = {"auto": "auto", "scan": "auto", METHOD: METHOD}
"""How an image is frozen for each kind of tracking, where nothing else was asked for."""


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


def plan_freezing(options: BackupOptions) -> FreezeOptions:
    """Return how an image is to be frozen: as asked for, or as tracking needs it; raises UsageError."""
    if options.track != "none" and options.hints is not None:
        raise UsageError(f"--track {options.track} and --hints cannot both be used", hint="leave one of them out")
    freezing = options.freezing
    if options.track == METHOD and freezing.freeze not in ("none", "auto", METHOD):
        hint = "leave --freeze out: the clone that is compared is a point in time"
        raise UsageError(f"--track {METHOD} and --freeze {freezing.freeze} cannot both be used", hint=hint)
    if options.track in _IMPLIED and (freezing.freeze == "none" or options.track == METHOD):
        return replace(freezing, freeze=_IMPLIED[options.track])
    return freezing


def choose_tracker(
    options: BackupOptions, source: ImageSource, path: str, point: PointInTime | None, key: str
) -> Tracker | None:
    """Return what is asked what changed; None where everything is to be read.

    Args:
        path: of the image. point: of what it is read. key: of `reflink.make_key`.
    """
    if options.hints is not None:
        return HintsFile(options.hints)
    if options.track == "none" or point is None:
        return None
    if point.method == METHOD and isinstance(source, QemuSource):
        return NoTracker("clones of a file that holds an image in a format of its own say nothing of the image")
    if point.method == METHOD:
        return ReflinkTracker(path, point.path, key)
    if point.method == "none":
        return NoTracker(f"the image was not cloned: {point.reason}")
    return NoTracker(f"the image was frozen by {point.method}, which tracks no changes")
