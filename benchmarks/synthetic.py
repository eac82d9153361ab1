#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Seeded synthetic images: a chain of 200 states with small edits between them, a year of states, and a huge sparse image.

Writes  sparse files; nothing but numpy is needed, the same seed gives the same bytes.
Memory  a few tens of MB, whatever the image's size.

    python benchmarks/synthetic.py sparse PATH [--apparent-gib 1024] [--data-gib 20]
    python benchmarks/synthetic.py chain PATH [--backups 200]    (writes the last state)
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np
from measuring.files import data_extents
from numpy.typing import NDArray

BLOCK_BYTES = 4096
_GROUP_BYTES = 128 << 20  # a block group of ext4 with 4 KiB blocks
_GROUP_METADATA_BLOCKS = 40  # bitmaps and the part of the inode table in use
_TOKENS = 4096
_POOL_BLOCKS = 16_384


def chain_states(
    path: Path, *, seed: int, states: int, image_bytes: int = 2 << 30, data_bytes: int = 1 << 30, edits: int = 400
) -> Iterator[int]:
    """Yield each state's number once `path` holds that state: 0 is the first fill, then small edits in place.

    An edit rewrites 1 to 8 blocks at a random place of the data; half of the edits fall in its first tenth, as those
    of a database's hot tables do. Two in three edits change a part of each block, the others all of it.
    """
    random = np.random.default_rng(seed)
    content = _Content(random)
    sparse_image(path, seed=seed, apparent_bytes=image_bytes, data_bytes=data_bytes)
    places = np.array(_data_blocks(path), np.int64)
    yield 0
    for number in range(1, states + 1):
        with path.open("r+b", buffering=0) as file:
            for _ in range(edits):
                _edit(file, random, content, places)
        yield number


def year_states(path: Path, *, seed: int, states: int, image_bytes: int, data_bytes: int) -> Iterator[int]:
    """Yield each state's number once `path` holds that state: 0 is the first fill, then files changed and replaced.

    For each 10 GiB of data a state changes parts of 16 to 128 neighbouring blocks in 16 places, half of them in the
    first tenth, and replaces 64 to 256 blocks in 4 others; always once at least.
    """
    random = np.random.default_rng([seed, 1])  # not the stream that the first fill comes from
    content = _Content(random)
    sparse_image(path, seed=seed, apparent_bytes=image_bytes, data_bytes=data_bytes, is_stamped=True)
    places = np.array(_data_blocks(path), np.int64)
    share = data_bytes / (10 << 30)
    yield 0
    for number in range(1, states):
        with path.open("r+b", buffering=0) as file:
            for _ in range(max(1, round(16 * share))):
                _edit(file, random, content, places, blocks=(16, 129))
            for _ in range(max(1, round(4 * share))):
                first = int(random.integers(0, len(places)))
                for place in places[first : first + int(random.integers(64, 257))].tolist():
                    file.seek(place * BLOCK_BYTES)
                    file.write(content.take(1))
        yield number


