# SPDX-License-Identifier: Apache-2.0
"""Write large new files past the page cache (O_DIRECT), where a local file system can.

Copying a pack into the page cache costs a tenth of what making it does, and drives out what the guests of the host have
there; what is synced at once, or read next by a later run, gains nothing by it. Network file systems, which do not say how
O_DIRECT is to be aligned, get ordinary writes: there each direct one would wait for the server.

Memory  a thread that writes: one buffer of 4 MiB, or of 512 KiB where no file was longer.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence

from deltaimg.file_status import read_file_status
from deltaimg.threads import ThreadBuffer

_BUFFER_BYTES, _LEAST_BUFFER_BYTES = 4 << 20, 512 << 10
_REFUSED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system answers that has no O_DIRECT after all, or needs another alignment than it says."""

Part = bytes | memoryview


_buffer = ThreadBuffer()


def write_large(
    descriptor: int, parts: Sequence[Part], note: Callable[[memoryview], None] = lambda _filled: None
) -> None:
    """Write all of `parts` to a file that is open for writing. Nothing is durable before a sync. Raises OSError.

    Args:
        note: called with all the bytes in turn, 4 MiB at a time, the last time less; they are valid until it returns.
    """
    alignment = read_file_status(descriptor).direct_alignment
    is_short = sum(memoryview(part).nbytes for part in parts) <= _LEAST_BUFFER_BYTES
    buffer = _buffer.get(_LEAST_BUFFER_BYTES if is_short else _BUFFER_BYTES)
    is_aligned = (
        alignment > 0 and len(buffer) % alignment == 0 and os.lseek(descriptor, 0, os.SEEK_CUR) % alignment == 0
    )
    is_direct = is_aligned and _set_direct(descriptor, True)
    try:
        for filled in _fill(buffer, parts):
            note(filled)
            done = _write_direct(descriptor, filled[: len(filled) // alignment * alignment]) if is_direct else 0
            if is_direct and done < len(filled):  # The end, which need not be aligned.
                is_direct = not _set_direct(descriptor, False)
            while done < len(filled):
                done += os.write(descriptor, filled[done:])
    finally:
        if is_direct:
            _set_direct(descriptor, False)


def _fill(buffer: memoryview, parts: Sequence[Part]) -> Iterator[memoryview]:
    """Yield the bytes of all `parts` in a row, as many at a time as the buffer holds; less only at the end."""
    used = 0
    for part in parts:
        rest = memoryview(part).cast("B")
        while rest:
            count = min(len(rest), len(buffer) - used)
            buffer[used : used + count] = rest[:count]
            used, rest = used + count, rest[count:]
            if used == len(buffer):
                yield buffer
                used = 0
    if used:
        yield buffer[:used]


def _write_direct(descriptor: int, data: memoryview) -> int:
    """Write `data`, or as much of it as the file system takes in this way; return how much that was."""
    done = 0
    try:
        while done < len(data):
            done += os.write(descriptor, data[done:])
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    return done


def _set_direct(descriptor: int, is_direct: bool) -> bool:
    """Have what is written next pass by the page cache, or not; return whether the file system agrees."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | (os.O_DIRECT if is_direct else 0))
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    return True
