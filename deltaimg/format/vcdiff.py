# SPDX-License-Identifier: Apache-2.0
"""VCDIFF files (RFC 3284) as the `xdelta3` program writes and reads them. Ours have no secondary compression.

    file    := d6 c3 c4, u8 version, u8 header bits, (u8 compressor), (number, application's bytes), window*
    window  := u8 window bits, (number segment_bytes, number segment_offset), number rest_bytes, number target_bytes,
               u8 compressed sections, number data_bytes, number instructions_bytes, number addresses_bytes, (u32 Adler-32),
               data, instructions, addresses
    number  := base 128, most significant digit first, the top bit of all bytes but the last set

A window makes the next `target_bytes` of the new file from a segment of the old one. Nothing says how many windows there
are, but that there is one at least, of 0 bytes for an empty file: a file that is cut between two of them looks like
a whole one, unless deltaimg made it, which says in the application's bytes how long the new file is: `deltaimg
new_bytes=4096`. The three bits of `compressed sections` stand for data, instructions and addresses (`vcdiff_secondary`).
The Adler-32 of what a window makes is xdelta3's addition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from deltaimg.errors import Malformed, Truncated, UnsupportedFormat
from deltaimg.format.vcdiff_secondary import SectionExpander
from deltaimg.model import VcdiffSections

VCDIFF_HEAD: Final = b"\xd6\xc3\xc4\x00\x00"
MAX_TARGET_BYTES: Final = 1 << 26
MAX_SECTIONS_BYTES: Final = 1 << 27
"""Of one window, all three together."""
MAX_SEGMENT_BYTES: Final = 1 << 34

_MAGIC: Final = VCDIFF_HEAD[:3]
_COMPRESSOR, _CODE_TABLE, _APPLICATION = 1, 2, 4
_SOURCE, _TARGET, _ADLER = 1, 2, 4
_SECTION_BITS: Final = 7
_ADLER_BYTES: Final = 4
_MAX_APPLICATION_BYTES: Final = 1 << 20
_SAYS_LENGTH: Final = b"deltaimg new_bytes="
_RUN_OPCODE, _COPY_OPCODE = 0, 19
_HINT: Final = "make it with the xdelta3 program, and only its usual options"
_EMPTY_WINDOW: Final = VcdiffSections(b"", b"", b"")


class Window(Struct, frozen=True):
    """What makes the next bytes of the new file."""

    target_bytes: int
    sections: VcdiffSections
    segment_offset: int = 0
    segment_bytes: int = 0
    """None of the old file where 0."""
    adler: int | None = None
    position: int = 0
    """Of the window in its file."""

    @property
    def held_bytes(self) -> int:
        """What it takes of memory, with what it makes."""
        parts = self.sections
        return self.target_bytes + len(parts.data) + len(parts.instructions) + len(parts.addresses)

    @property
    def is_zero(self) -> bool:
        """Whether it is nothing but a run of zeros."""
        return self.sections == run_of_zeros(self.target_bytes).sections


def build_vcdiff_head(new_bytes: int | None) -> bytes:
    """Return the head of a file, with the length of the new file if that is known."""
    if new_bytes is None:
        return VCDIFF_HEAD
    says = b"%s%d" % (_SAYS_LENGTH, new_bytes)
    return VCDIFF_HEAD[:-1] + bytes([_APPLICATION]) + build_number(len(says)) + says


def empty_window() -> Window:
    """Return the window that makes nothing, for an empty file."""
    return Window(0, _EMPTY_WINDOW, adler=1)


def build_number(value: int) -> bytes:
    """Return a number as VCDIFF has it."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))


def build_window(window: Window) -> bytes:
    """Return the bytes of a window."""
    parts = (window.sections.data, window.sections.instructions, window.sections.addresses)
    bits = (_SOURCE if window.segment_bytes else 0) | (0 if window.adler is None else _ADLER)
    segment = build_number(window.segment_bytes) + build_number(window.segment_offset) if window.segment_bytes else b""
    rest = build_number(window.target_bytes) + b"\0" + b"".join(build_number(len(part)) for part in parts)
    if window.adler is not None:
        rest += window.adler.to_bytes(_ADLER_BYTES, "big")
    body = rest + b"".join(parts)
    return bytes([bits]) + segment + build_number(len(body)) + body


def run_of_zeros(length: int) -> Window:
    """Return the window that makes zeros, with no checksum."""
    return Window(length, VcdiffSections(b"\0", bytes([_RUN_OPCODE]) + build_number(length), b""))


def copy_of(offset: int, length: int, adler: int) -> Window:
    """Return the window that copies old bytes [offset, offset + length)."""
    return Window(
        length, VcdiffSections(b"", bytes([_COPY_OPCODE]) + build_number(length), b"\0"), offset, length, adler
    )


