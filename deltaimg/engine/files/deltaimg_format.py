# SPDX-License-Identifier: Apache-2.0
"""deltaimg's own signatures and deltas of single files: `deltaimg signature`, `delta` and `patch`.

A new file is compared with the old one's digests block by block, at the same place; only what did not match is searched for old
blocks at any offset. What is new is compressed.

Reads      files, as image sources; signatures and deltas, object by object.
Writes     signatures and deltas (docs/format.md, "Sums head" and "Delta head"); the new file, through an image target.
Memory     of a delta 30 bytes a block of the old file that is not zero, and the literals of one object.
Invariant  a new file is complete only if the root digest of all its blocks is the one in the delta.
"""

from __future__ import annotations

import secrets
from typing import ClassVar

from deltaimg.arrays import Digests
from deltaimg.delta.signature import RootHasher
from deltaimg.engine.files.assemble import Assembler, assemble
from deltaimg.engine.files.deltaimg_parts import DeltaReader, DeltaWriter
from deltaimg.engine.files.deltaimg_signature import OldSignature, SignatureBuilder, choose_block_bytes, pad_blocks
from deltaimg.engine.files.interface import DeltaResult, PatchResult, SignatureResult
from deltaimg.engine.files.spans import Span, walk_spans
from deltaimg.engine.files.stitch import Stitcher
from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.progress import Progress, stage
from deltaimg.errors import UsageError, WrongOldFile
from deltaimg.format.delta import COPY, LITERAL, ZERO
from deltaimg.format.sums import MAX_BLOCK_BYTES, MIN_BLOCK_BYTES
from deltaimg.image.source import ImageSource
from deltaimg.image.target import ImageTarget
from deltaimg.kernels import Sums, WeakKind, digest_blocks, weak_sums


class DeltaimgFormat:
    """Compressed, holes kept, the result verified by its root digest."""

    name: ClassVar[str] = "deltaimg"
    summary: ClassVar[str] = "compressed, holes kept, the result verified by its digest"

    # -- signature ---------------------------------------------------------------------------------------------------

    def sign(
        self, old: ImageSource, signature: Output, *, block_bytes: int | None, progress: Progress
    ) -> SignatureResult:
        """Write digests and weak sums of all blocks that are not zero; raises UsageError for a block size that is not valid."""
        block_bytes = block_bytes or choose_block_bytes(old.size_bytes)
        if not MIN_BLOCK_BYTES <= block_bytes <= MAX_BLOCK_BYTES or block_bytes & (block_bytes - 1):
            raise UsageError(
                f"a block size of {block_bytes} bytes", hint="a power of two from 1K to 1M, for the format 'deltaimg'"
            )
        key = secrets.token_bytes(32)

        def sum_up(span: Span) -> tuple[Digests, Sums]:
            blocks = pad_blocks(span, block_bytes)
            return digest_blocks(key, blocks, block_bytes), weak_sums(WeakKind.WIDE, blocks, block_bytes)

        parts = SignatureBuilder(key, block_bytes)
        with stage(progress, "signing", old.size_bytes):
            for start, end, (digests, weaks) in walk_spans(old, sum_up, block_bytes=block_bytes):
                for part in parts.add(start // block_bytes, digests, weaks):
                    signature.write(part)
                progress.advance(end - start)
        image_bytes = old.size_bytes or 0
        signature.write(parts.finish(image_bytes))
        return SignatureResult(image_bytes, block_bytes, signature.written_bytes)

    # -- delta -------------------------------------------------------------------------------------------------------

    def make_delta(self, signature: Input, new: ImageSource, delta: Output, *, progress: Progress) -> DeltaResult:
        """Write what makes `new` of the file that was signed, and the root digest of `new`."""
        with stage(progress, "reading the signature"):
            old = OldSignature.read(signature)
        with stage(progress, "comparing", new.size_bytes), DeltaWriter(old, delta) as writer:
            root = RootHasher(old.key)
            stitcher = Stitcher()
            size, overlap = old.block_bytes, old.block_bytes - 1
            for start, end, (digests, found) in walk_spans(new, old.search, block_bytes=size, overlap_bytes=overlap):
                root.add(start // size, digests)
                for op in stitcher.add(start, end, found):
                    writer.add(op)
                progress.advance(end - start)
            image_bytes = new.size_bytes or 0
            for op in stitcher.finish(image_bytes):
                writer.add(op)
            writer.finish(root.finish(size_bytes=image_bytes, block_bytes=size))
        done = writer.bytes_of
        return DeltaResult(image_bytes, done[COPY], done[ZERO], done[LITERAL], delta.written_bytes)

    # -- patch -------------------------------------------------------------------------------------------------------

    def patch(self, old: ImageSource, delta: Input, target: ImageTarget, *, progress: Progress) -> PatchResult:
        """Make the new file and verify it by its root digest; raises WrongOldFile if that differs."""
        parts = DeltaReader(delta)
        if old.size_bytes != parts.old_bytes:
            raise WrongOldFile(
                old.path, f"has {old.size_bytes} bytes; the delta is for a file of {parts.old_bytes} bytes"
            )
        key, size = parts.key, parts.block_bytes
        root = RootHasher(key)

        def digest(content: memoryview) -> Digests:
            return digest_blocks(key, content, size)

        with stage(progress, "patching"):
            assembler = Assembler(old, target, block_bytes=size, digest=digest)
            for start, length, digests in assemble(assembler, parts.read_ops()):
                if digests is not None:
                    root.add(start // size, digests)
                progress.advance(length)
        done = assembler.bytes_of
        image_bytes = sum(done.values())
        found = root.finish(size_bytes=image_bytes, block_bytes=size)
        if found != parts.root:
            raise WrongOldFile(old.path, "is not the file that the delta is for: the result has another digest")
        return PatchResult(image_bytes, done[COPY], done[ZERO], done[LITERAL], is_verified=True)