def sparse_image(
    path: Path,
    *,
    seed: int = 1,
    apparent_bytes: int = 1 << 40,
    data_bytes: int = 20 << 30,
    is_stamped: bool = False,
) -> None:
    """Write a sparse image whose data lies as ext4 spreads it: metadata in each group, extents in some groups.

    Half of the data compresses about fivefold, a quarter not at all, a quarter is a mixture of both within each block.
    That costs seconds a GiB; where it `is_stamped`, the same 64 MiB come again and again, each block with a number of its
    own, which costs what writing costs.
    """
    random = np.random.default_rng(seed)
    content = _StampedContent(random) if is_stamped else _Content(random)
    groups = apparent_bytes // _GROUP_BYTES
    metadata_groups = min(groups, data_bytes // (8 * _GROUP_METADATA_BLOCKS * BLOCK_BYTES) + 1)
    path.unlink(missing_ok=True)
    with path.open("w+b", buffering=0) as file:
        file.truncate(apparent_bytes)
        for group in random.choice(groups, metadata_groups, replace=False).tolist():
            file.seek(group * _GROUP_BYTES)
            file.write(content.take(_GROUP_METADATA_BLOCKS))
        left = data_bytes // BLOCK_BYTES - metadata_groups * _GROUP_METADATA_BLOCKS
        share = max(64, min(24_000, 4 * left // groups))
        for group in random.permutation(groups).tolist():
            left -= _fill_group(file, random, content, group * _GROUP_BYTES, min(left, share))
            if left <= 0:
                break


class _Content:
    """Blocks of mixed compressibility."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._tokens = np.frombuffer(random.bytes(_TOKENS * 8), np.uint64)

    def take(self, blocks: int) -> bytes:
        """So many blocks of one of the kinds."""
        kind = int(self._random.integers(0, 4))
        size = blocks * BLOCK_BYTES
        if kind == 0:
            return self._random.bytes(size)
        text = self._tokens[self._random.integers(0, _TOKENS, size // 8)]
        if kind == 1:
            halves = text.reshape(blocks, -1)
            noise = np.frombuffer(self._random.bytes(size // 2), np.uint64)
            halves[:, : halves.shape[1] // 2] = noise.reshape(blocks, -1)
        return text.tobytes()


class _StampedContent:
    """Blocks of the same mixture from a pool, each stamped with a number, so that no two are the same."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        mixed = _Content(random)
        self._pool = np.frombuffer(b"".join(mixed.take(64) for _ in range(_POOL_BLOCKS // 64)), np.uint64)
        self._pool = self._pool.reshape(_POOL_BLOCKS, -1)
        self._stamp = int(random.integers(1, 1 << 62))

    def take(self, blocks: int) -> bytes:
        """So many blocks, from anywhere in the pool."""
        first = int(self._random.integers(0, max(1, _POOL_BLOCKS - blocks)))
        taken = self._pool[first : first + blocks].copy()
        taken[:, 0] = np.arange(self._stamp, self._stamp + blocks, dtype=np.uint64)
        self._stamp += blocks
        return taken.tobytes()


def _fill_group(
    file: FileIO, random: np.random.Generator, content: _Content | _StampedContent, start: int, blocks: int
) -> int:
    """Write extents of log-normal length into one block group; return how many blocks were written."""
    position, written = _GROUP_METADATA_BLOCKS, 0
    while written < blocks:
        position += int(random.geometric(0.02))
        length = min(int(random.lognormal(4.0, 1.6)) + 1, 2048, blocks - written)
        if position + length > _GROUP_BYTES // BLOCK_BYTES:
            break
        file.seek(start + position * BLOCK_BYTES)
        file.write(content.take(length))
        position += length
        written += length
    return written


def _edit(
    file: FileIO,
    random: np.random.Generator,
    content: _Content,
    places: NDArray[np.int64],
    blocks: tuple[int, int] = (1, 9),
) -> None:
    """Change neighbouring blocks, as many as lie in the half-open range `blocks`, wholly or in part."""
    limit = len(places) // 10 if random.random() < 0.5 else len(places)
    first = int(random.integers(0, limit))
    for place in places[first : first + int(random.integers(*blocks))].tolist():
        fresh = content.take(1)
        start = 0 if random.random() < 0.33 else int(random.integers(0, BLOCK_BYTES - 64))
        length = BLOCK_BYTES if start == 0 else int(random.integers(16, BLOCK_BYTES - start + 1))
        file.seek(place * BLOCK_BYTES + start)
        file.write(fresh[:length])


def _data_blocks(path: Path) -> list[int]:
    """Numbers of all blocks that hold data."""
    return [block for start, end in data_extents(path) for block in range(start // BLOCK_BYTES, end // BLOCK_BYTES)]


def main() -> None:
    """Make one image by hand."""
    parser = argparse.ArgumentParser(description="Make a seeded synthetic image.")
    parser.add_argument("kind", choices=("sparse", "chain"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--apparent-gib", type=int, default=1024)
    parser.add_argument("--data-gib", type=int, default=20)
    parser.add_argument("--backups", type=int, default=200)
    given = parser.parse_args()
    if given.kind == "chain":
        for _ in chain_states(given.path, seed=given.seed, states=given.backups):
            pass
    else:
        sparse_image(
            given.path, seed=given.seed, apparent_bytes=given.apparent_gib << 30, data_bytes=given.data_gib << 30
        )


if __name__ == "__main__":
    main()
