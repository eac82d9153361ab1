# SPDX-License-Identifier: Apache-2.0
"""Files made of more operations than are held at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaimg.engine.files.assemble import Assembler, assemble
from deltaimg.engine.files.stitch import Op
from deltaimg.format.delta import COPY, LITERAL, ZERO
from deltaimg.image.open_source import open_source
from tests.fuzz.file_targets import MemoryTarget

OLD = random.Random(4).randbytes(10_000) + bytes(20_000) + b"end"


def some_ops(count: int, longest: int, seed: int) -> Iterator[tuple[Op, bytes]]:
    """Yield operations, and what each makes."""
    chance = random.Random(seed)
    for _ in range(count):
        kind, length = chance.choice((ZERO, COPY, LITERAL)), chance.randint(1, longest)
        if kind == ZERO:
            yield Op(ZERO, length), bytes(length)
        elif kind == COPY:
            offset = chance.randrange(len(OLD) - length)
            yield Op(COPY, length, offset), OLD[offset : offset + length]
        else:
            content = chance.randbytes(length)
            yield Op(LITERAL, length, literal=memoryview(content)), content


@pytest.mark.parametrize(
    ("count", "longest"), [(4095, 1), (4096, 1), (4097, 1), (9000, 3), (20_000, 50)], ids=lambda value: str(value)
)
def test_a_file_of_very_many_small_operations_is_what_they_make(tmp_path: Path, count: int, longest: int) -> None:
    path, target = tmp_path / "old", MemoryTarget()
    with open(path, "wb") as file:
        file.write(OLD[:10_000])
        file.seek(30_000)
        file.write(OLD[30_000:])
    source = open_source(str(path))
    ops = list(some_ops(count, longest, seed=count))
    try:
        for _ in assemble(Assembler(source, target, block_bytes=4096), (op for op, _ in ops)):
            pass
    finally:
        source.close()
    assert bytes(target.content) == b"".join(content for _, content in ops)