def parse_vcdiff(read: Callable[[int], bytes], name: str) -> Iterator[Window]:
    """Yield the windows of a file; the content of their sections is not parsed.

    Args:
        read: returns this many bytes of the file, fewer only at its end.

    Raises:
        IntegrityError: truncated, lengths that contradict each other or pass the limits; no window, or windows that do not
        make as many bytes as a file of deltaimg's own says.
        UnsupportedFormat: secondary compression but LZMA, a code table of its own, copies from another window's target.
    """
    reader = _Reader(read, name)
    if reader.take(3) != _MAGIC:
        raise Malformed(name, 0, "is no VCDIFF file")
    version, bits = reader.take(2)
    if version or bits & ~(_COMPRESSOR | _CODE_TABLE | _APPLICATION):
        raise UnsupportedFormat(name, f"is VCDIFF of version {version}, header bits {bits:#04x}", hint=_HINT)
    compressor = reader.take(1)[0] if bits & _COMPRESSOR else 0
    if bits & _CODE_TABLE:
        raise UnsupportedFormat(name, "has a code table of its own, which deltaimg does not read", hint=_HINT)
    expected = None
    if bits & _APPLICATION:
        expected = _read_length(reader)
    expander = SectionExpander(name, compressor)
    made = count = 0
    while (first := read(1)) != b"":
        start = reader.position
        reader.position += 1
        window = _parse_window(reader, first[0], start, expander)
        made += window.target_bytes
        count += 1
        yield window
    if expected not in (None, made):
        raise Malformed(name, reader.position, f"ends here, having made {made} of the {expected} bytes of the new file")
    if not count:
        raise Truncated(name, reader.position, reader.position + 1, reader.position)


def _read_length(reader: _Reader) -> int | None:
    """Return how long the new file is, if that is what the application says."""
    start = reader.position
    says = reader.take(reader.number(_MAX_APPLICATION_BYTES, "bytes of its application"))
    if not says.startswith(_SAYS_LENGTH[:9]) or b"/" in says:
        return None  # the names of files, by xdelta3
    digits = says.removeprefix(_SAYS_LENGTH)
    if len(digits) == len(says) or len(digits) >= 20 or not digits.isdigit():
        raise Malformed(reader.name, start, "does not say how long the new file is, as deltaimg's own do")
    return int(digits)


class _Reader:
    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        self.name = name
        self.position = 0
        self._read = read

    def take(self, length: int) -> bytes:
        data = self._read(length)
        if len(data) < length:
            raise Truncated(self.name, self.position, length, len(data))
        self.position += length
        return data

    def number(self, most: int, what: str) -> int:
        start, number = self.position, 0
        while True:
            byte = self.take(1)[0]
            number = number << 7 | byte & 0x7F
            if number > most:
                raise Malformed(self.name, start, f"claims {number} {what} or more; {most} are possible")
            if byte < 0x80:
                return number


def _parse_window(reader: _Reader, bits: int, start: int, expander: SectionExpander) -> Window:
    if bits & _TARGET:
        raise UnsupportedFormat(
            reader.name, "copies from the file that it makes (VCD_TARGET), which deltaimg does not read", hint=_HINT
        )
    if bits & ~(_SOURCE | _ADLER):
        raise Malformed(reader.name, start, f"a window has unknown bits, {bits:#04x}")
    segment_bytes = segment_offset = 0
    if bits & _SOURCE:
        segment_bytes = reader.number(MAX_SEGMENT_BYTES, "bytes of the old file for one window")
        segment_offset = reader.number(2**62, "bytes before a segment")
    rest_bytes = reader.number(MAX_SECTIONS_BYTES, "bytes in a window")
    end = reader.position + rest_bytes
    target_bytes = reader.number(MAX_TARGET_BYTES, "bytes that a window makes")
    compressed = reader.take(1)[0]
    if compressed & ~_SECTION_BITS:
        raise Malformed(reader.name, start, f"a window has unknown sections, {compressed:#04x}")
    lengths = [reader.number(MAX_SECTIONS_BYTES, "bytes in a section") for _ in range(3)]
    adler = int.from_bytes(reader.take(_ADLER_BYTES), "big") if bits & _ADLER else None
    if reader.position + sum(lengths) != end:
        raise Malformed(reader.name, start, f"a window's parts do not make its {rest_bytes} bytes")
    sections, left = [], MAX_SECTIONS_BYTES
    for number, length in enumerate(lengths):
        section = reader.take(length)
        if compressed >> number & 1:
            section = expander.expand(number, section, left, start)
        left -= len(section)
        sections.append(section)
    return Window(target_bytes, VcdiffSections(*sections), segment_offset, segment_bytes, adler, start)
