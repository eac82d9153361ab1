# SPDX-License-Identifier: Apache-2.0
"""Deltas of deltaimg's own format as operations: written in objects of some size, and read back as one sequence.

Reads      a delta, object by object (docs/format.md, "Delta head").
Writes     objects of up to 4 MiB of literals or 65,536 operations, each compressed by itself.
Memory     the operations and literals of one object.
Invariant  the objects of a delta have one key, block size and old file, and continue each other without a gap; the last one has
           the root digest of the new file.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.codec.none import NoneCodec
from deltaimg.codec.registry import find_decoder
from deltaimg.codec.zstd import ZstdCodec
from deltaimg.delta.literals import EncodedLiteral, LiteralEncoder
from deltaimg.engine.files.deltaimg_signature import OldSignature
from deltaimg.engine.files.stitch import Op
from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.pipeline import OrderedPool, ThreadBuffer
from deltaimg.errors import Malformed, UnsupportedFormat
from deltaimg.format.delta import COPY, LITERAL, OP, ZERO, DeltaObject, build_delta, parse_delta
from deltaimg.format.framing import Kind

_PART_LITERAL_BYTES = 1 << 20
_PART_OPS = 1 << 16
_FEW_OPS = 1 << 12
"""Operations that are Python objects at a time: as such they take ten times their memory."""
_LITERALS = LiteralEncoder(ZstdCodec(), DeltaimgCodec())
_NO_LITERALS = EncodedLiteral(NoneCodec.encoding_id, b"")


class _Part(Struct, frozen=True):
    """What an object is made of."""

    start: int
    ops: list[tuple[int, int, int]]
    literals: list[memoryview]
    root: bytes | None


class DeltaWriter:
    """Gathers operations into objects of some size, which are encoded on all cores; a context manager around its threads."""

    def __init__(self, signature: OldSignature, delta: Output) -> None:
        self._signature, self._delta = signature, delta
        self._pool, self._scratch = OrderedPool(), ThreadBuffer()
        self._start = self._length = self._literal_bytes = 0
        self._ops: list[tuple[int, int, int]] = []
        self._literals: list[memoryview] = []
        self.bytes_of = {ZERO: 0, COPY: 0, LITERAL: 0}

    def __enter__(self) -> DeltaWriter:
        self._pool.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._pool.__exit__(None, None, None)

    def add(self, op: Op) -> None:
        """Take the next operation."""
        if op.literal is None or op.length <= _PART_LITERAL_BYTES:
            self._add(op)
            return
        for first in range(0, op.length, _PART_LITERAL_BYTES):
            piece = op.literal[first : first + _PART_LITERAL_BYTES]
            self._add(Op(LITERAL, len(piece), literal=piece))

    def _add(self, op: Op) -> None:
        self.bytes_of[op.kind] += op.length
        self._ops.append((op.kind, op.length, op.old_offset))
        self._length += op.length
        if op.literal is not None:
            self._literals.append(op.literal)
            self._literal_bytes += op.length
        if self._literal_bytes >= _PART_LITERAL_BYTES or len(self._ops) >= _PART_OPS:
            self._close_part(None)

    def finish(self, root: bytes) -> None:
        """Write the last object."""
        self._close_part(root)
        for made in self._pool.drain():
            self._delta.write(made)

    def _close_part(self, root: bytes | None) -> None:
        for made in self._pool.submit(self._build, _Part(self._start, self._ops, self._literals, root)):
            self._delta.write(made)
        self._start += self._length
        self._ops, self._literals = [], []
        self._literal_bytes = self._length = 0

    def _build(self, part: _Part) -> bytes:
        old, literals = self._signature, _NO_LITERALS
        if part.literals:
            content = memoryview(b"".join(part.literals))
            literals = _LITERALS.encode(content, self._scratch.get(len(content)))
        ops = np.array(part.ops, OP)
        made = DeltaObject(
            old.key, old.block_bytes, old.image_bytes, part.start, ops, literals.encoding, literals.payload, part.root
        )
        return build_delta(made)


class DeltaReader:
    """Reads the objects of a delta one after another. What the first one says of the old file is there at once."""

    def __init__(self, delta: Input) -> None:
        """Read the first object; raises IntegrityError or UnsupportedFormat."""
        self._delta = delta
        self._part = self._read_part()
        self.key, self.block_bytes, self.old_bytes = self._part.key, self._part.block_bytes, self._part.old_bytes

    @property
    def root(self) -> bytes | None:
        """The root digest of the new file; None until all operations were read."""
        return self._part.root

    def read_ops(self) -> Iterator[Op]:
        """Yield all operations in the order of the new file; literals are views of their object.

        Raises:
            IntegrityError: an object is damaged, or does not continue the one before it, or something follows the last one.
        """
        done = 0
        while True:
            part = self._part
            if (part.key, part.block_bytes, part.old_bytes) != (self.key, self.block_bytes, self.old_bytes) or (
                part.new_start != done
            ):
                raise Malformed(self._delta.name, self._delta.position, "its parts do not belong together")
            for op in _list_ops(part, self._decode_literals(part)):
                yield op
                done += op.length
            if part.root is not None:
                break
            self._part = self._read_part()
        self._delta.expect_end()

    def _decode_literals(self, part: DeltaObject) -> memoryview:
        """Return the literals of an object, with memory of their own."""
        if not part.literal_bytes:
            return memoryview(b"")
        codec = find_decoder(part.encoding)
        if codec is None:
            raise UnsupportedFormat(
                self._delta.name, f"has literals in encoding {part.encoding}, which this deltaimg does not read"
            )
        try:
            return codec.decode(part.literals, part.literal_bytes)
        except ValueError as error:
            raise Malformed(
                self._delta.name, self._delta.position, f"its literals cannot be decoded: {error}"
            ) from error

    def _read_part(self) -> DeltaObject:
        return parse_delta(self._delta.read_object(Kind.DELTA), self._delta.name)


def _list_ops(part: DeltaObject, literals: memoryview) -> Iterator[Op]:
    at = 0
    for first in range(0, len(part.ops), _FEW_OPS):
        for kind, length, old_offset in part.ops[first : first + _FEW_OPS].tolist():
            if kind == LITERAL:
                yield Op(LITERAL, length, literal=literals[at : at + length])
                at += length
            else:
                yield Op(kind, length, old_offset)
