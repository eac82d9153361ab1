# SPDX-License-Identifier: Apache-2.0
"""The standard descriptors 0 to 2 as cron, systemd, ssh and shells hand them over: closed, non-blocking, or a pipe.

What cannot be written to the standard output is an error; what cannot be written to the standard error is dropped.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import stat

from deltaimg.errors import DeltaimgError, OutputError, ReaderGone

_MAX_WRITE_BYTES = 1 << 20
_NAMES = re.compile(
    r"/dev/(?P<name>stdin|stdout|stderr)|(?:/dev|/proc/(?:self|thread-self))/fd/(?P<number>\d{1,9})", re.ASCII
)


def open_missing_descriptors() -> None:
    """Open those of descriptors 0 to 2 that are closed, so that no file of ours gets one of these numbers.

    They are opened on /dev/null the wrong way round: reading the standard input and writing the standard output fail, as
    they would without this. What is written to the standard error is lost.
    """
    for descriptor, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # The system gives the lowest free number, and those below are open by now.
            os.set_inheritable(os.open(os.devnull, flags), True)


def find_descriptor(path: str) -> int | None:
    """Return the number of this process's own descriptor that a path such as /dev/stdin or /dev/fd/63 names; else None."""
    match = _NAMES.fullmatch(os.path.normpath(path))
    if match is None:
        return None
    return int(match["number"]) if match["number"] else ("stdin", "stdout", "stderr").index(match["name"])


def is_standard_stream(path: str, descriptor: int) -> bool:
    """Return whether a path is `-` or another name of the standard input (0) or output (1), and that is a pipe or socket."""
    if path == "-":
        return True
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return find_descriptor(path) == descriptor and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def write_output(data: bytes | memoryview, descriptor: int = 1) -> None:
    """Write all of `data` to the standard output; raises OutputError or ReaderGone."""
    try:
        write_all(descriptor, data)
    except OSError as error:
        raise output_failure(error) from error


def output_failure(error: OSError) -> DeltaimgError:
    """Return the error for a standard output that could not be written."""
    if error.errno == errno.EPIPE:
        return ReaderGone()
    hint = "make room and run again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    return OutputError(describe_failure(error), hint=hint)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`; wait where a non-blocking descriptor takes no more at the moment. Raises OSError."""
    rest = memoryview(data).cast("B")
    while rest:
        try:
            rest = rest[os.write(descriptor, rest[:_MAX_WRITE_BYTES]) :]
        except BlockingIOError:
            _wait_for(descriptor, select.POLLOUT)


def read_some(descriptor: int, buffer: memoryview) -> int:
    """Fill the beginning of `buffer` and return how many bytes that were, 0 only at the end; wait as `write_all` does.

    Raises OSError.
    """
    while True:
        try:
            return os.readv(descriptor, [buffer])
        except BlockingIOError:
            _wait_for(descriptor, select.POLLIN)


class StandardInput(io.RawIOBase):
    """The standard input as a file for `io.BufferedReader`; closing it leaves the descriptor open."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return read_some(0, buffer)


def describe_failure(error: OSError) -> str:
    """Return in words why a standard descriptor could not be read or written."""
    return "it is closed" if error.errno == errno.EBADF else os.strerror(error.errno or 0)


def _wait_for(descriptor: int, events: int) -> None:
    poll = select.poll()
    poll.register(descriptor, events)
    poll.poll()
