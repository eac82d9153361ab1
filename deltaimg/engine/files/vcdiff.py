# SPDX-License-Identifier: Apache-2.0
"""VCDIFF, for the `xdelta3` program at the other end: the files themselves are compared, there are no signatures.

Each span of the new file is encoded by xdelta3 against the old file around the same place; what moved further is not found.
New content stands there as it is: compress the file for its way. Each window has an Adler-32, by which an old file that was
merely changed is found; that is no proof against somebody who makes one on purpose. A file that was cut short is found if
deltaimg made it from a file, whose length it then says.

Memory  of a delta: a span and three of the old file for each span in flight. Of a patch: windows, what they make, and the
        pages of the old file that they copy from; 128 MiB of them, but for single windows that need more.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from io import BytesIO
from typing import ClassVar

import numpy as np

from deltaimg.delta.xdelta import load_xdelta, longest_delta
from deltaimg.engine.files.assemble import Assembler, assemble
from deltaimg.engine.files.interface import DeltaResult, PatchResult
from deltaimg.engine.files.spans import SPAN_BYTES, Span, find_runs, walk_spans
from deltaimg.engine.files.stitch import Op
from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.pipeline import OrderedPool, count_workers
from deltaimg.engine.progress import Progress
from deltaimg.errors import Malformed, NativeError, SourceChanged, UnsupportedFormat, WrongOldFile
from deltaimg.format.delta import COPY, LITERAL, ZERO
from deltaimg.format.vcdiff import (
    Window,
    build_vcdiff_head,
    build_window,
    copy_of,
    empty_window,
    parse_vcdiff,
    run_of_zeros,
)
from deltaimg.image.source import Source
from deltaimg.image.target import Target
from deltaimg.kernels import VCDIFF_PAGE_BYTES, apply_vcdiff, is_equal, is_zero, survey_vcdiff

_BLOCK_BYTES = 4096
_AROUND_BYTES = SPAN_BYTES
"""Of the old file, before and behind the place of a span."""
_LEVEL = 3
_MAX_ZERO_BYTES = 8 << 20
"""xdelta3 reads no windows that make more than 16 MiB."""
_MAX_HELD_BYTES = 128 << 20
"""Of windows in work, with what they make; one that is larger is alone."""
_MAX_TOUCHED_BYTES = 96 << 20
_MAX_SHARED_BYTES = 16 << 20
"""Of the old file: one window at a time may need more."""
_ADLER_PRIME = 65521
_PROBLEMS = {
    "DELTA_ENDS": "the parts of a window do not fit its instructions",
    "DELTA_BAD_COPY": "a window copies from where there is nothing",
    "DELTA_BAD_LENGTH": "a window makes more or fewer bytes than it says",
}


class VcdiffFormat:
    """As the xdelta3 program reads and writes it."""

    name: ClassVar[str] = "vcdiff"
    summary: ClassVar[str] = "for the xdelta3 program at the other end; made from both files, without a signature"

    def compare(self, old: Source, new: Source, delta: Output, *, progress: Progress) -> DeltaResult:
        load_xdelta()
        delta.write(build_vcdiff_head(new.size_bytes))
        progress.start("comparing", new.size_bytes)
        encoder = _Encoder(old)
        bytes_of = {ZERO: 0, COPY: 0, LITERAL: 0}
        done = 0

        def write(window: Window) -> None:
            new_bytes = len(window.sections.data)
            kind = ZERO if window.is_zero else COPY
            literal = 0 if kind == ZERO else min(new_bytes, window.target_bytes)
            bytes_of[kind] += window.target_bytes - literal
            bytes_of[LITERAL] += literal
            delta.write(build_window(window))

        def write_zeros(length: int) -> None:
            while length:
                piece = min(length, _MAX_ZERO_BYTES)
                write(_with_adler(run_of_zeros(piece)))
                length -= piece

        for start, end, windows in walk_spans(new, encoder.encode, block_bytes=_BLOCK_BYTES):
            write_zeros(start - done)
            for window in windows:
                write(window)
            progress.advance(end - start)
            done = end
        image_bytes = new.size_bytes or 0
        write_zeros(image_bytes - done)
        if not image_bytes:
            write(empty_window())
        return DeltaResult(image_bytes, bytes_of[COPY], bytes_of[ZERO], bytes_of[LITERAL], delta.written_bytes)

    def patch(self, old: Source, delta: Input, target: Target, *, progress: Progress) -> PatchResult:
        decoder = _Decoder(old, delta.name)
        bytes_of = {ZERO: 0, COPY: 0, LITERAL: 0}

        def read_ops() -> Iterator[Op]:
            for window, op in decoder.decode_all(parse_vcdiff(delta.read, delta.name)):
                literal = 0 if op.kind == ZERO else min(len(window.sections.data), op.length)
                bytes_of[ZERO if op.kind == ZERO else COPY] += op.length - literal
                bytes_of[LITERAL] += literal
                if op.length:
                    yield op

        progress.start("patching", None)
        for _, length, _ in assemble(Assembler(old, target, block_bytes=_BLOCK_BYTES), read_ops()):
            progress.advance(length)
        total = sum(bytes_of.values())
        return PatchResult(total, bytes_of[COPY], bytes_of[ZERO], bytes_of[LITERAL], is_verified=False)


class _Encoder:
    """Makes windows of spans; many threads at once."""

    def __init__(self, old: Source) -> None:
        self._old, self._old_bytes = old, old.size_bytes or 0

    def encode(self, span: Span) -> list[Window]:
        """Return the windows that make a span."""
        content = span.content[: span.length]
        if is_zero(content):
            return [_with_adler(run_of_zeros(span.length))]
        start = max(0, min(span.start, self._old_bytes) - _AROUND_BYTES)
        end = min(self._old_bytes, span.start + span.length + _AROUND_BYTES)
        segment = memoryview(bytearray(end - start))
        if self._old.read_into(start, segment) < len(segment):
            raise SourceChanged(self._old.path, "ends earlier than when it was opened")
        same = segment[span.start - start : span.start - start + span.length] if span.start >= start else segment[:0]
        if len(same) == span.length and is_equal(same, content):
            return [copy_of(span.start, span.length, zlib.adler32(content))]
        made = load_xdelta().encode(content, segment, longest_delta(span.length), _LEVEL)
        windows, at = [], 0
        for window in parse_vcdiff(BytesIO(made).read, "xdelta3's output"):
            target = content[at : at + window.target_bytes]
            at += window.target_bytes
            offset = window.segment_offset + start if window.segment_bytes else 0
            windows.append(
                Window(window.target_bytes, window.sections, offset, window.segment_bytes, zlib.adler32(target))
            )
        return windows


class _Decoder:
    """Makes content of windows; many threads at once."""

    def __init__(self, old: Source, name: str) -> None:
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
        """Return a window and what it makes, held against its checksum."""
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
                segment, places = self._read_touched(window, touched.view(np.bool_))
                apply_vcdiff(window.sections, segment, content, window.segment_bytes, places)
        except NativeError as error:
            problem = _PROBLEMS.get(error.status)
            if problem is None:
                raise
            raise Malformed(self._name, window.position, problem) from error
        return content

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
        for first, last in find_runs(touched).tolist():
            start, end = first * VCDIFF_PAGE_BYTES, min(last * VCDIFF_PAGE_BYTES, window.segment_bytes)
            if self._old.read_into(window.segment_offset + start, pages[at : at + end - start]) < end - start:
                raise SourceChanged(self._old.path, "ends earlier than when it was opened")
            at += (last - first) * VCDIFF_PAGE_BYTES
        places = np.cumsum(touched, dtype=np.uint32)
        places -= touched
        return pages, places


def adler_of_zeros(length: int) -> int:
    """Return the Adler-32 of so many zeros."""
    return (length % _ADLER_PRIME) << 16 | 1


def _with_adler(zeros: Window) -> Window:
    return Window(zeros.target_bytes, zeros.sections, adler=adler_of_zeros(zeros.target_bytes))
