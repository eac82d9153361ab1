# SPDX-License-Identifier: Apache-2.0
"""A record as it lies in a pack: a header that describes itself, then the payload.

    record  := header payload
    payload := cut? sources? encoded
    cut     := the runs of slots that are there, as `slot_runs` codes them, a 16-byte digest for each absent slot

A record's id names all of its slots. A *cut* record lacks some of them, which nothing needed any more: its payload begins
with the runs of slots that are there and the digests of those that are not, so that its id can be verified without a signature.
What is encoded is then the blocks that are there, one after another.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests, expand_ranges
from deltaimg.errors import DigestMismatch, Malformed, Truncated, UnsupportedFormat
from deltaimg.format.framing import digest_bytes
from deltaimg.format.limits import (
    HOST_RECORD_SEAL_BYTES,
    MAX_BLOCK_SHIFT,
    MAX_RECORD_BYTES,
    MAX_SOURCE_RECORDS,
    MIN_BLOCK_SHIFT,
    RECORD_SEAL_BYTES,
)
from deltaimg.format.padding import MARK_BYTES
from deltaimg.format.slot_runs import SlotRuns, build_runs, find_runs_problem, parse_runs
from deltaimg.format.sources import SourceTable, build_sources, parse_sources

RECORD_HEADER: Final = struct.Struct("<4sBBHI16sIHBBHH16s8s")
RECORD_HEADER_BYTES: Final = RECORD_HEADER.size
RECORD_MAGIC: Final = b"\x8bREC"
AES_256_GCM: Final = 1
"""What `sealed` is in the header of a sealed record."""
AES_256_GCM_TO_READERS: Final = 2
"""What it is where a write-only host sealed the record."""
SEAL_BYTES: Final = {0: 0, AES_256_GCM: RECORD_SEAL_BYTES, AES_256_GCM_TO_READERS: HOST_RECORD_SEAL_BYTES}
"""By how much each seal makes a payload longer."""
_PADDED: Final = 1
"""What `flags` is in the header of a record whose payload was padded before it was sealed."""
_BOUND_BYTES: Final = 40
_DIGEST_OFFSET: Final = 56


class RecordHeader(Struct, frozen=True):
    """The fields of a record's header."""

    id: bytes
    encoding: int
    slots: int
    block_shift: int
    payload_bytes: int
    payload_digest: bytes
    sources: int = 0
    """How many source records the payload lists; 0 for a self-contained record."""
    absent: int = 0
    """How many of the slots are not there; 0 for a whole record."""
    sealed: int = 0
    """How the payload is sealed, 0 if it is not; lengths and digest are those of the sealed payload."""
    is_padded: bool = False
    """Whether it was padded before it was sealed."""

    @property
    def is_sealed(self) -> bool:
        """Whether the payload is sealed."""
        return self.sealed != 0

    @property
    def raw_bytes(self) -> int:
        """Size of the content of all slots."""
        return self.slots << self.block_shift

    @property
    def kept_bytes(self) -> int:
        """Size of the content of the slots that are there."""
        return (self.slots - self.absent) << self.block_shift


class CutTable(Struct, frozen=True):
    """Which slots of a cut record are there, and the digests of the others, ascending."""

    runs: SlotRuns
    absent_digests: Digests

    @property
    def kept(self) -> npt.NDArray[np.int64]:
        """The slots that are there, ascending."""
        return expand_ranges(self.runs["first_slot"], self.runs["count"])


class RecordTables(Struct, frozen=True):
    """What a payload begins with, before the encoded blocks."""

    cut: CutTable | None = None
    sources: SourceTable | None = None


WHOLE_LITERAL: Final = RecordTables()
"""The tables of a record that has all slots and is self-contained: none."""


def build_record_header(header: RecordHeader) -> bytes:
    """Return the 64-byte header of a record."""
    head = _pack_fields(header)
    return head + digest_bytes(head, length=8)


def _pack_fields(header: RecordHeader) -> bytes:
    """Return the header of a record without its own digest."""
    return RECORD_HEADER.pack(
        RECORD_MAGIC,
        header.encoding,
        header.sealed,
        RECORD_HEADER_BYTES,
        header.payload_bytes,
        header.id,
        header.sources,
        header.slots,
        header.block_shift,
        _PADDED if header.is_padded else 0,
        header.absent,
        0,
        header.payload_digest,
        bytes(8),
    )[:_DIGEST_OFFSET]


