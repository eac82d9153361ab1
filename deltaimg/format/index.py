# SPDX-License-Identifier: Apache-2.0
"""`index/<digest>`: where each record lies, and where its digests lie. Rebuildable by scanning packs.

body       := head packs signatures entries source_ids packed
head       := u64 created_us, u32 pack_count, u32 signature_count, u32 entry_count, u32 source_id_count, u32 link_count,
              u32 run_count, u32 cut_count, u32 cut_run_count, u32 packed_bytes, u32 zero
packs      := pack_count times the 32-byte digest that names a pack
signatures := signature_count times the 32-byte digest that names a signature
entries    := entry_count times `ENTRY`
source_ids := source_id_count times a 16-byte record id
packed     := packed columns: u16 links of each entry; u32 place in source_ids and u16 runs of each link; u16 first_slot
              and u16 slot count of each run; u32 entry number and u16 runs of each cut record; u16 first_slot and u16 slot
              count of each of these runs

A link is one source record of one delta record. These say again what delta records say themselves, so that a restore
can be planned, and reachable slots can be found, without reading packs. Likewise the slots that cut records still have.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.format.columns import pack_columns, unpack_columns
from deltaimg.format.cut_entries import CutEntries, find_cuts_problem, no_cuts
from deltaimg.format.framing import HEADER_BYTES, BodyReader, Kind, frame, unframe
from deltaimg.format.limits import MAX_SOURCE_BYTES, MAX_SOURCE_RECORDS, find_record_problem
from deltaimg.format.slot_runs import SLOT_RUN, SlotRuns, find_runs_problem
from deltaimg.format.sources import SourceTable
from deltaimg.memory import check_room

INDEXES: Final = "index/"
HEAD: Final = struct.Struct("<QIIIIIIIIII")
ENTRY: Final = np.dtype(
    [
        ("id", "u1", (16,)),
        ("pack", "<u4"),
        ("offset", "<u4"),
        ("payload_bytes", "<u4"),
        ("signature", "<u4"),
        ("first_digest", "<u4"),
        ("slots", "<u2"),
        ("encoding", "u1"),
        ("block_shift", "u1"),
    ]
)
"""pack and signature count within this object's lists; offset is that of the record's header in the pack; first_digest is
the place of its first slot in the signature; a block is 2 ** block_shift bytes."""
_COLUMNS: Final = ("<u2", "<u4", "<u2", "<u2", "<u2", "<u4", "<u2", "<u2", "<u2")
"""Types of the packed columns, in their order."""
_NAME_BYTES: Final = 32
_MEMORY_BYTES: Final = {"names": 128, "entries": 120, "links": 64, "runs": 48}
"""What each name, entry, link and run takes at most, in any verb."""


class SourceLinks(Struct, frozen=True):
    """The sources of all entries, one entry's after another's."""

    ids: Digests
    """Of the source records, each once."""
    link_counts: npt.NDArray[np.uint16]
    """Links of each entry; 0 for a literal."""
    places: npt.NDArray[np.uint32]
    """Which of `ids` each link means."""
    run_counts: npt.NDArray[np.uint16]
    """Runs of each link."""
    runs: SlotRuns


class IndexObject(Struct, frozen=True):
    """What an index object says."""

    created_us: int
    packs: tuple[str, ...]
    signatures: tuple[str, ...]
    entries: npt.NDArray[Any]
    links: SourceLinks
    cuts: CutEntries = field(default_factory=no_cuts)

    @property
    def memory_bytes(self) -> int:
        """What it takes of memory at most, as a part of all of a repository's index."""
        run_count = len(self.links.runs) + len(self.cuts.runs)
        return _count_memory(len(self.packs) + len(self.signatures), self.entries, len(self.links.places), run_count)


def _count_memory(names: int, entries: npt.NDArray[Any], links: int, runs: int) -> int:
    counts = {"names": names, "entries": len(entries), "links": links, "runs": runs}
    slot_bits = int(entries["slots"].sum(dtype=np.uint64))
    return sum(_MEMORY_BYTES[what] * count for what, count in counts.items()) + slot_bits // 8


def no_links(entry_count: int) -> SourceLinks:
    """Return the links of entries that all are literals."""
    return SourceLinks(
        np.empty((0, DIGEST_BYTES), np.uint8),
        np.zeros(entry_count, np.uint16),
        np.empty(0, np.uint32),
        np.empty(0, np.uint16),
        np.empty(0, SLOT_RUN),
    )


def link_sources(tables: Sequence[SourceTable | None]) -> SourceLinks:
    """Join the delta sources of records, None for a literal, in their order."""
    if not any(tables):
        return no_links(len(tables))
    present = [table for table in tables if table]
    ids, places = np.unique(np.concatenate([table.ids for table in present]), axis=0, return_inverse=True)
    return SourceLinks(
        ids,
        np.array([len(table.ids) if table else 0 for table in tables], np.uint16),
        places.reshape(-1).astype(np.uint32),
        np.concatenate([table.run_counts for table in present]),
        np.concatenate([table.runs for table in present]),
    )


