# SPDX-License-Identifier: Apache-2.0
"""`packs/<ab>/<digest>`: records one after another, then a footer that says where each begins.

    pack    := header record* footer trailer
    record  := see `format/record.py`
    footer  := entry_count times `FOOTER_ENTRY`
    trailer := u32 entry_count, u32 zero, 8 bytes magic

The header's body digest covers footer and trailer only: each record has digests of its own, and the pack's name is
the digest of all its bytes. A pack whose footer is lost is still read from front to back, header by header, without any key.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deltaimg.errors import DigestMismatch, Malformed, Truncated
from deltaimg.format.framing import HEADER_BYTES, Kind, build_header, digest_bytes, parse_header
from deltaimg.format.limits import find_record_problem
from deltaimg.format.record import (
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    RecordHeader,
    build_record_header,
    parse_record_header,
)

PACKS: Final = "packs/"

FOOTER_ENTRY: Final = np.dtype(
    [
        ("id", "u1", (16,)),
        ("offset", "<u4"),
        ("payload_bytes", "<u4"),
        ("slots", "<u2"),
        ("encoding", "u1"),
        ("block_shift", "u1"),
        ("absent", "<u2"),
        ("reserved", "<u2"),
    ]
)
TRAILER: Final = struct.Struct("<II8s")
TRAILER_MAGIC: Final = b"\x8bDIMGEND"


def pack_name(digest: str) -> str:
    """Return the object name of the pack with this digest; 256 folders keep each short."""
    return f"{PACKS}{digest[:2]}/{digest}"


def finish_pack(
    records: Sequence[tuple[RecordHeader, bytes | memoryview]],
) -> tuple[list[bytes | memoryview], npt.NDArray[Any]]:
    """Lay out records as a whole pack: the parts of its bytes, and the footer that says where each record begins."""
    footer = np.zeros(len(records), FOOTER_ENTRY)
    parts: list[bytes | memoryview] = [b""]
    offset = HEADER_BYTES
    for number, (header, payload) in enumerate(records):
        entry = footer[number]
        entry["id"] = np.frombuffer(header.id, np.uint8)
        entry["offset"], entry["payload_bytes"], entry["slots"] = offset, header.payload_bytes, header.slots
        entry["encoding"], entry["block_shift"], entry["absent"] = header.encoding, header.block_shift, header.absent
        parts += (build_record_header(header), payload)
        offset += RECORD_HEADER_BYTES + len(payload)
    tail = footer.tobytes() + TRAILER.pack(len(footer), 0, TRAILER_MAGIC)
    parts.append(tail)
    parts[0] = build_header(Kind.PACK, offset - HEADER_BYTES + len(tail), digest_bytes(tail))
    return parts, footer


def parse_pack_footer(name: str, data: bytes | memoryview) -> npt.NDArray[Any]:
    """Return the footer of the whole pack `data`; raises as `parse_pack_ends`."""
    return parse_pack_ends(name, data, data, len(data))


def count_tail_bytes(tail: bytes | memoryview) -> int:
    """Return how long footer and trailer claim to be together; `tail` ends where the pack does."""
    if len(tail) < TRAILER.size:
        return TRAILER.size
    count: int = TRAILER.unpack(tail[-TRAILER.size :])[0]
    return TRAILER.size + count * FOOTER_ENTRY.itemsize


def parse_pack_ends(name: str, head: bytes | memoryview, tail: bytes | memoryview, size_bytes: int) -> npt.NDArray[Any]:
    """Return the footer of a pack of `size_bytes`, of which only both ends were read.

    Every entry it returns lies between the pack's header and its footer, and after the entry before it.

    Args:
        head: begins with the pack's header. tail: its last bytes, `count_tail_bytes` of them unless that is absurd.

    Raises:
        IntegrityError, UnsupportedFormat: they are not the ends of a pack of this size.
    """
    header = parse_header(Kind.PACK, name, head)
    if size_bytes < HEADER_BYTES + header.body_bytes:
        raise Truncated(name, size_bytes, HEADER_BYTES + header.body_bytes, size_bytes)
    if size_bytes > HEADER_BYTES + header.body_bytes:
        raise Malformed(name, HEADER_BYTES + header.body_bytes, "bytes follow its end")
    trailer_offset = size_bytes - TRAILER.size
    if trailer_offset < HEADER_BYTES:
        raise Truncated(name, size_bytes, HEADER_BYTES + TRAILER.size, size_bytes)
    count, reserved, magic = TRAILER.unpack(tail[-TRAILER.size :])
    tail_bytes = count_tail_bytes(tail)
    footer_offset = size_bytes - tail_bytes
    if magic != TRAILER_MAGIC or reserved or footer_offset < HEADER_BYTES or tail_bytes > len(tail):
        raise Malformed(name, trailer_offset, "its trailer is damaged")
    found = digest_bytes(memoryview(tail)[-tail_bytes:])
    if found != header.body_digest:
        raise DigestMismatch(name, footer_offset, "its footer", header.body_digest, found)
    footer = np.frombuffer(tail, FOOTER_ENTRY, count, len(tail) - tail_bytes)
    ends = footer["offset"].astype(np.uint64) + footer["payload_bytes"] + RECORD_HEADER_BYTES
    if count and (int(footer["offset"].min()) < HEADER_BYTES or int(ends.max()) > footer_offset):
        raise Malformed(name, footer_offset, "its footer names records outside it")
    if bool(np.any(footer["offset"][1:] < ends[:-1])):
        raise Malformed(name, footer_offset, "its footer names records that overlap or are out of order")
    if footer["reserved"].any():
        raise Malformed(name, footer_offset, "reserved bytes of its footer are not zero")
    if problem := find_record_problem(footer):
        raise Malformed(name, footer_offset, problem)
    if bool(np.any(footer["absent"] >= footer["slots"])):
        raise Malformed(name, footer_offset, "its footer names a record without slots that are there")
    return footer


def scan_records(name: str, data: bytes | memoryview) -> Iterator[tuple[int, RecordHeader]]:
    """Yield the offset and header of each record of a pack, front to back, without its footer.

    Stops where no record begins; raises as `parse_record_header` for a record that begins and is damaged.
    """
    offset = HEADER_BYTES
    view = memoryview(data)
    while bytes(view[offset : offset + 4]) == RECORD_MAGIC:
        header = parse_record_header(name, offset, view[offset:])
        if offset + RECORD_HEADER_BYTES + header.payload_bytes > len(view):
            raise Truncated(name, offset, RECORD_HEADER_BYTES + header.payload_bytes, len(view) - offset)
        yield offset, header
        offset += RECORD_HEADER_BYTES + header.payload_bytes
