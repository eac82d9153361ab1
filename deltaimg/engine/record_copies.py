# SPDX-License-Identifier: Apache-2.0
"""Records copied as they are, never decoded: from one pack to another, of this repository or of another one of its family.

Always  what is copied is verified first: payloads by their digests, the digests of slots by the ids of their records, and the
        tables before a payload by the index, which says the same of them.
Memory  a batch of packs' digests, 16 bytes a slot; what one read brings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.crypto.sealer import bare_header
from deltaimg.engine.progress import Progress, stage
from deltaimg.errors import IntegrityError, Malformed, ObjectNotFound
from deltaimg.format.record import (
    RECORD_HEADER_BYTES,
    CutTable,
    RecordHeader,
    RecordTables,
    build_tables,
    check_payload,
    parse_record_header,
    parse_tables,
)
from deltaimg.format.sources import SourceTable, parse_sources
from deltaimg.ids import EntryNumber, EntryNumbers, RecordNumber, RecordNumbers
from deltaimg.model import MIB
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.keys import digest_of
from deltaimg.repo.objects import Objects
from deltaimg.repo.pack_writer import PackWriter, PlacedRecord
from deltaimg.repo.record_reader import ReadGroup, group_reads
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

_BATCH_BYTES = 256 * MIB

Damage = IntegrityError | ObjectNotFound


class RecordCopy(Struct, frozen=True):
    """A record as it lies in a pack, and what the index and the signature of another pack must say of it."""

    entry: EntryNumber
    offset: int
    """Of its header, in the pack that it was read from."""
    header: RecordHeader
    payload: memoryview
    digests: Digests
    """Of all its slots, those that it lacks included."""
    tables: RecordTables


def payload_bytes(entries: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return what each record takes in a pack, its part of the footer left out; `entries` are of `ENTRY`."""
    taken: npt.NDArray[np.int64] = entries["payload_bytes"].astype(np.int64) + RECORD_HEADER_BYTES
    return taken


def copy_records(
    repository: Repository,
    index: LoadedIndex,
    moved: EntryNumbers,
    writer: PackWriter,
    progress: Progress,
    on_damage: Callable[[str, Damage], None],
) -> None:
    """Copy records unchanged, pack after pack.

    Args:
        on_damage: called with each pack of which not all can be copied, and the reason; the others are copied.
    """
    with stage(progress, "repacking", int(payload_bytes(index.entries[moved]).sum())):
        for entries in split_entries(index, moved):
            table = SlotTable(repository, index)
            records = table.add_entries(entries)
            damaged: set[str] = set()

            def refuse(pack: str, error: Damage, damaged: set[str] = damaged) -> None:
                if pack not in damaged:
                    damaged.add(pack)
                    on_damage(pack, error)

            lost: list[Damage] = []
            table.load_digests(records, lambda error, lost=lost: lost.append(error))  # type: ignore[misc]
            for record in records[~table.is_loaded[records]].tolist():
                refuse(digest_of(table.pack_of(record)), lost[0])
            for group in group_reads(table, records):
                pack = digest_of(group.pack)
                if pack in damaged:
                    continue
                try:
                    for each in read_copies(repository.objects, table, group):
                        writer.add(each.header, bytes(each.payload), each.digests, each.tables)
                except (IntegrityError, ObjectNotFound) as error:
                    refuse(pack, error)
                progress.advance(group.end - group.offset)


def split_entries(index: LoadedIndex, entries: EntryNumbers, batch_bytes: int = _BATCH_BYTES) -> Iterator[EntryNumbers]:
    """Yield entries in order of pack and offset, some at a time: about `batch_bytes` of records, or one."""
    ordered = entries[np.lexsort((index.entries["offset"][entries], index.entries["pack"][entries]))]
    sizes = np.cumsum(payload_bytes(index.entries[ordered]))
    first = 0
    while first < len(ordered):
        done = int(sizes[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(sizes, done + batch_bytes, side="right")))
        yield EntryNumbers(ordered[first:last])
        first = last


