# SPDX-License-Identifier: Apache-2.0
"""Both sides of a mirror in this process: the far side is a fork of it, which may be killed at its n-th call to the system."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import deltaimg.engine.mirror.run as run_module
import deltaimg.engine.mirror.working_copy as working_copy
import deltaimg.image.allocation as allocation
from deltaimg.arrays import Ranges
from deltaimg.engine.mirror.connect import Connection, parse_destination
from deltaimg.engine.mirror.far import serve
from deltaimg.engine.mirror.protocol import Channel, ChannelClosed, Hello, Kind
from deltaimg.engine.mirror.request import MirrorRequest, MirrorResult
from deltaimg.engine.mirror.run import mirror, recover_mirror
from deltaimg.errors import FarSideUnusable
from deltaimg.kernels.layout import FailedRange

STEPS = ("pwrite", "fsync", "fdatasync", "rename", "ftruncate", "unlink", "utime", "truncate")
"""Calls by which the far side changes what is on a disk, or makes it durable."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """An image, and where its copy is."""

    image: Path
    copy: Path

    def request(self, **options: object) -> MirrorRequest:
        connection = Connection(parse_destination(str(self.copy)), "ssh", "deltaimg")
        return MirrorRequest(str(self.image), connection, **options)  # type: ignore[arg-type]

    def run(
        self, *, kill_at: int | None = None, before: Callable[[], None] = lambda: None, **options: object
    ) -> MirrorResult:
        """Mirror; the far side is killed before its n-th step, counted from 0. Raises FarSideUnusable then.

        Args:
            before: called in the process of the far side, before it begins.
        """
        with far_side_forked(kill_at, before):
            return mirror(self.request(**options))

    def recover(self, *, kill_at: int | None = None) -> str:
        with far_side_forked(kill_at):
            return recover_mirror(self.request().connection)

    def is_equal(self) -> bool:
        return self.copy.read_bytes() == self.image.read_bytes()


@contextmanager
def far_side_forked(kill_at: int | None, before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let the far side be a fork of this process."""

    @contextmanager
    def open_far_side(_connection: Connection, _pace: object) -> Iterator[Channel]:
        to_far, to_near = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            os.close(to_far[1])
            os.close(to_near[0])
            _serve(to_far[0], to_near[1], kill_at, before)
        os.close(to_far[0])
        os.close(to_near[1])
        channel = Channel(to_near[0], to_far[1])
        try:
            channel.receive_magic()
            channel.receive_message(Kind.HELLO, Hello)
            yield channel
        except ChannelClosed as error:
            raise FarSideUnusable("killed") from error
        finally:
            os.close(to_far[1])
            os.close(to_near[0])
            os.waitpid(child, 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "open_far_side", open_far_side)
        yield


def _serve(source: int, sink: int, kill_at: int | None, before: Callable[[], None]) -> None:
    """Serve, and never return."""
    try:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        working_copy.write_ranges = _write_ranges  # type: ignore[assignment]
        # A killed process leaves in the page cache what it wrote; only the power can take that away.
        os.fsync = os.fdatasync = lambda _: None
        if kill_at is not None:
            _kill_before(kill_at)
        with suppress(BaseException):
            before()
            serve(source, sink, "test")
    finally:
        os._exit(0)


def _write_ranges(descriptor: int, ranges: Ranges, data: memoryview, _most_bytes: int) -> FailedRange | None:
    """Do as the kernel, by the call that may be watched."""
    for number, (offset, length, start) in enumerate(ranges.tolist()):
        done = 0
        while done < length:
            try:
                done += os.pwrite(descriptor, data[start + done : start + length], offset + done)
            except OSError as error:
                return FailedRange(number, error.errno or 0)
    return None


def _kill_before(number: int) -> None:
    """Kill this process before one of its steps."""
    left = [number]

    def count(call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*arguments, **options)

        return counted

    for name in STEPS:
        setattr(os, name, count(getattr(os, name)))
    allocation.punch_hole = count(allocation.punch_hole)  # type: ignore[assignment]
