# SPDX-License-Identifier: Apache-2.0
"""One bit turned: in bytes, in a file, in an object of a store in memory."""

from __future__ import annotations

from pathlib import Path

from deltaimg.store.memory import MemoryStore


def flip(data: bytes, place: int | None = None, bit: int = 0) -> bytes:
    """Return `data` with one bit of the byte at `place` turned; without one, of the byte in the middle."""
    damaged = bytearray(data)
    damaged[len(data) // 2 if place is None else place] ^= 1 << bit
    return bytes(damaged)


def flip_file(path: Path, place: int | None = None) -> None:
    """Turn a bit of a file, which may be read-only."""
    path.chmod(0o600)
    path.write_bytes(flip(path.read_bytes(), place))


def flip_object(store: MemoryStore, name: str, place: int | None = None) -> None:
    """Turn a bit of an object."""
    store.objects[name] = flip(store.objects[name], place)
