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
MAX_WINDOW_BYTES = 16 << 20
"""No record is larger, so no frame of ours needs more; one that asks for more is refused."""


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

    def decode(self, payload: bytes | memoryview, raw_bytes: int, scratch: memoryview | None = None) -> memoryview:
        try:
            decompressor = self._contexts.decompressor
        except AttributeError:
            decompressor = self._contexts.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        content = memoryview(bytearray(raw_bytes)) if scratch is None else scratch[:raw_bytes]
        try:
            if zstandard.frame_content_size(payload) != raw_bytes:
                raise ValueError(f"does not expand to {raw_bytes} bytes")
            # Given all of the frame and room for all of its content, libzstd expands in one pass, straight into `content`.
            filled = decompressor.stream_reader(payload, read_across_frames=False).readinto(content)
        except zstandard.ZstdError as error:
            raise ValueError(f"cannot be expanded: {error}") from error
        if filled != raw_bytes:
            raise ValueError(f"expands to {filled} bytes, not {raw_bytes}")
        return content
