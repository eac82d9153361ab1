# SPDX-License-Identifier: Apache-2.0
"""`sys.stdout` and `sys.stderr` as commands need them, whatever the parent process passed on.

A result that cannot be written is an error of ours, wherever it is printed from: help and completion included. Progress,
warnings and error messages that cannot be written are lost, and the run continues. Characters that the locale lacks
are written as escapes.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from deltaimg.descriptors import open_missing_descriptors, write_all, write_output
from deltaimg.errors import DeltaimgError

_BUFFER_BYTES = 1 << 16


def set_up_output() -> None:
    """Open what is closed of descriptors 0 to 2, and put our own streams in the place of Python's."""
    encoding = getattr(sys.stdout or sys.stderr, "encoding", None)
    open_missing_descriptors()
    sys.stdout = _make_text(_ResultOutput(), encoding, is_line_buffered=os.isatty(1))
    sys.stderr = _make_text(_MessageOutput(), encoding, is_line_buffered=True)


def flush_output() -> None:
    """Write out what was printed; raises OutputError or ReaderGone."""
    sys.stdout.flush()


@contextmanager
def losing_output() -> Iterator[None]:
    """Inside, output that cannot be written is dropped; what was printed before is still an error."""
    flush_output()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, _ResultOutput):
        yield
        return
    raw.may_lose = True
    try:
        yield
        flush_output()
    finally:
        raw.may_lose = False


def lose_output() -> None:
    """Close the standard output, so that Python does not report at its end what cannot be written."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _ResultOutput):
        raw.may_lose = True


class _ResultOutput(io.RawIOBase):
    """The standard output; writing raises DeltaimgError, the same one again once it has failed."""

    mode = "wb"

    def __init__(self) -> None:
        super().__init__()
        self.may_lose = False
        self._failure: DeltaimgError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1

    def isatty(self) -> bool:
        return os.isatty(1)

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        if self._failure is None:
            try:
                write_output(data)
            except DeltaimgError as error:
                self._failure = error
        if self._failure is not None and not self.may_lose:
            raise self._failure
        return memoryview(data).nbytes


class _MessageOutput(io.RawIOBase):
    """The standard error; what cannot be written is lost."""

    mode = "wb"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def isatty(self) -> bool:
        return os.isatty(2)

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        with suppress(OSError):
            write_all(2, data)
        return memoryview(data).nbytes


def _make_text(raw: io.RawIOBase, encoding: str | None, *, is_line_buffered: bool) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(raw, _BUFFER_BYTES)
    return io.TextIOWrapper(
        buffer, encoding or "utf-8", errors="backslashreplace", newline="\n", line_buffering=is_line_buffered
    )
