# SPDX-License-Identifier: Apache-2.0
"""Copy records: whole packs under their names, others gathered into new packs. None is decoded.

Between repositories that do not seal alike all records are gathered, opened and sealed again.

Always  all that is copied is verified as it is read. What cannot be read is noted, record by record, and the rest is copied.
Memory  three packs, and the digests of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deltaimg.arrays import group_by
from deltaimg.engine.progress import Progress
from deltaimg.engine.record_copies import RecordCopy, describe_records, read_copies, split_entries, take_copies
from deltaimg.engine.sync.losses import LOSSES, LostRecords, note_loss
from deltaimg.engine.sync.pack_jobs import RemotePacks
from deltaimg.engine.sync.packs import PackChoice, WantedPack, choose_packs
from deltaimg.engine.sync.plan import Destination, Source
from deltaimg.errors import DeltaimgError
from deltaimg.format.pack import pack_name
from deltaimg.ids import EntryNumbers, RecordNumbers
from deltaimg.repo.pack_writer import PackWriter, PlacedRecord
from deltaimg.repo.record_reader import ReadGroup, group_reads
from deltaimg.repo.slots import SlotTable


class RecordCopier:
    """Copies records of the source to a writer of the destination."""

    def __init__(
        self,
        source: Source,
        destination: Destination,
        writer: PackWriter,
        lost: LostRecords,
        progress: Progress,
        remote: RemotePacks | None = None,
    ) -> None:
        """Args: remote: copies whole packs elsewhere; this process does, if not given."""
        self._source, self._destination, self._writer = source, destination, writer
        self._lost, self._progress, self._remote = lost, progress, remote
        self._reported_bytes = writer.stored_bytes
        self._sent: set[str] = set()
        """Packs that were copied elsewhere, by digest."""
        self.arrived_bytes = 0
        """Records that lay in packs of the destination already, and were only indexed."""

    def copy(self, wanted: EntryNumbers) -> None:
        """Hand records to the writer; those that cannot be read are noted as lost."""
        index = self._source.content.index
        packs = {each.name: each for each in self._choose_packs(wanted)}
        if self._remote is not None:
            self._copy_remotely(self._remote, [each for each in packs.values() if each.choice is PackChoice.WHOLE])
        for entries in split_entries(index, wanted):
            table = SlotTable(self._source.repository, index)
            for records in self._load_digests(table, entries):
                self._copy_pack(
                    table, records, packs[index.packs[int(index.entries["pack"][table.entries[records[0]]])]]
                )
                self.report()

    def _choose_packs(self, wanted: EntryNumbers) -> Iterator[WantedPack]:
        there = self._destination
        return choose_packs(
            self._source.content, there.content, there.content.pack_bytes, wanted, is_alike=there.is_alike
        )

    def report(self) -> None:
        """Report what was stored since the last time as progress."""
        stored_bytes = self._writer.stored_bytes
        self._progress.advance(stored_bytes - self._reported_bytes)
        self._reported_bytes = stored_bytes

    def _copy_remotely(self, remote: RemotePacks, wanted: list[WantedPack]) -> None:
        """Have whole packs copied; one that the source cannot give whole is left to be read here, record by record."""
        stored = self._destination.content.pack_bytes
        for each, copied in zip(wanted, remote.copy([each.name for each in wanted]), strict=True):
            if copied.error is not None:
                note_loss(self._source.repository, copied.error)
                continue
            self._writer.note_sent(each.name, copied.size_bytes)
            stored[each.name] = copied.size_bytes
            self._sent.add(each.name)
            self.report()

    def _load_digests(self, table: SlotTable, entries: EntryNumbers) -> list[RecordNumbers]:
        """Return the records of each pack whose digests could be loaded, pack after pack."""
        records = table.add_entries(entries)
        errors: list[DeltaimgError] = []
        table.load_digests(records, errors.append)
        unsigned = records[~table.is_loaded[records]]
        if len(unsigned):
            self._lost.add(table.entries[unsigned], errors[0])
        signed = records[table.is_loaded[records]]
        packs = table.index.entries["pack"][table.entries[signed]]
        return [RecordNumbers(signed[places]) for _, places in group_by(packs)]

    def _copy_pack(self, table: SlotTable, records: RecordNumbers, wanted: WantedPack) -> None:
        stored = self._destination.content.pack_bytes
        is_present = wanted.choice is PackChoice.PRESENT or (
            wanted.choice is PackChoice.WHOLE and wanted.name in stored
        )
        if wanted.choice is PackChoice.WHOLE and not is_present:
            data = self._read_whole(wanted.name)
            if data is not None:
                group = ReadGroup(pack_name(wanted.name), 0, len(data), records)
                copies = self._take(table, group, memoryview(data))
                if copies:
                    self._writer.add_pack(wanted.name, data, _place(copies))
                    stored[wanted.name] = len(data)
                return
        if wanted.name in self._sent:
            self._writer.add_pack(wanted.name, None, describe_records(table, records))
            return
        copies = [copy for group in group_reads(table, records) for copy in self._read(table, group)]
        if is_present and copies:
            self._writer.add_pack(wanted.name, None, _place(copies))
            self.arrived_bytes += sum(len(each.payload) for each in copies)
        elif not is_present:
            # Views keep all that was read; new memory costs more than sealing what is copied into it.
            is_dense = 2 * wanted.sent_bytes >= self._source.content.pack_bytes[wanted.name]
            for each in copies:
                payload = each.payload if is_dense else bytes(each.payload)
                self._writer.add(each.header, payload, each.digests, each.tables)

    def _read_whole(self, name: str) -> bytes | None:
        """Return a pack whose bytes are those that its name says; None where they are not, or cannot be read."""
        try:
            return self._source.repository.objects.get_verified(pack_name(name))
        except LOSSES as error:
            note_loss(self._source.repository, error)
            return None

    def _read(self, table: SlotTable, group: ReadGroup) -> list[RecordCopy]:
        """Return the records of a group; one that cannot be read is noted, and the others are returned."""
        objects = self._source.repository.objects
        try:
            return read_copies(objects, table, group, keeps_seals=self._destination.is_alike)
        except LOSSES as error:
            if len(group.records) == 1:
                self._lost.add(table.entries[group.records], error)
                return []
        return [copy for each in group_alone(table, group) for copy in self._read(table, each)]

    def _take(self, table: SlotTable, group: ReadGroup, fetched: memoryview) -> list[RecordCopy]:
        """Return those records of a group that are whole."""
        try:
            return take_copies(
                self._source.repository.objects, table, group, fetched, keeps_seals=self._destination.is_alike
            )
        except LOSSES as error:
            if len(group.records) == 1:
                self._lost.add(table.entries[group.records], error)
                return []
        copies = []
        for record in group.records.tolist():
            alone = ReadGroup(group.pack, group.offset, group.end, RecordNumbers(np.array([record], np.int64)))
            copies += self._take(table, alone, fetched)
        return copies


def group_alone(table: SlotTable, group: ReadGroup) -> list[ReadGroup]:
    """Return a read for each record of a group."""
    records = [RecordNumbers(np.array([record], np.int64)) for record in group.records.tolist()]
    return [each for record in records for each in group_reads(table, record)]


def _place(copies: list[RecordCopy]) -> list[PlacedRecord]:
    return [PlacedRecord(each.offset, each.header, each.digests, each.tables) for each in copies]
