# SPDX-License-Identifier: Apache-2.0
"""Deltas as zstd frames whose history begins with the sources.

zstd calls them a raw-content dictionary; it finds matches in them as if they had come before the content. A frame names
no dictionary and has its content size in it, but no checksum: records have their own.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import zstandard

from deltaimg.format.limits import MAX_RECORD_BYTES, MAX_SOURCE_BYTES

_LEVELS_ABOVE = 3
"""A delta is worth a search that a literal is not: levels 1 to 5 find few of the matches. Measured on an ordinary night of a
mail and database server, records of 512 KiB: level 3 21.0 MiB at 213 MB/s a core, level 6 19.0 at 103, level 9 18.6 at 53."""
_MAX_LEVEL = 19


class ZstdDelta:
    """Compresses at a level that follows from the literals' level; decodes what any level made."""

    encoding_id: ClassVar[int] = 2
    name: ClassVar[str] = "zstd"

    def __init__(self, level: int = 3) -> None:
        self.level = min(level + _LEVELS_ABOVE, _MAX_LEVEL)

    def encode(self, content: memoryview, sources: memoryview) -> bytes:
        # A compressor is made anew for each record: it belongs to its dictionary.
        reach = (len(content) + len(sources) - 1).bit_length()
        compressor = zstandard.ZstdCompressor(
            compression_params=_parameters(self.level, reach), dict_data=_as_history(sources)
        )
        encoded: bytes = compressor.compress(content)
        return encoded

    def decode(
        self, payload: memoryview, sources: memoryview, raw_bytes: int, scratch: memoryview | None = None
    ) -> memoryview:
        decompressor = zstandard.ZstdDecompressor(
            dict_data=_as_history(sources), max_window_size=MAX_RECORD_BYTES + MAX_SOURCE_BYTES
        )
        content = memoryview(bytearray(raw_bytes)) if scratch is None else scratch[:raw_bytes]
        try:
            if zstandard.frame_content_size(payload) != raw_bytes:
                raise ValueError(f"does not expand to {raw_bytes} bytes")
            filled = decompressor.stream_reader(payload, read_across_frames=False).readinto(content)
        except zstandard.ZstdError as error:
            raise ValueError(f"cannot be expanded: {error}") from error
        if filled != raw_bytes:
            raise ValueError(f"expands to {filled} bytes, not {raw_bytes}")
        return content


@cache
def _parameters(level: int, reach: int) -> zstandard.ZstdCompressionParameters:
    """The parameters of a level, with tables that hold all of a history.

    zstd sizes its tables from the content alone when it is given a raw-content dictionary, and then forgets most of a
    history that is longer: 512 KiB that stand unchanged at the start of 2 MiB of sources became 524,309 bytes at levels 3
    and 6, and 386 and 58 with these tables. `reach` is the logarithm to base 2 of content and sources together, in bytes.
    """
    log = max(reach, zstandard.WINDOWLOG_MIN)
    return zstandard.ZstdCompressionParameters.from_level(
        level, window_log=log, hash_log=log - 1, chain_log=log - 1, write_checksum=False, write_dict_id=False
    )


def _as_history(sources: memoryview) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(sources, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
