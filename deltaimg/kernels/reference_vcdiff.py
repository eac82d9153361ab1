# SPDX-License-Identifier: Apache-2.0
"""One window of a VCDIFF delta in plain Python; `reference.py` of `native/src/vcdiff`.

Source  RFC 3284: the default code table is section 5.6, addresses are section 5.3.
"""

from __future__ import annotations

from typing import Final, NoReturn

import numpy as np

from deltaimg.arrays import Slots
from deltaimg.errors import NativeError
from deltaimg.kernels.layout import VCDIFF_PAGE_BYTES, Buffer, Octets, view_octets
from deltaimg.model import VcdiffSections

_ADD, _RUN, _COPY = "add", "run", "copy"
_NEAR, _SAME, _SAME_BYTES = 4, 3, 256
_SELF_MODE, _HERE_MODE, _FIRST_SAME_MODE = 0, 1, 2 + _NEAR
_MODES = _FIRST_SAME_MODE + _SAME
_Half = tuple[str, int, int]
"""Kind, size (0: it follows), mode of address."""


def _build_code_table() -> list[tuple[_Half, ...]]:
    table: list[tuple[_Half, ...]] = [((_RUN, 0, 0),)]
    table += [((_ADD, size, 0),) for size in range(18)]
    table += [((_COPY, size, mode),) for mode in range(_MODES) for size in (0, *range(4, 19))]
    for mode in range(_MODES):
        sizes = (4, 5, 6) if mode < _FIRST_SAME_MODE else (4,)
        table += [((_ADD, add, 0), (_COPY, size, mode)) for add in range(1, 5) for size in sizes]
    table += [((_COPY, 4, mode), (_ADD, 1, 0)) for mode in range(_MODES)]
    return table


_CODE_TABLE: Final = _build_code_table()


class _Section:
    def __init__(self, function: str, content: Buffer) -> None:
        self._function = function
        self._content = view_octets(content)
        self._position = 0

    def __len__(self) -> int:
        return len(self._content) - self._position

    def take(self, length: int) -> memoryview:
        if length > len(self):
            raise NativeError(self._function, "DELTA_ENDS")
        self._position += length
        return self._content[self._position - length : self._position]

    def number(self, too_large: str) -> int:
        number = 0
        while True:
            byte = self.take(1)[0]
            if number >> 56:
                raise NativeError(self._function, too_large)
            number = number << 7 | byte & 0x7F
            if byte < 0x80:
                return number


class _Window:
    def __init__(self, function: str, sections: VcdiffSections, segment_bytes: int, target_bytes: int) -> None:
        self._function = function
        self._data = _Section(function, sections.data)
        self._instructions = _Section(function, sections.instructions)
        self._addresses = _Section(function, sections.addresses)
        self._segment_bytes, self._target_bytes = segment_bytes, target_bytes
        self._near, self._same, self._next_near = [0] * _NEAR, [0] * (_SAME * _SAME_BYTES), 0
        self._made = 0

    def run(self) -> None:
        while len(self._instructions):
            for kind, size, mode in _CODE_TABLE[self._instructions.take(1)[0]]:
                length = size or self._instructions.number("DELTA_BAD_LENGTH")
                if length > self._target_bytes - self._made:
                    self._refuse("DELTA_BAD_LENGTH")
                if kind == _COPY:
                    self._copy(self._address(mode), length)
                else:
                    self.put(
                        self._made, self._data.take(length) if kind == _ADD else bytes(self._data.take(1)) * length
                    )
                    self._made += length
        if self._made != self._target_bytes:
            self._refuse("DELTA_BAD_LENGTH")
        if len(self._data) or len(self._addresses):
            self._refuse("DELTA_ENDS")

    def put(self, at: int, content: Buffer) -> None:
        """Bytes of the target are `content`."""

    def copy_from_source(self, at: int, start: int, length: int) -> None:
        """Bytes of the target are those of the segment."""

    def copy_from_target(self, at: int, start: int, length: int) -> None:
        """Bytes of the target are some that came before, or come with it."""

    def _address(self, mode: int) -> int:
        here = self._segment_bytes + self._made
        if mode >= _FIRST_SAME_MODE:
            address = self._same[(mode - _FIRST_SAME_MODE) * _SAME_BYTES + self._addresses.take(1)[0]]
        else:
            number = self._addresses.number("DELTA_BAD_COPY")
            address = (
                here - number if mode == _HERE_MODE else number + (0 if mode == _SELF_MODE else self._near[mode - 2])
            )
        if not 0 <= address < here:
            self._refuse("DELTA_BAD_COPY")
        self._near[self._next_near] = address
        self._next_near = (self._next_near + 1) % _NEAR
        self._same[address % len(self._same)] = address
        return address

    def _copy(self, address: int, length: int) -> None:
        part = max(0, min(length, self._segment_bytes - address))
        if part:
            self.copy_from_source(self._made, address, part)
        start = max(address, self._segment_bytes) - self._segment_bytes
        self.copy_from_target(self._made + part, start, length - part)
        self._made += length

    def _refuse(self, status: str) -> NoReturn:
        raise NativeError(self._function, status)


