# SPDX-License-Identifier: Apache-2.0
"""Copy what is kept of objects to be deleted: unchanged records, digests, index entries.

Always  what is stored again is verified first: payloads by their digests, digests by the ids of their records.
Memory  a batch of packs' digests, 16 bytes a slot; the writer's packs; the index entries that are written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, group_by
from deltaimg.engine.progress import Progress, stage
from deltaimg.engine.prune.plan import MAX_INDEXES
from deltaimg.engine.prune.sizes import payload_bytes
from deltaimg.errors import IntegrityError, Malformed, ObjectNotFound
from deltaimg.format.index import IndexObject
from deltaimg.format.record import (
    RECORD_HEADER_BYTES,
    CutTable,
    RecordTables,
    build_tables,
    check_payload,
    parse_record_header,
    parse_tables,
)
from deltaimg.format.signature import SignatureObject
from deltaimg.ids import EntryNumber, EntryNumbers
from deltaimg.model import MIB
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.keys import digest_of
from deltaimg.repo.object_kinds import INDEX, SIGNATURE, Content, ObjectKind
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.record_reader import ReadGroup, group_reads
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

_BATCH_BYTES = 256 * MIB
_SIGNATURE_RECORDS = 1 << 16


def copy_records(
    repository: Repository,
    index: LoadedIndex,
    moved: EntryNumbers,
    writer: PackWriter,
    progress: Progress,
    on_damage: Callable[[str, IntegrityError | ObjectNotFound], None],
) -> None:
    """Copy records unchanged, pack after pack.

    Args:
        on_damage: called with each pack of which not all can be copied, and the reason; the others are copied.
    """
    with stage(progress, "repacking", int(payload_bytes(index.entries[moved]).sum())):
        for entries in _batches(index, moved):
            table = SlotTable(repository, index)
            records = table.add_entries(EntryNumbers(entries))
            damaged: set[str] = set()

            def refuse(pack: str, error: IntegrityError | ObjectNotFound, damaged: set[str] = damaged) -> None:
                if pack not in damaged:
                    damaged.add(pack)
                    on_damage(pack, error)

            lost: list[IntegrityError | ObjectNotFound] = []
            table.load_digests(records, lambda error, lost=lost: lost.append(error))  # type: ignore[misc]
            for record in records[~table.is_loaded[records]].tolist():
                refuse(digest_of(table.pack_of(record)), lost[0])
            for group in group_reads(table, records):
                pack = digest_of(group.pack)
                if pack in damaged:
                    continue
                try:
                    _copy_group(repository, table, group, writer)
                except (IntegrityError, ObjectNotFound) as error:
                    refuse(pack, error)
                progress.advance(group.end - group.offset)


def _batches(index: LoadedIndex, moved: EntryNumbers) -> Iterator[npt.NDArray[np.int64]]:
    """Yield entries in order of pack and offset, some packs at a time."""
    ordered = moved[np.lexsort((index.entries["offset"][moved], index.entries["pack"][moved]))]
    sizes = np.cumsum(payload_bytes(index.entries[ordered]))
    first = 0
    while first < len(ordered):
        done = int(sizes[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(sizes, done + _BATCH_BYTES, side="right")))
        yield ordered[first:last]
        first = last


def _copy_group(repository: Repository, table: SlotTable, group: ReadGroup, writer: PackWriter) -> None:
    fetched = memoryview(repository.objects.get_range(group.pack, group.offset, group.end - group.offset))
    index = table.index
    copies = []
    for record in group.records.tolist():
        number = int(table.entries[record])
        entry = index.entries[number]
        offset = int(entry["offset"])
        data = fetched[offset - group.offset :][: RECORD_HEADER_BYTES + int(entry["payload_bytes"])]
        header = parse_record_header(group.pack, offset, data)
        is_same = header.id == entry["id"].tobytes() and header.payload_bytes == int(entry["payload_bytes"])
        if not is_same or header.slots != int(entry["slots"]):
            raise Malformed(group.pack, offset, "the record here is not the one that the index names")
        payload = data[RECORD_HEADER_BYTES:]
        check_payload(group.pack, offset, header, payload)
        tables, _ = parse_tables(group.pack, offset, header, payload)
        if build_tables(tables) != _expected_tables(index, number, tables):
            raise Malformed(group.pack, offset, "the record here has other slots or sources than the index says")
        first = int(table.first_slots[record])
        copies.append((header, bytes(payload), table.digests[first : first + header.slots], tables))
    for header, kept, digests, tables in copies:
        writer.add(header, kept, digests.copy(), tables)


def _expected_tables(index: LoadedIndex, entry: int, found: RecordTables) -> bytes:
    """Return the tables that a record must begin with according to the index, with the digests that only the record has."""
    cut, entries = b"", np.array([entry])
    if index.cuts.is_cut(EntryNumbers(entries))[0]:
        runs, _ = index.cuts.runs_of(EntryNumbers(entries))
        digests = found.cut.absent_digests if found.cut is not None else np.empty((0, DIGEST_BYTES), np.uint8)
        cut = build_tables(RecordTables(CutTable(runs, digests)))
    return cut + index.links.table_of(EntryNumber(entry))


class IndexRewriter:
    """Writes index objects for entries whose index objects are deleted, and signatures for digests that are moved."""

    def __init__(self, repository: Repository, index: LoadedIndex) -> None:
        self._repository, self._index = repository, index
        self.stored_bytes = 0

    def write(self, entries: EntryNumbers, resigned: EntryNumbers, kept_objects: int) -> None:
        """Write index objects for `entries`, from oldest to newest.

        Args:
            resigned: those of them whose digests are written to new signatures.
            kept_objects: number of index objects that are kept beside the new ones.
        """
        index = self._index
        places_of_digests = self._sign(EntryNumbers(np.sort(resigned)))
        groups = list(group_by(index.object_of[entries]))
        per_object = 1
        if kept_objects + len(groups) > MAX_INDEXES:
            per_object = -(-len(groups) // (MAX_INDEXES // 2))
        for first in range(0, len(groups), per_object):
            merged = groups[first : first + per_object]
            chosen = np.concatenate([entries[places] for _, places in merged])
            self._write_object(EntryNumbers(np.sort(chosen)), places_of_digests, index.created_us[merged[-1][0]])

    def _write_object(self, entries: EntryNumbers, places: dict[int, tuple[str, int]], created_us: int) -> None:
        index = self._index
        copied = index.entries[entries].copy()
        packs, copied["pack"] = _renumber([index.packs[number] for number in copied["pack"].tolist()])
        names = [index.signatures[number] for number in copied["signature"].tolist()]
        for number, entry in enumerate(entries.tolist()):
            if entry in places:
                names[number], copied["first_digest"][number] = places[entry]
        signatures, copied["signature"] = _renumber(names)
        links, cuts = index.links.extract(entries), index.cuts.extract(entries)
        self._put(INDEX, IndexObject(created_us, packs, signatures, copied, links, cuts))

    def _sign(self, entries: EntryNumbers) -> dict[int, tuple[str, int]]:
        """Write the digests of records to new signatures; return for each entry the signature, and the place in it."""
        places: dict[int, tuple[str, int]] = {}
        for first in range(0, len(entries), _SIGNATURE_RECORDS):
            piece = entries[first : first + _SIGNATURE_RECORDS]
            table = SlotTable(self._repository, self._index)
            records = table.add_entries(piece)
            table.load_digests(records)
            firsts, counts = table.first_slots[records], table.slot_counts[records]
            digests = table.digests[int(firsts[0]) : int(firsts[-1] + counts[-1])].reshape(-1, DIGEST_BYTES)
            content = SignatureObject(table.record_ids[records], counts.astype(np.uint16), digests)
            name = self._put(SIGNATURE, content)
            for entry, place in zip(piece.tolist(), (firsts - firsts[0]).tolist(), strict=True):
                places[entry] = name, place
        return places

    def _put(self, kind: ObjectKind[Content], content: Content) -> str:
        digest, size_bytes = self._repository.objects.put_new(kind, content)
        self.stored_bytes += size_bytes
        return digest


def _renumber(names: list[str]) -> tuple[tuple[str, ...], npt.NDArray[np.uint32]]:
    """Return each name once, in order of appearance, and which of these each of `names` is."""
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(name, len(numbers)) for name in names]
    return tuple(numbers), np.array(places, np.uint32)
