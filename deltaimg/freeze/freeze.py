# SPDX-License-Identifier: Apache-2.0
"""Freeze images for a backup: stop their writers, make a point in time, let them continue, and clean up at the end.

    remove leftovers   of dead processes on the same storage
    pre-freeze         the command that stops the writers, if there is one
    hold               a clone or a snapshot of each, by the method that was asked for, or the first that works (`auto`)
    post-freeze        the writers continue, as soon as all clones are there; without one of each, when all has been read
    read               by whoever opened the context
    remove             the clone or snapshot

Always  every step that began is undone, in reverse order, whatever happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from msgspec import Struct

from deltaimg.errors import DeltaimgError, FreezeFailed, FreezeLost, HookFailed, ImageError
from deltaimg.format.manifest import Freezing
from deltaimg.freeze.choose import choose_methods
from deltaimg.freeze.hooks import Hooks
from deltaimg.freeze.interface import Freezer, FreezeRequest, Held, Unfrozen, WantedBitmaps
from deltaimg.freeze.methods import QMP
from deltaimg.image.qemu.address import find_monitor, is_monitor_address
from deltaimg.options.freeze import FreezeOptions
from deltaimg.text import as_text

Warn = Callable[[str], None]


class Writers:
    """What writes to the images: it is stopped by one command, and continues by another once all is read."""

    def __init__(self, hooks: Hooks, readers: int) -> None:
        """Args: readers: how many calls of `end_reading` there will be."""
        self.hooks = hooks
        self._readers = readers

    def end_reading(self) -> None:
        """Let writers continue if this was the last reader; raises HookFailed."""
        self._readers -= 1
        if self._readers <= 0:
            self.hooks.thaw()


class PointInTime:
    """An image that is frozen, or read as it is, as long as its context is open."""

    def __init__(self, request: FreezeRequest, held: Held, method: str, reason: str, writers: Writers) -> None:
        """Args: reason: why not a better method, in words; empty if none was wanted."""
        self._request, self._held, self._writers = request, held, writers
        self.method, self.reason = method, reason
        self.taken_at: datetime | None = None if method == "none" else datetime.now(UTC)
        """The moment of which it is; None where the image is read as it is."""
        self._held_s = 0.0
        self._used_bytes = 0

    @property
    def path(self) -> str:
        """What to open and read."""
        return self._held.path

    @property
    def has_stopped_writers(self) -> bool:
        """Whether the image itself is read, while its writers are stopped by the pre-freeze command."""
        return self.method == "hook"

    @property
    def is_of_another_file(self) -> bool:
        """Whether what is read is another file or device than the image."""
        return self._held.path != self._request.path

    def end_reading(self) -> None:
        """Let writers continue, where they still wait and nothing else is to be read; this is not read after it.

        Raises:
            FreezeLost: what was read is no point in time. HookFailed: the post-freeze command failed.
        """
        self._writers.end_reading()
        self._used_bytes = self._held.used_bytes
        if problem := self._held.find_failure():
            raise FreezeLost(self._request.path, f"{problem}, so no snapshot was made")

    def describe(self) -> Freezing:
        """Return what a manifest says of it."""
        return Freezing(
            method=self.method,
            reason=as_text(self.reason),
            frozen_s=round(self._writers.hooks.frozen_s or self._held_s, 4),
            used_bytes=self._used_bytes,
        )

    def note_duration(self, held_s: float) -> None:
        """Note how long it took to make."""
        self._held_s = held_s


class FrozenGroup(Struct, frozen=True):
    """Images that are frozen together, as long as their context is open."""

    points: tuple[PointInTime, ...]
    """Of each image, in order."""
    spread_s: float
    """How long after the first one the last was frozen; 0 where writers were stopped meanwhile, or all are read as they are:
    then nothing may have been written to any of them."""
    _writers: Writers

    def end_reading(self) -> None:
        """Let writers continue, once all points were read and this was called; raises HookFailed."""
        self._writers.end_reading()


@contextmanager
def freeze_image(
    path: str,
    options: FreezeOptions,
    warn: Warn,
    *,
    image: str = "",
    used_before: tuple[int, ...] = (),
    bitmaps: WantedBitmaps | None = None,
) -> Iterator[PointInTime]:
    """Freeze the image at `path` for the time of a context, as `options` say.

    Args:
        warn: takes what went wrong without stopping the run. image: its name in the repository, for the commands.
        used_before: how much room snapshots of it took in earlier backups, the newest first. bitmaps: of a running qemu.

    Raises:
        UsageError: the options do not fit together. FreezeFailed: the image cannot be frozen as asked.
        HookFailed: a command failed. FreezeLost: the point in time was lost while it was read.
    """
    hooks = Hooks(options, {"DELTAIMG_IMAGE": image, "DELTAIMG_SOURCE": path})
    with _freeze([FreezeRequest(path, options, used_before, bitmaps)], Writers(hooks, 1), warn) as frozen:
        yield frozen.points[0]


@contextmanager
def freeze_group(requests: Sequence[FreezeRequest], warn: Warn, *, name: str) -> Iterator[FrozenGroup]:
    """Freeze several images together: their writers are stopped once, and continue once; raises as `freeze_image`.

    Args:
        requests: with the same options. name: of the group, for the commands.
    """
    variables = {"DELTAIMG_IMAGE": name, "DELTAIMG_SOURCE": "\n".join(each.path for each in requests)}
    hooks = Hooks(requests[0].options, variables)
    with _freeze(requests, Writers(hooks, len(requests) + 1), warn) as frozen:
        yield frozen


@contextmanager
def _freeze(requests: Sequence[FreezeRequest], writers: Writers, warn: Warn) -> Iterator[FrozenGroup]:
    hooks = writers.hooks
    points: dict[FreezeRequest, PointInTime] = {}
    methods = [choose_methods(each.path, each.options) for each in requests]
    for name in _remove_leftovers(requests, methods):
        warn(f"{name} was left by a backup that died, and is removed")
    with ExitStack() as stack:
        try:
            hooks.freeze()
            moments_s = []
            for together, possible in _gather(requests, methods):
                started_s = time.monotonic()
                found = _hold(together, possible, writers, stack)
                ended_s = time.monotonic()
                points |= dict(zip(together, found, strict=True))
                if not all(each.is_still for each in together):
                    moments_s.append(ended_s)
                for point in found:
                    point.note_duration(ended_s - started_s if point.is_of_another_file else 0.0)
            if all(point.is_of_another_file for point in points.values()):
                hooks.thaw()
            is_stopped = hooks.are_given or not any(point.is_of_another_file for point in points.values())
            spread_s = 0.0 if is_stopped else moments_s[-1] - moments_s[0]
            yield FrozenGroup(tuple(points[each] for each in requests), round(spread_s, 4), writers)
        except BaseException as error:
            _thaw_after(error, hooks, warn)
            if isinstance(error, ImageError) and not isinstance(error, FreezeLost | FreezeFailed):
                # A snapshot that overflows can no longer be read: that is the reason, and the error its consequence.
                for point in points.values():
                    point.end_reading()
            raise
        hooks.thaw()


def _remove_leftovers(requests: Sequence[FreezeRequest], methods: Sequence[tuple[Freezer, ...]]) -> Iterator[str]:
    for method in dict.fromkeys(each for possible in methods for each in possible):
        paths = [request.path for request, possible in zip(requests, methods, strict=True) if method in possible]
        yield from method.remove_leftovers(paths)


def _gather(
    requests: Sequence[FreezeRequest], methods: Sequence[tuple[Freezer, ...]]
) -> list[tuple[list[FreezeRequest], tuple[Freezer, ...]]]:
    """Return what is frozen at one moment, in order: the disks of one running qemu; of all else one image at a time."""
    found: dict[object, tuple[list[FreezeRequest], tuple[Freezer, ...]]] = {}
    for request, possible in zip(requests, methods, strict=True):
        qemu = find_monitor(request.path) if is_monitor_address(request.path) else request
        found.setdefault(qemu, ([], possible))[0].append(request)
    return list(found.values())


def _hold(
    together: Sequence[FreezeRequest], methods: tuple[Freezer, ...], writers: Writers, stack: ExitStack
) -> list[PointInTime]:
    """Make points in time of what `_gather` has put together, in order."""
    if is_monitor_address(together[0].path):
        from deltaimg.freeze.qmp import QmpFreezer

        held = stack.enter_context(QmpFreezer().hold_together(together))
        return [PointInTime(*each, QMP, "", writers) for each in zip(together, held, strict=True)]
    return [_hold_one(each, methods, writers, stack) for each in together]


def _hold_one(request: FreezeRequest, methods: tuple[Freezer, ...], writers: Writers, stack: ExitStack) -> PointInTime:
    """Make a point in time by the first method that works."""
    is_choosing = request.options.freeze == "auto"
    reasons = []
    for each in methods:
        try:
            held = stack.enter_context(each.hold(request))
        except FreezeFailed as error:
            if not is_choosing:
                raise
            reasons.append(f"{each.name}: {error.problem}")
            continue
        return PointInTime(request, held, each.name, "; ".join(reasons), writers)
    method = "hook" if writers.hooks.are_given else "none"
    if is_choosing and not methods:
        reasons.append("neither an image file nor a block device")
    return PointInTime(request, Unfrozen(request.path), method, "; ".join(reasons), writers)


def _thaw_after(error: BaseException, hooks: Hooks, warn: Warn) -> None:
    """Let writers continue after an error, which counts more than another one that comes of this."""
    try:
        hooks.thaw()
    except HookFailed as failure:
        if failure is not error:
            warn(str(failure))
    except DeltaimgError as failure:
        warn(str(failure))
