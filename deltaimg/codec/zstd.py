# SPDX-License-Identifier: Apache-2.0
"""Zstandard, one frame a record, with the content size in it and no checksum: records have digests."""

from __future__ import annotations

from typing import ClassVar

from deltaimg.codec.libzstd import Parameters, compress, expand

LEVELS = {"fast": 1, "default": 3, "best": 15}
MIN_LEVEL, MAX_LEVEL = 1, 19


class ZstdCodec:
    """Compresses at one level; decodes what any level made."""

    encoding_id: ClassVar[int] = 1
    name: ClassVar[str] = "zstd"

    def __init__(self, level: int = LEVELS["default"]) -> None:
        self.level = level
        self._parameters = Parameters(level)

    def encode(self, data: bytes | memoryview) -> bytes:
        return compress(data, self._parameters)

    def decode(self, payload: bytes | memoryview, raw_bytes: int, scratch: memoryview | None = None) -> memoryview:
        content = memoryview(bytearray(raw_bytes)) if scratch is None else scratch[:raw_bytes]
        expand(payload, content)
        return content
