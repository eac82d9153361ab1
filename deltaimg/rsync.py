# SPDX-License-Identifier: Apache-2.0
"""rsync's algorithm between two streams, with the calls, sums and elements of pyrsync2 0.2.6; either side may be pyrsync2.

    sums = blockchecksums(old)                # where the old file is
    elements = rsyncdelta(new, sums)          # where the new one is
    patchstream(old, target, elements)        # where the old one is, again

A signature is a pair for each block, `(weak, strong)`: an integer and the block's MD5. A delta is a row of elements: the
number of an old block, or bytes that are new. It is pyrsync2's, element by element, but for what that gets wrong: old blocks
of one weak sum are all found, not the last only, and streams may return less than was asked for. MD5 can be forged, and
nothing verifies the whole: prefer `deltaimg.delta_file` where the other side need not be pyrsync2.

Reads   streams front to back, some MiB at a time; `patchstream` reads the old one anywhere, so it must seek.
Memory  some MiB, or a few blocks if that is more; of a delta some 50 bytes for each old block.
Raises  `UsageError` for sizes below 1 and streams that are not ready, `Malformed` for signatures and elements that are none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from deltaimg.delta.rolling import build_index, whole_stretch
from deltaimg.errors import Malformed, UsageError
from deltaimg.kernels import StrongKind, Sums, WeakKind, match_blocks, md5_blocks, weak_sums

__all__ = ["blockchecksums", "patchstream", "rsyncdelta"]

_SPAN_BYTES = 4 << 20
_MIN_SPAN_BLOCKS = 4
_MAX_COPY_BYTES = 1 << 20
_MD5_BYTES = 16
_BYTES = (bytes, bytearray, memoryview)
_MAX_OFFSET = 2**63
_WEAK_BITS = 2**64 - 1
"""Kernels have weak sums modulo 2^64, pyrsync2 has them whole."""
_MAX_KERNEL_BYTES = 1 << 20
"""Weak sums of larger blocks may pass 2^64."""


class Readable(Protocol):
    """What is read front to back: `read` may return less than was asked for, and nothing at the end only."""

    def read(self, length: int, /) -> bytes | None: ...


class Seekable(Readable, Protocol):
    """What is read anywhere."""

    def seek(self, offset: int, /) -> int: ...


class Writable(Protocol):
    """What is written front to back: `write` may return that it took less."""

    def write(self, data: bytes | memoryview, /) -> int | None: ...


def blockchecksums(instream: Readable, blocksize: int = 4096) -> Iterator[tuple[int, bytes]]:
    """Yield the weak sum and the MD5 of each block of a stream; the last block may be shorter."""
    _check_size("blocksize", blocksize)
    span_bytes = _choose_span_bytes(blocksize)
    while True:
        data = _read(instream, span_bytes)
        whole = len(data) // blocksize * blocksize
        yield from _sum_blocks(memoryview(data)[:whole], blocksize)
        if len(data) > whole:
            yield from _sum_blocks(memoryview(data)[whole:], len(data) - whole)
        if len(data) < span_bytes:
            return


def rsyncdelta(
    datastream: Readable, remotesignatures: Iterable[tuple[int, bytes]], blocksize: int = 4096, max_buffer: int = 4096
) -> Iterator[int | bytes]:
    """Yield the elements that make the content of `datastream` of the blocks that the signatures are of.

    Args:
        remotesignatures: of each old block, in order, as `blockchecksums` of the same `blocksize` yields them.
        max_buffer: the most new bytes in one element; only the last one, of less than a block, may be longer.
    """
    _check_size("blocksize", blocksize)
    _check_size("max_buffer", max_buffer)
    old = _OldBlocks(remotesignatures, blocksize)
    span_bytes = _choose_span_bytes(blocksize)
    literal = bytearray()
    data = b""
    start = copied_to = 0  # in the new stream: where `data` begins, and where the last copy ends
    is_end = False
    while not is_end:
        more = _read(datastream, span_bytes)
        is_end = len(more) < span_bytes
        data += more
        done = 0
        for position, block, count in old.find(data):
            literal += data[done:position]
            yield from _cut(literal, max_buffer, is_whole=True)
            yield from range(block, block + count)
            done = position + count * blocksize
            copied_to = start + done
        if not is_end:
            # All windows in `data` were searched; the next one begins a byte further on.
            searched = max(done, len(data) - blocksize + 1)
            literal += data[done:searched]
            yield from _cut(literal, max_buffer)
            start += searched
            data = data[searched:]
    # pyrsync2 looks for less than a block among the old ones only where that follows a copy, and has what is left of the
    # last block of the new stream in an element of its own.
    rest = data[done:]
    block_of_rest = old.find_short(rest) if start + done == copied_to and len(rest) < blocksize else None
    if block_of_rest is not None:
        yield block_of_rest
        return
    end = start + len(data)
    tail_bytes = end - max(copied_to, end - end % blocksize)
    literal += rest[: len(rest) - tail_bytes]
    yield from _cut(literal, max_buffer, is_whole=True)
    if tail_bytes:
        yield rest[len(rest) - tail_bytes :]


def patchstream(instream: Seekable, outstream: Writable, delta: Iterable[int | bytes], blocksize: int = 4096) -> None:
    """Write what the elements of `delta` make of the old file `instream`.

    Raises:
        Malformed: an element is neither a number nor bytes, or the number of a block that the old file does not have. What
            came before it has been written.
    """
    _check_size("blocksize", blocksize)
    most = max(1, _MAX_COPY_BYTES // blocksize)
    done = first = count = 0

    def copy() -> int:
        if not count:
            return 0
        try:
            instream.seek(first * blocksize)
        except OSError as error:
            raise Malformed("delta", done, f"block {first} of the old file cannot be reached: {error}") from error
        content = _read(instream, count * blocksize)
        # Only the last block of the old file may be shorter than the others.
        if len(content) <= (count - 1) * blocksize:
            missing = first + -(-len(content) // blocksize)
            raise Malformed("delta", done, f"block {missing} is not in the old file")
        _write(outstream, content)
        return len(content)

    for element in delta:
        if isinstance(element, int) and not isinstance(element, bool):
            if not 0 <= element < _MAX_OFFSET // blocksize:
                raise Malformed("delta", done, "an element is no number that a block of a file can have")
            if element != first + count or count == most:
                done += copy()
                first, count = element, 0
            count += 1
        elif isinstance(element, _BYTES):
            done += copy()
            count = 0
            _write(outstream, element)
            done += memoryview(element).nbytes
        else:
            raise Malformed(
                "delta", done, f"an element is {type(element).__name__}, neither a block's number nor bytes"
            )
    copy()


class _OldBlocks:
    """The old blocks' sums, and the search for them in new content."""

    def __init__(self, signatures: Iterable[tuple[int, bytes]], blocksize: int) -> None:
        self._weaks, self._strongs = _gather(signatures, blocksize)
        # Of equal blocks pyrsync2 names the last.
        self._index = build_index(
            WeakKind.PYRSYNC, StrongKind.MD5, self._weaks, self._strongs, block_bytes=blocksize,
            takes_last=True, prefers_next=False,
        )  # fmt: skip

    def find(self, data: bytes) -> list[tuple[int, int, int]]:
        """Return position, first block and count of what is old in `data`."""
        found: list[tuple[int, int, int]] = match_blocks(self._index, data, whole_stretch(len(data))).tolist()
        return found

    def find_short(self, rest: bytes) -> int | None:
        """Return the old block that is `rest`, which is shorter than others."""
        if not rest:
            return None
        weak = np.uint64(_sum_exactly(memoryview(rest)) & _WEAK_BITS)
        strong = hashlib.md5(rest, usedforsecurity=False).digest()
        for block in np.flatnonzero(self._weaks == weak).tolist()[::-1]:
            if self._strongs[block].tobytes() == strong:
                return int(block)
        return None