def build_index(content: IndexObject) -> bytes:
    """Return an index object."""
    links, cuts = content.links, content.cuts
    packed = b""
    if len(links.places) or len(cuts.entries):
        packed = pack_columns((
            links.link_counts, links.places, links.run_counts, links.runs["first_slot"], links.runs["count"],
            cuts.entries, cuts.run_counts, cuts.runs["first_slot"], cuts.runs["count"],
        ))  # fmt: skip
    head = HEAD.pack(
        content.created_us,
        len(content.packs),
        len(content.signatures),
        len(content.entries),
        len(links.ids),
        len(links.places),
        len(links.runs),
        len(cuts.entries),
        len(cuts.runs),
        len(packed),
        0,
    )
    names = b"".join(bytes.fromhex(name) for name in content.packs + content.signatures)
    return frame(Kind.INDEX, head + names + content.entries.tobytes() + links.ids.tobytes() + packed)


def parse_index(data: bytes, name: str) -> IndexObject:
    """Read the index at object `name`.

    Raises:
        IntegrityError, UnsupportedFormat: it is no index. MemoryLimitReached: what it says needs more than there may be for it.
    """
    reader = BodyReader(name, unframe(Kind.INDEX, name, data))
    created_us, pack_count, signature_count, entry_count, *counts, reserved = reader.take_struct(HEAD)
    if reserved:
        reader.refuse("reserved bytes are not zero")
    names = reader.take(_NAME_BYTES * (pack_count + signature_count))
    entries = np.frombuffer(reader.take(ENTRY.itemsize * entry_count), ENTRY)
    _, link_count, run_count, _, cut_run_count, _ = counts
    memory_bytes = _count_memory(pack_count + signature_count, entries, link_count, run_count + cut_run_count)
    check_room(name, memory_bytes)
    links, cuts = _parse_columns(name, reader, entry_count, *counts)
    reader.expect_end()
    if entry_count:
        if int(entries["pack"].max()) >= pack_count or int(entries["signature"].max()) >= signature_count:
            reader.refuse("an entry names a pack or signature that is not listed")
        if int(entries["offset"].min()) < HEADER_BYTES:
            reader.refuse("an entry lies in the header of its pack")
    if problem := find_record_problem(entries) or find_cuts_problem(cuts, entries["slots"]):
        reader.refuse(problem)
    source_bytes = _count_source_slots(links) << entries["block_shift"].astype(np.uint64)
    if int(source_bytes.max(initial=0)) > MAX_SOURCE_BYTES:
        reader.refuse(f"an entry has sources of more than {MAX_SOURCE_BYTES} bytes")
    listed = _split_names(names)
    return IndexObject(created_us, listed[:pack_count], listed[pack_count:], entries, links, cuts)


def _split_names(names: memoryview) -> tuple[str, ...]:
    """Return names of objects, as hexadecimal text."""
    return tuple(names[at : at + _NAME_BYTES].hex() for at in range(0, len(names), _NAME_BYTES))


def _count_source_slots(links: SourceLinks) -> npt.NDArray[np.uint64]:
    """Return how many slots each entry is encoded against."""
    done = np.concatenate((np.zeros(1, np.uint64), np.cumsum(links.runs["count"], dtype=np.uint64)))
    for counts in (links.run_counts, links.link_counts):
        done = done[np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))]
    return np.diff(done)


def _parse_columns(
    name: str,
    reader: BodyReader,
    entry_count: int,
    id_count: int,
    link_count: int,
    run_count: int,
    cut_count: int,
    cut_run_count: int,
    packed_bytes: int,
) -> tuple[SourceLinks, CutEntries]:
    ids = np.frombuffer(reader.take(DIGEST_BYTES * id_count), np.uint8).reshape(id_count, DIGEST_BYTES)
    offset = HEADER_BYTES + reader.position
    packed = reader.take(packed_bytes)
    if not link_count and not cut_count:
        if id_count or run_count or cut_run_count or packed:
            reader.refuse("it has sources that no entry names")
        return no_links(entry_count), no_cuts()
    lengths = [entry_count, link_count, link_count, run_count, run_count]
    lengths += [cut_count, cut_count, cut_run_count, cut_run_count]
    columns = unpack_columns(name, offset, packed, list(zip(_COLUMNS, lengths, strict=True)))
    link_counts, places, run_counts, first_slots, counts, cut_entries, cut_run_counts, *cut_runs = columns
    links = SourceLinks(ids, link_counts, places, run_counts, _as_runs(first_slots, counts))
    if problem := _find_links_problem(links):
        reader.refuse(problem)
    if int(cut_run_counts.sum(dtype=np.uint64)) != cut_run_count:
        reader.refuse("the runs of its cut records are not as many as it says")
    return links, CutEntries(cut_entries, cut_run_counts, _as_runs(*cut_runs))


def _as_runs(first_slots: npt.NDArray[np.uint16], counts: npt.NDArray[np.uint16]) -> SlotRuns:
    runs = np.empty(len(counts), SLOT_RUN)
    runs["first_slot"], runs["count"] = first_slots, counts
    return runs


def _find_links_problem(links: SourceLinks) -> str | None:
    """Return what is wrong with the sources of an index object, or None."""
    link_count, run_count = int(links.link_counts.sum(dtype=np.uint64)), int(links.run_counts.sum(dtype=np.uint64))
    if link_count != len(links.places) or run_count != len(links.runs):
        return "its sources are not as many as its entries have"
    if len(links.ids) and not link_count:
        return "it has sources that no entry names"
    if link_count and int(links.places.max()) >= len(links.ids):
        return "an entry names a source that is not listed"
    if int(links.link_counts.max(initial=0)) > MAX_SOURCE_RECORDS:
        return f"an entry has more than {MAX_SOURCE_RECORDS} source records"
    if problem := find_runs_problem(links.run_counts, links.runs):
        return f"of the sources of an entry {problem}"
    return None
