# SPDX-License-Identifier: Apache-2.0
"""Spans of a new file as VCDIFF windows, encoded by xdelta3 against the old file around the same place.

Reads      the old file: the span's place, and 4 MiB before and behind it.
Memory     for each span in flight, itself and three of the old file.
ImageSource     RFC 3284; xdelta3 (`delta/xdelta.py`).
"""

from __future__ import annotations

import zlib
from io import BytesIO

from deltaimg.delta.xdelta import load_xdelta, longest_delta
from deltaimg.engine.files.spans import SPAN_BYTES, Span
from deltaimg.engine.files.vcdiff_checksum import with_adler
from deltaimg.errors import SourceChanged
from deltaimg.format.vcdiff import Window, copy_of, parse_vcdiff, run_of_zeros
from deltaimg.image.source import ImageSource
from deltaimg.kernels import is_equal, is_zero

_AROUND_BYTES = SPAN_BYTES
"""Of the old file, before and behind the place of a span."""
_LEVEL = 3


class WindowEncoder:
    """Makes windows of spans; many threads at once."""

    def __init__(self, old: ImageSource) -> None:
        self._old, self._old_bytes = old, old.size_bytes or 0

    def encode(self, span: Span) -> list[Window]:
        """Return the windows that make a span."""
        content = span.content[: span.length]
        if is_zero(content):
            return [with_adler(run_of_zeros(span.length))]
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
