# SPDX-License-Identifier: Apache-2.0
"""From packs to the content of records: which ranges to read, how to expand them, and how their bytes are verified.

Every block is verified by its digest, and the digests by the record's id. Where digests were not loaded, for records that
are only sources of others, the payload's digest is compared; what is decoded against them is then verified by digests. A
backup, which encodes against them, verifies them by their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES
from deltaimg.codec.none import NoneCodec
from deltaimg.codec.registry import find_decoder
from deltaimg.errors import DigestMismatch, IntegrityError, Malformed, StoreError, Truncated, UnsupportedFormat
from deltaimg.format.limits import MAX_RECORD_BYTES
from deltaimg.format.pack import pack_name
from deltaimg.format.record import (
    RECORD_HEADER_BYTES,
    CutTable,
    RecordHeader,
    check_payload,
    parse_cut,
    parse_record_header,
)
from deltaimg.format.sources import parse_sources
from deltaimg.ids import RecordNumber, RecordNumbers
from deltaimg.kernels import digest_blocks, digest_buffer, is_equal
from deltaimg.model import KIB, MIB
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable
from deltaimg.store.retry import retry
from deltaimg.threads import ThreadBuffer

READ_BYTES = 2 * MIB
_MAX_GAP_BYTES = 64 * KIB
"""Reading over a gap of this size is cheaper than another request."""


class ReadGroup(Struct, frozen=True):
    """Records that one request brings: bytes [offset, end) of a pack."""

    pack: str
    offset: int
    end: int
    records: RecordNumbers


def group_reads(table: SlotTable, records: RecordNumbers) -> Iterator[ReadGroup]:
    """Yield requests that bring all of `records`, in order of pack and offset."""
    entries = table.index_rows(records)
    order = np.lexsort((entries["offset"], entries["pack"]))
    entries, records = entries[order], records[order]
    starts = entries["offset"].astype(np.int64)
    ends = starts + entries["payload_bytes"] + RECORD_HEADER_BYTES
    packs = entries["pack"]
    first = 0
    for number in range(1, len(records) + 1):
        if number < len(records):
            is_near = packs[number] == packs[first] and starts[number] - ends[number - 1] <= _MAX_GAP_BYTES
            if is_near and ends[number] - starts[first] <= READ_BYTES:
                continue
        pack = pack_name(table.index.packs[packs[first]])
        yield ReadGroup(pack, int(starts[first]), int(ends[number - 1]), records[first:number])
        first = number


class DeltaDecoder(Protocol):
    """Decodes a delta record."""

    def decode(
        self, payload: memoryview, sources: memoryview, raw_bytes: int, scratch: memoryview | None = None
    ) -> memoryview:
        """Return exactly `raw_bytes` bytes, which may lie in `scratch`; raises ValueError for anything else."""
        ...


class RecordReader:
    """Expands and verifies records; any number of threads may use one."""

    def __init__(
        self,
        repository: Repository,
        table: SlotTable,
        find_delta_decoder: Callable[[int], DeltaDecoder | None],
        *,
        verifies_ids: bool = False,
    ) -> None:
        """Args: verifies_ids: records whose digests were not loaded are verified, too: for what deltas are encoded against."""
        self._repository = repository
        self._table = table
        self._find_delta_decoder, self._verifies_ids = find_delta_decoder, verifies_ids
        self._opened = ThreadBuffer()

    @property
    def parallel_requests(self) -> int:
        """How many fetches at once are of use; 1 where the store is on this host."""
        return self._repository.objects.properties.parallel_requests

    def fetch(self, group: ReadGroup) -> memoryview:
        """Return the bytes of a group, fewer only where the pack is truncated; raises StoreError, that of a second try."""
        return self._fetch(self._repository.objects.get_range, group)

    def _fetch(self, read: Callable[[str, int, int], bytes], group: ReadGroup) -> memoryview:
        return memoryview(retry(lambda: read(group.pack, group.offset, group.end - group.offset)))

    def expand(
        self,
        record: RecordNumber,
        group: ReadGroup,
        fetched: memoryview,
        gather: Callable[[RecordNumber], memoryview],
        scratch: memoryview | None = None,
    ) -> memoryview:
        """Return the content of one record of a fetched group, each block of it verified; zeroes for slots that it lacks.

        What looks damaged is read again, from the store itself: a read may have failed without an error.

        Args:
            gather: returns the blocks of `SlotTable.source_slots` of a record; called only for a delta record.
            scratch: memory for MAX_RECORD_BYTES, in which the result may lie; without it the result has its own.

        Raises:
            IntegrityError: it is not, naming the pack and the place.
        """
        try:
            return self._expand_fetched(record, group, fetched, gather, scratch)
        except IntegrityError as error:
            try:
                again = self._fetch(self._repository.objects.reread_range, group)
            except StoreError:
                raise error from None
            if again == fetched:
                raise
        return self._expand_fetched(record, group, again, gather, scratch)

    def _expand_fetched(
        self,
        record: RecordNumber,
        group: ReadGroup,
        fetched: memoryview,
        gather: Callable[[RecordNumber], memoryview],
        scratch: memoryview | None,
    ) -> memoryview:
        entry = self._table.index_rows(RecordNumbers(np.array([record])))[0]
        offset = int(entry["offset"])
        data = fetched[offset - group.offset :][: RECORD_HEADER_BYTES + int(entry["payload_bytes"])]
        header = parse_record_header(group.pack, offset, data)
        if (
            header.id != entry["id"].tobytes()
            or header.payload_bytes != entry["payload_bytes"]
            or header.slots != entry["slots"]
        ):
            raise Malformed(group.pack, offset, "the record here is not the one that the index names")
        if len(data) < RECORD_HEADER_BYTES + header.payload_bytes:
            raise Truncated(group.pack, offset, RECORD_HEADER_BYTES + header.payload_bytes, len(data))
        assert header.raw_bytes <= MAX_RECORD_BYTES
        payload = data[RECORD_HEADER_BYTES:]
        is_verified = bool(self._table.is_loaded[record])
        if not is_verified:
            check_payload(group.pack, offset, header, payload)
        payload = self._repository.objects.open_record(
            group.pack, offset, header, payload, self._find_room(header, scratch)
        )
        cut, payload = self._take_cut(record, group.pack, offset, header, payload)
        kept = None if cut is None else cut.kept
        try:
            if header.sources:
                content = self._apply(record, group.pack, offset, header, payload, gather, scratch)
            else:
                content = self._expand(group.pack, offset, header, payload, scratch)
        except ValueError as error:
            raise IntegrityError(group.pack, offset, f"the record here {error}") from error
        if is_verified:
            self._prove(record, group.pack, offset, content, kept, 1 << header.block_shift)
        elif self._verifies_ids:
            self._prove_id(group.pack, offset, header, content, cut)
        return content if kept is None else _spread(content, kept, header)

    def _find_room(self, header: RecordHeader, scratch: memoryview | None) -> memoryview | None:
        """Return where a payload is opened: new memory costs several times what AES-GCM does."""
        if header.sources or not header.is_sealed:
            return None  # what a delta is decoded against may be opened meanwhile
        if header.encoding == NoneCodec.encoding_id:
            return scratch  # it is the content
        return self._opened.get(MAX_RECORD_BYTES)

    def _take_cut(
        self, record: RecordNumber, pack: str, offset: int, header: RecordHeader, payload: memoryview
    ) -> tuple[CutTable | None, memoryview]:
        """Return the table of a cut record, None for a whole one, and what follows it; the index must agree."""
        present = self._table.find_present(record)
        if not header.absent and present is None:
            return None, payload
        if header.absent and present is not None:
            cut, payload = parse_cut(pack, offset, header, payload)
            if np.array_equal(cut.runs, present):
                return cut, payload
        raise Malformed(pack, offset, "the record here has other slots than the index says")

    def _expand(
        self, pack: str, offset: int, header: RecordHeader, payload: memoryview, scratch: memoryview | None
    ) -> memoryview:
        decoder = find_decoder(header.encoding)
        if decoder is None:
            raise UnsupportedFormat(pack, f"the record at byte {offset} has encoding {header.encoding}")
        return decoder.decode(payload, header.kept_bytes, scratch)

    def _apply(
        self,
        record: RecordNumber,
        pack: str,
        offset: int,
        header: RecordHeader,
        payload: memoryview,
        gather: Callable[[RecordNumber], memoryview],
        scratch: memoryview | None,
    ) -> memoryview:
        """Decode a delta record; its table of sources must match the index, on which the plan is based."""
        decoder = self._find_delta_decoder(header.encoding)
        if decoder is None:
            raise UnsupportedFormat(pack, f"the record at byte {offset} has delta encoding {header.encoding}")
        source_count, expected = self._table.describe_sources(record)
        if header.sources != source_count or payload[: len(expected)] != expected:
            parse_sources(pack, offset, payload, header.sources, 1 << header.block_shift)
            raise Malformed(pack, offset, "the record here has other sources than the index says")
        return decoder.decode(payload[len(expected) :], gather(record), header.kept_bytes, scratch)

    def read_cut(self, record: RecordNumber) -> CutTable | None:
        """Return which slots a cut record has and the digests of the others, None for a whole one.

        Raises StoreError or IntegrityError.
        """
        if self._table.find_present(record) is None:
            return None
        group = next(group_reads(self._table, RecordNumbers(np.array([record], np.int64))))
        data = self.fetch(group)
        header = parse_record_header(group.pack, group.offset, data)
        payload = data[RECORD_HEADER_BYTES:][: header.payload_bytes]
        check_payload(group.pack, group.offset, header, payload)
        payload = self._repository.objects.open_record(group.pack, group.offset, header, payload)
        return parse_cut(group.pack, group.offset, header, payload)[0] if header.absent else None

    def _prove(
        self,
        record: RecordNumber,
        pack: str,
        offset: int,
        content: memoryview,
        kept: npt.NDArray[np.int64] | None,
        block_bytes: int,
    ) -> None:
        found = digest_blocks(self._repository.keys.block, content, block_bytes)
        first = int(self._table.first_slots[record])
        expected = (
            self._table.digests[first : first + len(found)] if kept is None else self._table.digests[first + kept]
        )
        if not is_equal(found.data, expected.data):
            block = int(np.argmax((found != expected).any(axis=1)))
            what = f"block {block if kept is None else kept[block]} of the record here"
            raise DigestMismatch(pack, offset, what, expected[block].tobytes(), found[block].tobytes())

    def _prove_id(
        self, pack: str, offset: int, header: RecordHeader, content: memoryview, cut: CutTable | None
    ) -> None:
        """Compare the digests of all slots of a record, those that it lacks from its table, with its id."""
        digests = digest_blocks(self._repository.keys.block, content, 1 << header.block_shift)
        if cut is not None:
            present, digests = digests, np.zeros((header.slots, DIGEST_BYTES), np.uint8)
            digests[cut.kept] = present
            digests[np.delete(np.arange(header.slots), cut.kept)] = cut.absent_digests
        found = digest_buffer(digests.data, self._repository.keys.record, DIGEST_BYTES)
        if found != header.id:
            raise DigestMismatch(pack, offset, "the content of the record here", header.id, found)


def _spread(content: memoryview, kept: npt.NDArray[np.int64], header: RecordHeader) -> memoryview:
    """Return the content of all slots: zeroes where a cut record has nothing."""
    block_bytes = 1 << header.block_shift
    blocks = np.zeros((header.slots, block_bytes), np.uint8)
    blocks[kept] = np.frombuffer(content, np.uint8).reshape(-1, block_bytes)
    return blocks.reshape(-1).data
