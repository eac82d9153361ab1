# SPDX-License-Identifier: Apache-2.0
"""Delta bodies in frames: content as copies of sources and of itself and as small differences (`native/src/delta`), then zstd.

In data of regular layout the same changes come again and again. As operations and differences they are bytes that repeat, and
zstd finds what repeats. docs/format.md, "Delta body", has the bytes.

Memory  a thread: 1 MiB and nine times the longest content so far. A call of `decode_body`: at most twice the content.
"""

from __future__ import annotations

import threading
from functools import cache
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from deltaimg.codec.libzstd import Parameters, compress_parts, expand, read_content_bytes
from deltaimg.codec.zstd import LAZY_LEVELS
from deltaimg.errors import NativeError
from deltaimg.kernels import count_delta_use, decode_delta, delta_bound, delta_work_bytes, encode_delta

ENCODING_ID: Final = 4
NAME: Final = "deltaimg"
_TABLE_LOG, _MIN_MATCH = 15, 4
"""Of zstd's lazy levels, instead of 17 and 5: streams are short. A twentieth less time, and as small."""


class DeltaBody:
    """A body that makes `content` from `sources`, in memory that the thread's next one takes again."""

    def __init__(self, content: bytes | memoryview, sources: bytes | memoryview) -> None:
        work, memory = _MEMORY.get(len(content))
        bounds = list(accumulate(encode_delta(content, sources, work, memory), initial=0))
        self._parts = [memory[start:end] for start, end in pairwise(bounds)]
        self._whole, self._lengths = memory[: bounds[-1]], (len(sources), len(content))

    def count_use(self, block_bytes: int) -> npt.NDArray[np.uint32]:
        """Return how many bytes of each block of the sources it needs."""
        return count_delta_use(self._whole, *self._lengths, block_bytes)

    def compress(self, level: int) -> bytes:
        """Return it as one frame, with zstd blocks of its own for each stream."""
        return compress_parts(self._parts, _parameters(level))


def encode_body(content: bytes | memoryview, sources: bytes | memoryview, level: int) -> bytes:
    """Return one frame of a body that makes `content` from `sources`."""
    return DeltaBody(content, sources).compress(level)


def decode_body(
    payload: bytes | memoryview, sources: bytes | memoryview, raw_bytes: int, scratch: memoryview | None = None
) -> memoryview:
    """Return the content, in `scratch` if there is any; raises ValueError for what is no such frame or length."""
    body_bytes = read_content_bytes(payload)
    if not 0 <= body_bytes <= delta_bound(raw_bytes):
        raise ValueError(f"holds {body_bytes} bytes of delta for {raw_bytes} bytes of content")
    body = memoryview(bytearray(body_bytes))
    expand(payload, body)
    content = memoryview(bytearray(raw_bytes)) if scratch is None else scratch[:raw_bytes]
    try:
        decode_delta(body, sources, content)
    except NativeError as error:
        raise ValueError(f"holds no delta for its sources and length ({error.status})") from error
    return content


class _Memory(threading.local):
    """What a thread's encoding works in."""

    def __init__(self) -> None:
        self._content_bytes = -1
        self._work, self._body = bytearray(), bytearray()

    def get(self, content_bytes: int) -> tuple[bytearray, memoryview]:
        """Return work memory, and room for a body."""
        if content_bytes > self._content_bytes:
            self._content_bytes = content_bytes
            self._work, self._body = bytearray(delta_work_bytes(content_bytes)), bytearray(delta_bound(content_bytes))
        return self._work, memoryview(self._body)


_MEMORY = _Memory()


@cache
def _parameters(level: int) -> Parameters:
    return Parameters(level, table_log=_TABLE_LOG, min_match=_MIN_MATCH) if level in LAZY_LEVELS else Parameters(level)
