# SPDX-License-Identifier: Apache-2.0
"""VCDIFF, for the `xdelta3` program at the other end: the files themselves are compared, there are no signatures.

Each span of the new file is encoded against the old file around the same place; what moved further is not found. New content is
stored uncompressed: compress the file to transfer it.

Reads      both files, as image sources; to patch, the old file and the delta.
Writes     a VCDIFF stream; to patch, the new file through an image target.
Memory     of a delta: a span and three of the old file for each span in flight. Of a patch: see `vcdiff_decoder.py`.
Invariant  each window has an Adler-32, by which a wrong or changed old file is found, but not one that was forged. A delta
           that was cut short is found if deltaimg made it from a file, since it then says the file's length.
ImageSource     RFC 3284, "The VCDIFF Generic Differencing and Compression Data Format"; xdelta3's extensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from deltaimg.delta.xdelta import load_xdelta
from deltaimg.engine.files.assemble import Assembler, assemble
from deltaimg.engine.files.interface import DeltaResult, PatchResult
from deltaimg.engine.files.spans import walk_spans
from deltaimg.engine.files.stitch import Op
from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.files.vcdiff_checksum import with_adler
from deltaimg.engine.files.vcdiff_decoder import WindowDecoder
from deltaimg.engine.files.vcdiff_encoder import WindowEncoder
from deltaimg.engine.progress import Progress, stage
from deltaimg.format.delta import COPY, LITERAL, ZERO
from deltaimg.format.vcdiff import Window, build_vcdiff_head, build_window, empty_window, parse_vcdiff, run_of_zeros
from deltaimg.image.source import ImageSource
from deltaimg.image.target import ImageTarget

_BLOCK_BYTES = 4096
_MAX_ZERO_BYTES = 8 << 20
"""xdelta3 reads no windows that make more than 16 MiB."""


class VcdiffFormat:
    """What the xdelta3 program reads and writes."""

    name: ClassVar[str] = "vcdiff"
    summary: ClassVar[str] = "for the xdelta3 program at the other end; made from both files, without a signature"

    def compare(self, old: ImageSource, new: ImageSource, delta: Output, *, progress: Progress) -> DeltaResult:
        """Write the windows that make `new` of `old`; raises XdeltaUnusable."""
        load_xdelta()
        delta.write(build_vcdiff_head(new.size_bytes))
        encoder = WindowEncoder(old)
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
                write(with_adler(run_of_zeros(piece)))
                length -= piece

        with stage(progress, "comparing", new.size_bytes):
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

    def patch(self, old: ImageSource, delta: Input, target: ImageTarget, *, progress: Progress) -> PatchResult:
        """Make the new file, each window verified by its Adler-32 where it has one; raises WrongOldFile if that differs."""
        decoder = WindowDecoder(old, delta.name)
        bytes_of = {ZERO: 0, COPY: 0, LITERAL: 0}

        def read_ops() -> Iterator[Op]:
            for window, op in decoder.decode_all(parse_vcdiff(delta.read, delta.name)):
                literal = 0 if op.kind == ZERO else min(len(window.sections.data), op.length)
                bytes_of[ZERO if op.kind == ZERO else COPY] += op.length - literal
                bytes_of[LITERAL] += literal
                if op.length:
                    yield op

        with stage(progress, "patching"):
            for _, length, _ in assemble(Assembler(old, target, block_bytes=_BLOCK_BYTES), read_ops()):
                progress.advance(length)
        total = sum(bytes_of.values())
        return PatchResult(total, bytes_of[COPY], bytes_of[ZERO], bytes_of[LITERAL], is_verified=False)