class _Survey(_Window):
    def __init__(self, sections: VcdiffSections, segment_bytes: int, target_bytes: int) -> None:
        super().__init__("survey_vcdiff", sections, segment_bytes, target_bytes)
        self.pages = np.zeros(-(-segment_bytes // VCDIFF_PAGE_BYTES), np.uint8)

    def copy_from_source(self, at: int, start: int, length: int) -> None:  # noqa: ARG002  # the shape of another
        self.pages[start // VCDIFF_PAGE_BYTES : (start + length - 1) // VCDIFF_PAGE_BYTES + 1] = 1


class _Application(_Window):
    def __init__(
        self, sections: VcdiffSections, source: memoryview, out: memoryview, segment_bytes: int, places: Slots | None
    ) -> None:
        super().__init__("apply_vcdiff", sections, segment_bytes, len(out))
        self._source, self._out, self._places = source, out, places

    def put(self, at: int, content: Buffer) -> None:
        self._out[at : at + len(memoryview(content))] = content

    def copy_from_source(self, at: int, start: int, length: int) -> None:
        if self._places is not None:
            first, last = start // VCDIFF_PAGE_BYTES, (start + length - 1) // VCDIFF_PAGE_BYTES
            first_place, last_place = int(self._places[first]), int(self._places[last])
            if last_place - first_place != last - first:
                self._refuse("BUFFER_TOO_SMALL")
            start = first_place * VCDIFF_PAGE_BYTES + start % VCDIFF_PAGE_BYTES
        if length > len(self._source) - start:
            self._refuse("BUFFER_TOO_SMALL")
        self._out[at : at + length] = self._source[start : start + length]

    def copy_from_target(self, at: int, start: int, length: int) -> None:
        distance = at - start
        if length:
            pattern = bytes(self._out[start:at])
            self._out[at : at + length] = (pattern * (length // distance + 1))[:length]


def survey_vcdiff(sections: VcdiffSections, segment_bytes: int, target_bytes: int) -> Octets:
    """Return for each page of the source segment whether a window copies from it; raises NativeError for a bad window."""
    survey = _Survey(sections, segment_bytes, target_bytes)
    survey.run()
    return survey.pages


def apply_vcdiff(
    sections: VcdiffSections, source: Buffer, out: memoryview, segment_bytes: int, places: Slots | None = None
) -> None:
    """Fill `out` with what a window makes; raises NativeError for a bad window.

    Args:
        places: for each page of the segment its place among the pages in `source`; without it, all are there in order.
    """
    view, target = view_octets(source), view_octets(out)
    _Application(sections, view, target, segment_bytes, places).run()
