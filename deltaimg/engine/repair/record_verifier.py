# SPDX-License-Identifier: Apache-2.0
"""Records read directly from packs: found by their headers, expanded without a signature, verified by their ids.

A record's id is the keyed digest of the digests of its blocks. So a record that is expanded and digested is verified
without index or signature.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.delta.registry import find_delta_decoder
from deltaimg.engine.content.record_cache import RecordCache
from deltaimg.errors import DigestMismatch, IntegrityError, UnsupportedFormat
from deltaimg.format.cut_entries import list_cuts
from deltaimg.format.index import ENTRY, IndexObject, link_sources
from deltaimg.format.pack import parse_pack_footer, scan_records
from deltaimg.format.record import (
    RECORD_HEADER_BYTES,
    RecordHeader,
    RecordTables,
    check_payload,
    parse_record_header,
    parse_tables,
)
from deltaimg.ids import EntryNumbers, RecordNumber
from deltaimg.kernels import digest_blocks, digest_buffer
from deltaimg.model import MIB
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.objects import Objects
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

_CACHE_BYTES = 64 * MIB
_MAX_RECORDS = 4096


class PackRecord(Struct, frozen=True):
    """A record whose header and payload match their digests."""

    offset: int
    header: RecordHeader
    tables: RecordTables
    payload: memoryview


def read_record(objects: Objects, name: str, offset: int, data: memoryview) -> PackRecord:
    """Return the record at `offset` of a pack, of which `data` is all; raises IntegrityError or UnsupportedFormat."""
    header = parse_record_header(name, offset, data[offset:])
    payload = data[offset + RECORD_HEADER_BYTES :][: header.payload_bytes]
    check_payload(name, offset, header, payload)
    tables, _ = parse_tables(name, offset, header, objects.open_record(name, offset, header, payload))
    return PackRecord(offset, header, tables, payload)


def find_records(objects: Objects, name: str, data: bytes) -> Iterator[PackRecord]:
    """Yield the good records of a pack: by its footer, or header by header, as far as possible, if the footer is damaged."""
    view = memoryview(data)
    offsets: list[int] = []
    try:
        offsets = parse_pack_footer(name, data)["offset"].tolist()
    except (IntegrityError, UnsupportedFormat):
        with suppress(IntegrityError, UnsupportedFormat):
            for offset, _ in scan_records(name, data):
                offsets.append(offset)
    for offset in offsets:
        with suppress(IntegrityError, UnsupportedFormat):
            yield read_record(objects, name, offset, view)


def index_records(pack: str, records: list[PackRecord]) -> IndexObject:
    """Return an index object of a pack's records, without digests: the signature that it names does not exist."""
    entries = np.zeros(len(records), ENTRY)
    for entry, record in zip(entries, records, strict=True):
        header = record.header
        entry["id"] = np.frombuffer(header.id, np.uint8)
        entry["offset"], entry["payload_bytes"], entry["slots"] = record.offset, header.payload_bytes, header.slots
        entry["encoding"], entry["block_shift"] = header.encoding, header.block_shift
    links = link_sources([record.tables.sources for record in records])
    cuts = list_cuts([record.tables.cut for record in records])
    return IndexObject(0, (pack,), ("0" * 64,), entries, links, cuts)


class ExpandedRecord(Struct, frozen=True):
    """A record's content, and the digests of all its slots."""

    content: memoryview
    """Of all slots; zeroes for those that are absent."""
    digests: Digests
    kept: npt.NDArray[np.int64] | None
    """The slots that a cut record has, ascending; None for a whole one."""


class RecordVerifier:
    """Expands records of an index and computes their digests."""

    def __init__(self, repository: Repository, index: LoadedIndex) -> None:
        self.index = index
        self._repository, self._keys = repository, repository.keys
        self._begin()

    def _begin(self) -> None:
        """Start with an empty slot table: adding a record to a large one copies the whole table."""
        self._table = SlotTable(self._repository, self.index)
        self._reader = RecordReader(self._repository, self._table, find_delta_decoder)
        self._caches: dict[int, RecordCache] = {}

    def expand(self, record_id: bytes) -> ExpandedRecord:
        """Return the content of a record and its digests, verified by its id.

        Raises:
            StoreError, IntegrityError, UnsupportedFormat: it is in no pack, cannot be expanded, or does not match its id.
        """
        entry = int(self.index.find(np.frombuffer(record_id, np.uint8).reshape(1, DIGEST_BYTES))[0])
        if entry < 0:
            raise IntegrityError(record_id.hex(), 0, "is in no pack")
        if self._table.record_count > _MAX_RECORDS:
            self._begin()
        block_bytes = 1 << int(self.index.entries["block_shift"][entry])
        record = self._table.add_entries(EntryNumbers(np.array([entry])))
        self._table.add_sources(record)
        if block_bytes not in self._caches:
            self._caches[block_bytes] = RecordCache(self._reader, self._table, block_bytes, _CACHE_BYTES)
        content = self._caches[block_bytes].get(RecordNumber(int(record[0])))
        digests = digest_blocks(self._keys.block, content, block_bytes)
        cut = self._reader.read_cut(RecordNumber(int(record[0])))
        if cut is not None:
            digests[np.delete(np.arange(len(digests)), cut.kept)] = cut.absent_digests
        found = digest_buffer(digests.data, self._keys.record, DIGEST_BYTES)
        if found != record_id:
            raise DigestMismatch(self._table.pack_of(RecordNumber(int(record[0]))), 0, "a record", record_id, found)
        return ExpandedRecord(content, digests, None if cut is None else cut.kept)
