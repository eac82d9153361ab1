# SPDX-License-Identifier: Apache-2.0
"""What VCDIFF windows make, from whatever program they come.

Reads      windows, and of the old file the pages that they copy from.
Memory     windows in work and what they make, 128 MiB at most, but for a single window that needs more; 96 MiB of pages.
Invariant  a window's content has the checksum that the window says, where it says one, before it is written.
ImageSource     RFC 3284; the instructions are carried out by the native core (native/src/vcdiff).
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np

from deltaimg.arrays import find_stretches
from deltaimg.engine.files.stitch import Op
from deltaimg.engine.files.vcdiff_checksum import adler_of_zeros
from deltaimg.engine.pipeline import OrderedPool, count_workers
from deltaimg.errors import Malformed, NativeError, SourceChanged, UnsupportedFormat, WrongOldFile
from deltaimg.format.delta import LITERAL, ZERO
from deltaimg.format.vcdiff import Window
from deltaimg.image.source import ImageSource
from deltaimg.kernels import VCDIFF_PAGE_BYTES, apply_vcdiff, survey_vcdiff

_MAX_HELD_BYTES = 128 << 20
"""Of windows in work, with what they make; one that is larger is alone."""
_MAX_TOUCHED_BYTES = 96 << 20
_MAX_SHARED_BYTES = 16 << 20
"""Of the old file: one window at a time may need more."""
_PROBLEMS = {
    "DELTA_ENDS": "the parts of a window do not fit its instructions",
    "DELTA_BAD_COPY": "a window copies from where there is nothing",
    "DELTA_BAD_LENGTH": "a window makes more or fewer bytes than it says",
}


class WindowDecoder:
    """Makes content of windows; many threads at once."""

    def __init__(self, old: ImageSource, name: str) -> None:
        self._old, self._old_bytes = old, old.size_bytes or 0
        self._name = name
        self._large = threading.Lock()
        """Held while one window copies from much of the old file."""

    def decode_all(self, windows: Iterator[Window]) -> Iterator[tuple[Window, Op]]:
        """Yield windows in their order, and what each makes; as many at a time as there is memory for."""
        held_bytes = 0
        with OrderedPool(window=count_workers() + 1) as pool:
            for window in windows:
                if held_bytes + window.held_bytes > _MAX_HELD_BYTES:
                    yield from pool.drain()
                    held_bytes = 0
                held_bytes += window.held_bytes
                for made in pool.submit(self.decode, window):
                    held_bytes -= made[0].held_bytes
                    yield made
            yield from pool.drain()

    def decode(self, window: Window) -> tuple[Window, Op]:
        """Return a window and what it makes, compared with its checksum."""
        if window.segment_bytes > max(0, self._old_bytes - window.segment_offset):
            end = window.segment_offset + window.segment_bytes
            raise WrongOldFile(
                self._old.path, f"has {self._old_bytes} bytes; the delta is of bytes {window.segment_offset} to {end}"
            )
        if window.is_zero:
            found = adler_of_zeros(window.target_bytes)
            op = Op(ZERO, window.target_bytes)
        else:
            content = self._apply(window)
            found = zlib.adler32(content)
            op = Op(LITERAL, window.target_bytes, literal=content)
        if window.adler not in (None, found):
            raise WrongOldFile(
                self._old.path,
                f"the window at byte {window.position} of {self._name} makes content of another checksum",
                hint="name the file that the delta was made from, as it was then",
            )
        return window, op

    def _apply(self, window: Window) -> memoryview:
        content = memoryview(bytearray(window.target_bytes))
        try:
            touched = survey_vcdiff(window.sections, window.segment_bytes, window.target_bytes)
            touched_bytes = int(np.count_nonzero(touched)) * VCDIFF_PAGE_BYTES
            is_large = touched_bytes + 4 * len(touched) > _MAX_SHARED_BYTES
            with self._large if is_large else nullcontext():
                self._copy_touched(window, touched.view(np.bool_), content)
        except NativeError as error:
            problem = _PROBLEMS.get(error.status)
            if problem is None:
                raise
            raise Malformed(self._name, window.position, problem) from error
        return content

    def _copy_touched(
        self, window: Window, touched: np.ndarray[tuple[int], np.dtype[np.bool_]], content: memoryview
    ) -> None:
        """Fill `content`. What is read of the old file is given back on return: the next large window waits for that."""
        segment, places = self._read_touched(window, touched)
        apply_vcdiff(window.sections, segment, content, window.segment_bytes, places)

    def _read_touched(
        self, window: Window, touched: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> tuple[memoryview, np.ndarray[tuple[int], np.dtype[np.uint32]]]:
        """Return the pages of a segment that are copied from, one after another, and where each of them is."""
        count = int(np.count_nonzero(touched))
        if count * VCDIFF_PAGE_BYTES > _MAX_TOUCHED_BYTES:
            raise UnsupportedFormat(
                self._name,
                f"one window copies from {count * VCDIFF_PAGE_BYTES >> 20} MiB of the old file",
                hint="make it with smaller windows: xdelta3 -W 8388608",
            )
        pages = memoryview(bytearray(count * VCDIFF_PAGE_BYTES))
        at = 0
        for first, last in find_stretches(touched).tolist():
            start, end = first * VCDIFF_PAGE_BYTES, min(last * VCDIFF_PAGE_BYTES, window.segment_bytes)
            if self._old.read_into(window.segment_offset + start, pages[at : at + end - start]) < end - start:
                raise SourceChanged(self._old.path, "ends earlier than when it was opened")
            at += (last - first) * VCDIFF_PAGE_BYTES
        places = np.cumsum(touched, dtype=np.uint32)
        places -= touched
        return pages, places
