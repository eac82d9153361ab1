# SPDX-License-Identifier: Apache-2.0
"""A repository whose metadata describe far more data than there is: packs are holes with a header and a footer.

Sixteen images, each seven eighths of its data in a full snapshot, the rest in eight incrementals of delta records spread over
it; a ninth that no manifest names is what a prune finds. Digests are random, ids are those of the digests, and
sources lie in the full snapshot, so that all that is said about structure is true; only content cannot be read.

Memory  one group of records at a time: a few tens of MB.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from deltaimg.api.repositories import open_repository
from deltaimg.arrays import FIRST_SLOT, RUN, Digests
from deltaimg.format.framing import HEADER_BYTES, Kind, build_header, digest_bytes
from deltaimg.format.index import ENTRY, IndexObject, SourceLinks, no_links
from deltaimg.format.limits import MAX_LAYERS
from deltaimg.format.manifest import Manifest, Statistics, format_time
from deltaimg.format.map import MapObject
from deltaimg.format.pack import FOOTER_ENTRY, TRAILER, TRAILER_MAGIC, pack_name
from deltaimg.format.record import RECORD_HEADER_BYTES
from deltaimg.format.signature import SignatureObject
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.repo.object_kinds import INDEX, MAP, SIGNATURE
from deltaimg.repo.repository import Repository

BLOCK_BYTES = 4096
_IMAGES, _INCREMENTALS = 16, 8
_SLOTS = 128
_PACK_RECORDS, _GROUP_RECORDS = 128, 1024
_LITERAL_BYTES, _DELTA_BYTES = 256 << 10, 32 << 10
_SPREAD_BLOCKS, _HOLE_BLOCKS, _CHANGE_BLOCKS = 4096, 512, 32
_SOURCES, _SOURCE_RUNS = 4, 4


def describe_repository(folder: Path, *, data_bytes: int) -> str:
    """Fill the empty repository in `folder` with metadata of so much data, a power of two; return what it says."""
    maker = _Maker(folder)
    for number in range(_IMAGES):
        maker.add_image(f"vm{number}", data_bytes // _IMAGES // BLOCK_BYTES)
    snapshots = _IMAGES * (_INCREMENTALS + 1)
    return (
        f"{snapshots} snapshots, {maker.records:,} records of {BLOCK_BYTES >> 10} KiB blocks in {maker.packs:,} packs"
    )


class _Maker:
    """Writes objects of every kind into one repository."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._repository: Repository = open_repository(str(folder))
        self._random = np.random.default_rng(1024)
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self.records = self.packs = 0

    def add_image(self, image: str, blocks: int) -> None:
        """One image with all its snapshots."""
        stretch = _SPREAD_BLOCKS - _HOLE_BLOCKS
        stretches = blocks // _SPREAD_BLOCKS
        base = self._add_records(stretches * stretch // _SLOTS, sources=None)
        runs = np.zeros(2 * stretches, RUN)
        starts = np.arange(stretches) * _SPREAD_BLOCKS
        runs["first_block"] = np.column_stack((starts, starts + stretch)).reshape(-1)
        runs["count"] = np.tile([stretch, _HOLE_BLOCKS], stretches)
        runs["slot"][::2] = FIRST_SLOT + np.arange(stretches) * stretch
        newest = self._add_snapshot(image, None, blocks, base, runs)
        changes = blocks // (8 * _INCREMENTALS) // _CHANGE_BLOCKS
        for number in range(_INCREMENTALS + 1):
            fresh = self._add_records(changes * _CHANGE_BLOCKS // _SLOTS, sources=base)
            if number == _INCREMENTALS:
                return
            places = np.sort(self._random.choice(blocks // _CHANGE_BLOCKS, changes, replace=False))
            runs = np.zeros(changes, RUN)
            runs["first_block"], runs["count"] = places * _CHANGE_BLOCKS, _CHANGE_BLOCKS
            runs["slot"] = FIRST_SLOT + np.arange(changes) * _CHANGE_BLOCKS
            newest = self._add_snapshot(image, newest, blocks, fresh, runs)

    def _add_snapshot(
        self, image: str, base: Manifest | None, blocks: int, records: Digests, runs: NDArray[Any]
    ) -> Manifest:
        slots = np.full(len(records), _SLOTS, np.uint16)
        name, _ = self._repository.objects.put_new(MAP, MapObject(blocks, records, slots, runs))
        size, changed = blocks * BLOCK_BYTES, len(records) * _SLOTS * BLOCK_BYTES
        said = Statistics(
            apparent_bytes=size, allocated_bytes=size, read_bytes=size, changed_bytes=changed, referenced_bytes=0,
            new_bytes=changed, stored_bytes=changed // 2, duration_s=1.0,
        )  # fmt: skip
        self._now += timedelta(hours=1)
        below = base.maps if base and len(base.maps) < MAX_LAYERS else ()
        manifest = Manifest(
            id=secrets.token_hex(8), image=image, time=format_time(self._now), base=base.id if base else None,
            base_time=base.time if base else None, size_bytes=size, block_bytes=BLOCK_BYTES, maps=(*below, name),
            root_digest=secrets.token_hex(16), statistics=said, started=format_time(self._now), ended=format_time(self._now),
        )  # fmt: skip
        self._repository.commit(manifest)
        return manifest

    def _add_records(self, count: int, *, sources: Digests | None) -> Digests:
        """Packs, signatures and index objects of so many records; return their ids."""
        ids = [self._add_group(size, sources) for size in _parts(count, _GROUP_RECORDS)]
        self.records += count
        return np.concatenate(ids)

    def _add_group(self, count: int, sources: Digests | None) -> Digests:
        digests = np.frombuffer(self._random.bytes(count * _SLOTS * 16), np.uint8).reshape(count * _SLOTS, 16)
        key, whole, step = self._repository.keys.record, digests.tobytes(), _SLOTS * 16
        ids = b"".join(blake3(whole[at : at + step], key=key).digest(16) for at in range(0, len(whole), step))
        record_ids = np.frombuffer(ids, np.uint8).reshape(count, 16)
        slots = np.full(count, _SLOTS, np.uint16)
        signature_name, _ = self._repository.objects.put_new(SIGNATURE, SignatureObject(record_ids, slots, digests))
        entries = np.zeros(count, ENTRY)
        entries["id"], entries["slots"], entries["block_shift"] = record_ids, _SLOTS, 12
        entries["encoding"] = 1 if sources is None else 2
        entries["payload_bytes"] = _LITERAL_BYTES if sources is None else _DELTA_BYTES
        entries["first_digest"] = np.arange(count) * _SLOTS
        packs = []
        for place, size in enumerate(_parts(count, _PACK_RECORDS)):
            part = entries[place * _PACK_RECORDS : place * _PACK_RECORDS + size]
            part["pack"] = place
            steps = RECORD_HEADER_BYTES + part["payload_bytes"].astype(np.uint64)
            part["offset"] = HEADER_BYTES + np.cumsum(steps) - steps
            packs.append(self._add_pack(part))
        links = no_links(count) if sources is None else self._link(count, sources)
        created_us = int(self._now.timestamp() * 1_000_000)
        index = IndexObject(created_us, tuple(packs), (signature_name,), entries, links)
        self._repository.objects.put_new(INDEX, index)
        return record_ids

    def _add_pack(self, entries: NDArray[Any]) -> str:
        """A file of the right length whose records are a hole; its name is made up, for its bytes are not read."""
        footer = np.zeros(len(entries), FOOTER_ENTRY)
        for field in ("id", "offset", "payload_bytes", "slots", "encoding", "block_shift"):
            footer[field] = entries[field]
        tail = footer.tobytes() + TRAILER.pack(len(footer), 0, TRAILER_MAGIC)
        tail_offset = int(entries["offset"][-1]) + RECORD_HEADER_BYTES + int(entries["payload_bytes"][-1])
        name = secrets.token_hex(32)
        path = self._folder / pack_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(build_header(Kind.PACK, tail_offset - HEADER_BYTES + len(tail), digest_bytes(tail)))
            file.seek(tail_offset)
            file.write(tail)
        self.packs += 1
        return name

    def _link(self, count: int, sources: Digests) -> SourceLinks:
        """Each record depends on a few records of the full snapshot, on a few runs of each."""
        ids, places = np.unique(
            self._random.integers(0, len(sources), (count, min(_SOURCES, len(sources)))), return_inverse=True
        )
        places = places.reshape(-1).astype(np.uint32)
        runs = np.zeros(len(places) * _SOURCE_RUNS, SLOT_RUN)
        runs["first_slot"], runs["count"] = np.tile(np.arange(_SOURCE_RUNS) * 32, len(places)), 8
        run_counts = np.full(len(places), _SOURCE_RUNS, np.uint16)
        link_counts = np.full(count, len(places) // count, np.uint16)
        return SourceLinks(sources[ids], link_counts, places, run_counts, runs)


def _parts(count: int, most: int) -> Iterator[int]:
    """Cut `count` into parts of `most`, the last one shorter."""
    for start in range(0, count, most):
        yield min(most, count - start)
