# SPDX-License-Identifier: Apache-2.0
"""Content as copies of itself and small differences, then zstd: pages of databases become a half of what zstd makes of them."""

from __future__ import annotations

from typing import ClassVar

from deltaimg.codec.delta_body import ENCODING_ID, NAME, decode_body, encode_body
from deltaimg.codec.zstd import choose_delta_level


class DeltaimgCodec:
    """Compresses at a level that follows from zstd's; decodes what any level made."""

    encoding_id: ClassVar[int] = ENCODING_ID
    name: ClassVar[str] = NAME

    def __init__(self, level: int = 3) -> None:
        self.level = choose_delta_level(level)

    def encode(self, data: bytes | memoryview) -> bytes:
        """Return a delta body without sources, as a zstd frame."""
        return encode_body(data, b"", self.level)

    def decode(self, payload: bytes | memoryview, raw_bytes: int, scratch: memoryview | None = None) -> memoryview:
        """Return exactly `raw_bytes` bytes, in `scratch` if that is given; raises ValueError for anything else."""
        return decode_body(payload, b"", raw_bytes, scratch)
