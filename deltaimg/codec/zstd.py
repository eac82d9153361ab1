# SPDX-License-Identifier: Apache-2.0
"""Zstandard, one frame a record, with the content size in it and no checksum: records have their own.

Compression contexts are costly to make and must not be shared, so each thread keeps one.
"""

from __future__ import annotations

import threading
from typing import ClassVar

import zstandard

LEVELS = {"fast": 1, "default": 3, "best": 15}
MIN_LEVEL, MAX_LEVEL = 1, 19


class ZstdCodec:
    """Compresses at one level; decodes what any level made."""

    encoding_id: ClassVar[int] = 1
    name: ClassVar[str] = "zstd"

    def __init__(self, level: int = LEVELS["default"]) -> None:
        self.level = level
        self._contexts = threading.local()

    def encode(self, data: bytes | memoryview) -> bytes:
        try:
            compressor = self._contexts.compressor
        except AttributeError:
            compressor = self._contexts.compressor = zstandard.ZstdCompressor(level=self.level, write_checksum=False)
        encoded: bytes = compressor.compress(data)
        return encoded

    def decode(self, payload: bytes | memoryview, raw_bytes: int) -> bytes | memoryview:
        try:
            decompressor = self._contexts.decompressor
        except AttributeError:
            decompressor = self._contexts.decompressor = zstandard.ZstdDecompressor()
        try:
            if zstandard.frame_content_size(payload) != raw_bytes:
                raise ValueError(f"does not expand to {raw_bytes} bytes")
            decoded: bytes = decompressor.decompress(payload, max_output_size=raw_bytes, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ValueError(f"cannot be expanded: {error}") from error
        return decoded
