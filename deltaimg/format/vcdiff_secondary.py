# SPDX-License-Identifier: Apache-2.0
"""Secondary compression of VCDIFF sections, as the `xdelta3` program has it by default: LZMA.

    section := number expanded_bytes, a piece of an .xz stream

A file has three such streams, for data, instructions and addresses; each continues from window to window, flushed at the end of
every section, and has no end of its own. So sections are expanded in the order of the file.

Memory  what the streams ask for, which is their dictionary: up to 64 MiB each with `xdelta3 -9`, 4 MiB by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from deltaimg.errors import Malformed, UnsupportedFormat

if TYPE_CHECKING:
    from lzma import LZMADecompressor

_LZMA: Final = 2
_NAMES: Final = {1: "DJW", _LZMA: "LZMA", 16: "FGK"}
_MAX_STREAM_MEMORY_BYTES: Final = 72 << 20
HINT: Final = "rewrite it without that: xdelta3 recode -S none DELTA PLAIN_DELTA"


class SectionExpander:
    """Expands the sections of one file, window by window."""

    def __init__(self, name: str, compressor: int) -> None:
        """Args: compressor: what the file's head names; 0 if none."""
        self._name, self._compressor = name, compressor
        self._streams: list[LZMADecompressor] = []

    def expand(self, stream: int, data: bytes, most_bytes: int, position: int) -> bytes:
        """Return what the next section of stream 0, 1 or 2 expands to, `most_bytes` at most.

        Raises:
            Malformed, UnsupportedFormat. `position` is the window's, for the error.
        """
        length, start = _read_number(data)
        if start == 0 or length > most_bytes:
            raise Malformed(self._name, position, "a compressed section does not say how long it is, or is too long")
        decompressor = self._find_stream(stream, position)
        return self._decompress(decompressor, data[start:], length, position)

    def _find_stream(self, stream: int, position: int) -> LZMADecompressor:
        if not self._compressor:
            raise Malformed(self._name, position, "a window is compressed, but the file names no compressor")
        known = _NAMES.get(self._compressor, f"number {self._compressor}")
        make = _find_lzma() if self._compressor == _LZMA else None
        if make is None:
            raise UnsupportedFormat(
                self._name, f"has secondary compression ({known}), which deltaimg does not read here", hint=HINT
            )
        self._streams = self._streams or [make() for _ in range(3)]
        return self._streams[stream]

    def _decompress(self, stream: LZMADecompressor, data: bytes, length: int, position: int) -> bytes:
        from lzma import LZMAError

        try:
            content = stream.decompress(data, length)
            is_more = not stream.needs_input and stream.decompress(b"", 1)
        except (LZMAError, EOFError) as error:
            raise Malformed(self._name, position, f"a compressed section cannot be expanded: {error}") from error
        if len(content) != length or is_more or stream.unused_data:
            raise Malformed(self._name, position, "a compressed section is not as long as it says")
        return content


def _find_lzma() -> Callable[[], LZMADecompressor] | None:
    """Return what makes a stream; None for a Python that was built without it."""
    try:
        import lzma
    except ImportError:
        return None
    return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_STREAM_MEMORY_BYTES)


def _read_number(data: bytes) -> tuple[int, int]:
    """Return the number at the beginning, and how many bytes it takes; 0 of them where there is none."""
    number = 0
    for place, byte in enumerate(data[:9]):
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, place + 1
    return 0, 0
