# SPDX-License-Identifier: Apache-2.0
"""deltaimg's own deltas: copies of sources and small differences, then zstd. See `codec/delta_body.py`."""

from __future__ import annotations

from typing import ClassVar

from deltaimg.codec.delta_body import ENCODING_ID, NAME, decode_body, encode_body
from deltaimg.codec.zstd import choose_delta_level


class DeltaimgDelta:
    """Compresses at a level that follows from the literals' level; decodes what any level made."""

    encoding_id: ClassVar[int] = ENCODING_ID
    name: ClassVar[str] = NAME

    def __init__(self, level: int = 3) -> None:
        self.level = choose_delta_level(level)

    def encode(self, content: memoryview, sources: memoryview) -> bytes:
        """Return a delta body as a zstd frame."""
        return encode_body(content, sources, self.level)

    def decode(
        self, payload: memoryview, sources: memoryview, raw_bytes: int, scratch: memoryview | None = None
    ) -> memoryview:
        """Return exactly `raw_bytes` bytes, in `scratch` if that is given; raises ValueError for anything else."""
        return decode_body(payload, sources, raw_bytes, scratch)
