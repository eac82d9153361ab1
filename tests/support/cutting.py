# SPDX-License-Identifier: Apache-2.0
"""Cut records as a prune leaves them, made by hand: the same id, fewer slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from deltaimg.codec.zstd import ZstdCodec
from deltaimg.delta.encode import Encoder
from deltaimg.delta.registry import find_delta_decoder
from deltaimg.engine.content.record_cache import RecordCache
from deltaimg.format.index import INDEXES
from deltaimg.format.pack import pack_name
from deltaimg.format.signature import SIGNATURES
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable


def store_cut(repository: Repository, kept: Mapping[int, Sequence[int]], *, block_bytes: int = 4096) -> None:
    """Store records, by their entries in the index as it is now, once more as literals of some of their slots."""
    index = load_index(repository)
    table = SlotTable(repository, index)
    records = table.add_entries(np.array(list(kept), np.int64))
    table.load_digests(table.add_sources(records))
    cache = RecordCache(RecordReader(repository, table, find_delta_decoder), table, block_bytes)
    encoder = Encoder(ZstdCodec(3), (), record_key=repository.keys.record, block_bytes=block_bytes)
    scratch = memoryview(bytearray(1 << 24))
    newest = max(index.created_us, default=0) + 1
    with PackWriter(repository, lambda: newest, check_lock=lambda: None) as writer:
        for record, slots in zip(records.tolist(), kept.values(), strict=True):
            first, count = int(table.first_slots[record]), int(table.slot_counts[record])
            blocks = np.frombuffer(cache.get(record), np.uint8).reshape(-1, block_bytes)
            numbers = np.array(slots, np.int64)
            content, digests = blocks[numbers].reshape(-1).data, table.digests[first : first + count]
            made = encoder.encode(content, digests.copy(), None, scratch, numbers)
            writer.add(made.header, made.payload, made.digests, made.tables)
        writer.finish()


def remove_index_objects(repository: Repository, index: LoadedIndex) -> None:
    """Take away the index objects that `index` was loaded from, with the packs and signatures that only they name."""
    for name in index.names:
        repository.objects.store.delete(INDEXES + name)
    left = load_index(repository)
    for pack in set(index.packs) - set(left.packs):
        repository.objects.store.delete(pack_name(pack))
    for signature in set(index.signatures) - set(left.signatures):
        repository.objects.store.delete(SIGNATURES + signature)