def parse_record_header(name: str, offset: int, data: bytes | memoryview) -> RecordHeader:
    """Read the record header that begins at `offset` of pack `name`; `data` starts there.

    Raises:
        Truncated, Malformed: not a whole record header.
        UnsupportedFormat: a record that is sealed by an unknown cipher, or has a longer header.
    """
    if len(data) < RECORD_HEADER_BYTES:
        raise Truncated(name, offset, RECORD_HEADER_BYTES, len(data))
    head = bytes(data[:RECORD_HEADER_BYTES])
    fields = RECORD_HEADER.unpack(head)
    magic, encoding, sealed, header_bytes, payload_bytes, record_id, sources = fields[:7]
    slots, shift, flags, absent, reserved, digest, header_digest = fields[7:]
    if magic != RECORD_MAGIC:
        raise Malformed(name, offset, "no record begins here")
    if digest_bytes(head[:_DIGEST_OFFSET], length=8) != header_digest:
        raise Malformed(name, offset, "a record header is damaged")
    if sealed not in SEAL_BYTES or flags & ~_PADDED or (flags and not sealed) or header_bytes != RECORD_HEADER_BYTES:
        raise UnsupportedFormat(name, f"the record at byte {offset} has a cipher or features unknown here")
    if (
        not MIN_BLOCK_SHIFT <= shift <= MAX_BLOCK_SHIFT
        or slots == 0
        or slots << shift > MAX_RECORD_BYTES
        or absent >= slots
        or reserved
    ):
        raise Malformed(name, offset, "a record header has absurd lengths")
    seal_bytes = SEAL_BYTES[sealed] + (MARK_BYTES if flags else 0)
    if payload_bytes > (slots << shift) + seal_bytes:
        raise Malformed(name, offset, "a record's payload is longer than its content")
    if payload_bytes < seal_bytes:
        raise Malformed(name, offset, "a sealed record's payload is shorter than a seal")
    if sources > MAX_SOURCE_RECORDS:
        raise Malformed(name, offset, f"a record has more than {MAX_SOURCE_RECORDS} source records")
    return RecordHeader(record_id, encoding, slots, shift, payload_bytes, digest, sources, absent, sealed, bool(flags))


def bound_record_fields(header: RecordHeader) -> bytes:
    """Return what the seal of a record authenticates of its header: all of it but the two digests."""
    return _pack_fields(header)[:_BOUND_BYTES]


def check_payload(name: str, offset: int, header: RecordHeader, payload: bytes | memoryview) -> None:
    """Compare a record's payload with its header; raises Truncated or DigestMismatch."""
    if len(payload) != header.payload_bytes:
        raise Truncated(name, offset, RECORD_HEADER_BYTES + header.payload_bytes, RECORD_HEADER_BYTES + len(payload))
    found = digest_bytes(payload)
    if found != header.payload_digest:
        raise DigestMismatch(name, offset, "the record here", header.payload_digest, found)


def build_tables(tables: RecordTables) -> bytes:
    """Return the tables before the encoded blocks."""
    cut = b""
    if tables.cut is not None:
        run_counts = np.array([len(tables.cut.runs)], np.uint16)
        cut = build_runs(run_counts, tables.cut.runs) + tables.cut.absent_digests.tobytes()
    return cut + (build_sources(tables.sources) if tables.sources is not None else b"")


def parse_tables(name: str, offset: int, header: RecordHeader, payload: memoryview) -> tuple[RecordTables, memoryview]:
    """Return the tables at the start of a record's payload, and the encoded blocks that follow them.

    Args:
        name, offset: the pack and the place of the record, for errors.

    Raises:
        Malformed: they are not what the header promises, or pass the payload.
    """
    cut, sources = None, None
    if header.absent:
        cut, payload = parse_cut(name, offset, header, payload)
    if header.sources:
        sources, payload = parse_sources(name, offset, payload, header.sources, 1 << header.block_shift)
    return RecordTables(cut, sources), payload


def parse_cut(name: str, offset: int, header: RecordHeader, payload: memoryview) -> tuple[CutTable, memoryview]:
    """Return the table that the payload of a cut record begins with, and what follows it; raises Malformed."""
    try:
        run_counts, runs, rest = parse_runs(payload, 1)
    except ValueError as error:
        raise Malformed(name, offset, f"of the cut record here {error}") from error
    if problem := find_runs_problem(run_counts, runs, are_apart=True):
        raise Malformed(name, offset, f"of the cut record here {problem}")
    digests_end = DIGEST_BYTES * header.absent
    if digests_end > len(rest):
        raise Malformed(name, offset, "the record here lacks more slots than there is room for")
    kept = int(runs["count"].sum(dtype=np.uint64))
    last = int(runs["first_slot"][-1]) + int(runs["count"][-1])
    if kept != header.slots - header.absent or last > header.slots:
        raise Malformed(name, offset, f"the record here has {kept} slots up to {last}, and its header says otherwise")
    digests = np.frombuffer(rest, np.uint8, digests_end).reshape(-1, DIGEST_BYTES)
    return CutTable(runs, digests), rest[digests_end:]