def _gather(signatures: Iterable[tuple[int, bytes]], blocksize: int) -> tuple[Sums, npt.NDArray[np.uint8]]:
    """Return signatures as arrays, weak sums modulo 2^64; raises Malformed."""
    weaks: list[int] = []
    strongs = bytearray()
    for number, signature in enumerate(signatures):
        try:
            weak, strong = signature
            is_good = isinstance(weak, int) and weak >= 0 and isinstance(strong, _BYTES) and len(strong) == _MD5_BYTES
        except (TypeError, ValueError):
            is_good = False
        if not is_good:
            raise Malformed("signature", number * blocksize, f"block {number} has no weak sum and MD5")
        weaks.append(weak & _WEAK_BITS)
        strongs += strong
    return np.array(weaks, np.uint64), np.frombuffer(strongs, np.uint8).reshape(-1, _MD5_BYTES)


def _sum_blocks(blocks: memoryview, size: int) -> Iterator[tuple[int, bytes]]:
    if size > _MAX_KERNEL_BYTES:
        weaks = [_sum_exactly(blocks[at : at + size]) for at in range(0, len(blocks), size)]
    else:
        weaks = weak_sums(WeakKind.PYRSYNC, blocks, size).tolist()
    for weak, strong in zip(weaks, md5_blocks(blocks, size), strict=True):
        yield weak, strong.tobytes()


def _sum_exactly(block: memoryview) -> int:
    """Return the weak sum of a block of any size."""
    total = total_of_totals = 0
    for at in range(0, len(block), _MAX_KERNEL_BYTES):
        sums = np.cumsum(np.frombuffer(block[at : at + _MAX_KERNEL_BYTES], np.uint8), dtype=np.uint64)
        total_of_totals += total * len(sums) + int(sums.sum())
        total += int(sums[-1])
    return total_of_totals << 16 | total


def _cut(literal: bytearray, size: int, *, is_whole: bool = False) -> Iterator[bytes]:
    """Take pieces of `size` off the front of `literal`; with `is_whole`, the rest as well."""
    end = len(literal) if is_whole else len(literal) // size * size
    for at in range(0, end, size):
        yield bytes(literal[at : min(at + size, end)])
    del literal[:end]


def _choose_span_bytes(blocksize: int) -> int:
    return max(_MIN_SPAN_BLOCKS, _SPAN_BYTES // blocksize) * blocksize


def _read(stream: Readable, length: int) -> bytes:
    """Return `length` bytes, fewer only at the end."""
    parts: list[bytes] = []
    left = length
    while left:
        part = stream.read(left)
        if part is None:
            raise UsageError("a stream had nothing to read yet", hint="give one that waits for its data")
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write(stream: Writable, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`, to streams that take less at a time as well."""
    view = memoryview(data).cast("B")
    while len(view):
        taken = stream.write(view)
        # Some say nothing of how much they took, and mean all.
        view = view[len(view) if taken is None else taken :]


def _check_size(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} is {value!r}", hint="a whole number from 1 on")
