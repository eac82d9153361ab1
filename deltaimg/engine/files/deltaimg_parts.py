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

from deltaimg.engine.files.deltaimg_signature import OldSignature
from deltaimg.engine.files.stitch import Op
from deltaimg.engine.files.streams import Input, Output
from deltaimg.errors import Malformed
from deltaimg.format.delta import COPY, LITERAL, OP, ZERO, DeltaObject, build_delta, parse_delta
from deltaimg.format.framing import Kind

_PART_LITERAL_BYTES = 4 << 20
_PART_OPS = 1 << 16
_FEW_OPS = 1 << 12
"""Operations that are Python objects at a time: as such they take ten times their memory."""


class DeltaWriter:
    """Gathers operations into objects of some size."""

    def __init__(self, signature: OldSignature, delta: Output) -> None:
        self._signature, self._delta = signature, delta
        self._start = 0
        self._ops: list[tuple[int, int, int]] = []
        self._literals: list[memoryview] = []
        self._literal_bytes = self._length = 0
        self.bytes_of = {ZERO: 0, COPY: 0, LITERAL: 0}

    def add(self, op: Op) -> None:
        """Take the next operation."""
        self.bytes_of[op.kind] += op.length
        self._ops.append((op.kind, op.length, op.old_offset))
        self._length += op.length
        if op.literal is not None:
            self._literals.append(op.literal)
            self._literal_bytes += op.length
        if self._literal_bytes >= _PART_LITERAL_BYTES or len(self._ops) >= _PART_OPS:
            self._write(None)

    def finish(self, root: bytes) -> None:
        """Write the last object."""
        self._write(root)

    def _write(self, root: bytes | None) -> None:
        old = self._signature
        content = DeltaObject(
            old.key,
            old.block_bytes,
            old.image_bytes,
            self._start,
            np.array(self._ops, OP),
            b"".join(self._literals),
            root,
        )
        self._delta.write(build_delta(content))
        self._start += self._length
        self._ops.clear()
        self._literals.clear()
        self._literal_bytes = self._length = 0


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
            for op in _list_ops(part):
                yield op
                done += op.length
            if part.root is not None:
                break
            self._part = self._read_part()
        self._delta.expect_end()

    def _read_part(self) -> DeltaObject:
        return parse_delta(self._delta.read_object(Kind.DELTA), self._delta.name)


def _list_ops(part: DeltaObject) -> Iterator[Op]:
    literals, at = memoryview(part.literals), 0
    for first in range(0, len(part.ops), _FEW_OPS):
        for kind, length, old_offset in part.ops[first : first + _FEW_OPS].tolist():
            if kind == LITERAL:
                yield Op(LITERAL, length, literal=literals[at : at + length])
                at += length
            else:
                yield Op(kind, length, old_offset)