def read_copies(objects: Objects, table: SlotTable, group: ReadGroup, *, keeps_seals: bool = True) -> list[RecordCopy]:
    """Return the records of a group, read again, from the store itself, before one of them counts as damaged.

    Args: as `take_copies` takes them.

    Raises:
        StoreError; IntegrityError as of `take_copies`.
    """
    place = group.pack, group.offset, group.end - group.offset
    try:
        return take_copies(objects, table, group, memoryview(objects.get_range(*place)), keeps_seals=keeps_seals)
    except IntegrityError:
        again = memoryview(objects.reread_range(*place))
    return take_copies(objects, table, group, again, keeps_seals=keeps_seals)


def take_copies(
    objects: Objects, table: SlotTable, group: ReadGroup, fetched: memoryview, *, keeps_seals: bool = True
) -> list[RecordCopy]:
    """Return the records of a group, whose digests must be loaded, verified.

    Args:
        objects: of the repository that they are in.
        fetched: the bytes of the group, of which payloads are views.
        keeps_seals: return records that are sealed as they are stored; without their seals otherwise.

    Raises:
        IntegrityError: one of them is damaged, or is not what the index says.
    """
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
        opened = objects.open_record(group.pack, offset, header, payload)
        tables, _ = parse_tables(group.pack, offset, header, opened)
        if build_tables(tables) != _expected_tables(index, number, tables):
            raise Malformed(group.pack, offset, "the record here has other slots or sources than the index says")
        first = int(table.first_slots[record])
        digests = table.digests[first : first + header.slots].copy()
        if header.is_sealed and not keeps_seals:
            header, payload = bare_header(header, opened), opened
        copies.append(RecordCopy(EntryNumber(number), offset, header, payload, digests, _detach(tables)))
    return copies


def describe_records(table: SlotTable, records: RecordNumbers) -> list[PlacedRecord]:
    """Return what index and signature say of records, whose digests must be loaded, in order of offset; no pack is read.

    Header and tables lack what no index has: the digest of the payload, and the digests of slots that a cut record lacks.
    """
    described = []
    rows, present = table.index_rows(records), table.count_present(records)
    for place in np.argsort(rows["offset"], kind="stable").tolist():
        record, row = RecordNumber(int(records[place])), rows[place]
        slots, first = int(row["slots"]), int(table.first_slots[record])
        source_count, source_table = table.describe_sources(record)
        header = RecordHeader(
            row["id"].tobytes(),
            int(row["encoding"]),
            slots,
            int(row["block_shift"]),
            int(row["payload_bytes"]),
            b"",
            source_count,
            slots - int(present[place]),
        )
        runs = table.find_present(record)
        cut = None if runs is None else CutTable(runs, np.empty((0, DIGEST_BYTES), np.uint8))
        sources = None
        if source_count:
            block_bytes = 1 << header.block_shift
            sources, _ = parse_sources("the index", 0, memoryview(source_table), source_count, block_bytes)
        digests = table.digests[first : first + slots].copy()
        described.append(PlacedRecord(int(row["offset"]), header, digests, RecordTables(cut, sources)))
    return described


def _detach(tables: RecordTables) -> RecordTables:
    """Return tables without views of the bytes that they were read from: they are kept until a pack of others is indexed."""
    cut, sources = tables.cut, tables.sources
    return RecordTables(
        cut and CutTable(cut.runs.copy(), cut.absent_digests.copy()),
        sources and SourceTable(sources.ids.copy(), sources.run_counts.copy(), sources.runs.copy()),
    )


def _expected_tables(index: LoadedIndex, entry: int, found: RecordTables) -> bytes:
    """Return the tables that a record must begin with according to the index, with the digests that only the record has."""
    cut, entries = b"", np.array([entry])
    if index.cuts.is_cut(EntryNumbers(entries))[0]:
        runs, _ = index.cuts.runs_of(EntryNumbers(entries))
        digests = found.cut.absent_digests if found.cut is not None else np.empty((0, DIGEST_BYTES), np.uint8)
        cut = build_tables(RecordTables(CutTable(runs, digests)))
    return cut + index.links.table_of(EntryNumber(entry))
