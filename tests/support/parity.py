# SPDX-License-Identifier: Apache-2.0
"""Repositories of many small packs, and ways to lose parts of them."""

from __future__ import annotations

import random

import numpy as np

from deltaimg.engine.parity.add import ParityAdded, add_parity
from deltaimg.format.framing import digest_bytes
from deltaimg.format.pack import PACKS, pack_name
from deltaimg.format.record import RecordHeader
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.repositories import make_repository


def store_packs(repository: Repository, sizes: list[int], seed: int, *, started_us: int = 0) -> list[str]:
    """Store a pack of one record for each size, and their index; return the packs' digests in order."""
    chance = random.Random(seed)
    before = set(list_packs(repository))
    with PackWriter(repository, lambda: started_us, check_lock=lambda: None, pack_bytes=1) as writer:
        for size in sizes:
            payload = chance.randbytes(size)
            slots = -(-size // 4096)
            header = RecordHeader(chance.randbytes(16), 0, slots, 12, size, digest_bytes(payload))
            writer.add(header, payload, np.zeros((slots, 16), np.uint8))
        writer.finish()
    return [pack for pack in list_packs(repository) if pack not in before]


def list_packs(repository: Repository) -> list[str]:
    """Return the digests of all packs."""
    return [found.name.rpartition("/")[2] for found in repository.objects.store.list(PACKS)]


def repository_of_packs(sizes: list[int], seed: int) -> tuple[Repository, MemoryStore, dict[str, bytes]]:
    """Return a repository of packs of these sizes, its store, and each pack's bytes by its digest."""
    store = MemoryStore()
    repository = make_repository(store)
    packs = store_packs(repository, sizes, seed)
    return repository, store, {pack: store.objects[pack_name(pack)] for pack in packs}


def protect(repository: Repository, percent: float = 5.0) -> ParityAdded:
    """Run `parity add`."""
    return add_parity(repository, percent, clock=FixedClock())


def overwrite(store: MemoryStore, name: str, offset: int, length: int, chance: random.Random) -> None:
    """Put random bytes in the place of a stretch of an object, as far as it goes."""
    data = bytearray(store.objects[name])
    end = min(len(data), offset + length)
    data[offset:end] = chance.randbytes(end - offset)
    store.objects[name] = bytes(data)
