# SPDX-License-Identifier: Apache-2.0
"""deltaimg's own deltas: copies and small differences in five streams (`native/src/delta`), then zstd.

In data of regular layout the same changes come again and again. As operations and differences they are bytes that repeat, and
zstd finds what repeats. docs/format.md, "Delta body", has the bytes.

Memory  a thread: 1 MiB and nine times the longest content so far. A call of `decode`: at most twice the content.
"""

from __future__ import annotations

import threading
from itertools import accumulate, pairwise
from typing import ClassVar, Final

from deltaimg.codec.libzstd import Parameters, compress_parts, expand, read_content_bytes
from deltaimg.delta.zstd_delta import LAZY_LEVELS, choose_delta_level
from deltaimg.errors import NativeError
from deltaimg.kernels import decode_delta, delta_bound, delta_work_bytes, encode_delta

_LAZY_TABLES: Final = {"table_log": 15, "min_match": 4}
"""Instead of 17 and 5: streams are short. A twentieth less time, and as small."""


class _Memory(threading.local):
    """What a thread's calls of `encode` work in."""

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


class DeltaimgDelta:
    """Compresses at a level that follows from the literals' level; decodes what any level made."""

    encoding_id: ClassVar[int] = 4
    name: ClassVar[str] = "deltaimg"

    def __init__(self, level: int = 3) -> None:
        self.level = choose_delta_level(level)
        is_lazy = self.level in LAZY_LEVELS
        self._parameters = Parameters(self.level, **_LAZY_TABLES) if is_lazy else Parameters(self.level)

    def encode(self, content: memoryview, sources: memoryview) -> bytes:
        work, body = _MEMORY.get(len(content))
        bounds = accumulate(encode_delta(content, sources, work, body), initial=0)
        return compress_parts([body[start:end] for start, end in pairwise(bounds)], self._parameters)

    def decode(
        self, payload: memoryview, sources: memoryview, raw_bytes: int, scratch: memoryview | None = None
    ) -> memoryview:
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
