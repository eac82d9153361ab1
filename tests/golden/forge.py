# SPDX-License-Identifier: Apache-2.0
"""Make objects that lie and yet have every checksum right: past the checksums only the parser itself can refuse them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import zstandard

from deltaimg.format import index, parity, signature
from deltaimg.format import map as map_format
from deltaimg.format.framing import HEADER, HEADER_BYTES, VERSION, Kind, digest_bytes
from deltaimg.format.pack import FOOTER_ENTRY, TRAILER, TRAILER_MAGIC
from deltaimg.format.record import RECORD_HEADER, RECORD_HEADER_BYTES, RECORD_MAGIC

HEADER_FIELDS = (
    "magic", "version", "incompatible", "compatible", "reserved", "body_bytes", "body_digest", "salt",
)  # fmt: skip
RECORD_FIELDS = (
    "magic", "encoding", "sealed", "header_bytes", "payload_bytes", "id", "sources", "slots", "block_shift", "flags",
    "absent", "reserved", "payload_digest",
)  # fmt: skip


def forge_object(kind: Kind, body: bytes, **header: Any) -> bytes:
    """Return `body` under a header whose fields are right, but for those given, and whose checksums are."""
    fields = dict(
        zip(HEADER_FIELDS, (kind.value, VERSION, 0, 0, 0, len(body), digest_bytes(body), bytes(16)), strict=True)
    )
    packed = HEADER.pack(*(fields | header).values(), bytes(8))[:56]
    return packed + digest_bytes(packed, length=8) + body


def forge_from(data: bytes, **header: Any) -> bytes:
    """Return the object `data` with other header fields, the header's checksum made right again."""
    fields = dict(zip(HEADER_FIELDS, HEADER.unpack(data[:HEADER_BYTES])[:8], strict=True))
    packed = HEADER.pack(*(fields | header).values(), bytes(8))[:56]
    return packed + digest_bytes(packed, length=8) + data[HEADER_BYTES:]


def body_of(data: bytes) -> bytes:
    """Return what follows an object's header."""
    return data[HEADER_BYTES:]


def forge_record(payload: bytes = b"payload", **header: Any) -> bytes:
    """Return a record of one block of 4 KiB, or as given, with the checksum of its header right."""
    values = (
        RECORD_MAGIC, 0, 0, RECORD_HEADER_BYTES, len(payload), bytes(range(16)), 0, 1, 12, 0, 0, 0, digest_bytes(payload)
    )  # fmt: skip
    fields = dict(zip(RECORD_FIELDS, values, strict=True))
    packed = RECORD_HEADER.pack(*(fields | header).values(), bytes(8))[:56]
    return packed + digest_bytes(packed, length=8) + payload


def forge_footer(*entries: dict[str, int]) -> bytes:
    """Return footer entries of one block of 4 KiB each, or as given."""
    footer = np.zeros(len(entries), FOOTER_ENTRY)
    for number, entry in enumerate(entries):
        footer["slots"][number], footer["block_shift"][number] = 1, 12
        for field, value in entry.items():
            footer[field][number] = value
    return footer.tobytes()


def forge_pack(records: bytes, footer: bytes, trailer: bytes | None = None, **header: Any) -> bytes:
    """Return a pack whose footer is authentic, whatever it says."""
    if trailer is None:
        trailer = TRAILER.pack(len(footer) // FOOTER_ENTRY.itemsize, 0, TRAILER_MAGIC)
    tail = footer + trailer
    return forge_object(Kind.PACK, records + tail, **({"body_digest": digest_bytes(tail)} | header))


def forge_index(
    packs: int = 1, signatures: int = 1, entries: Sequence[dict[str, int]] = (), extra: bytes = b"", **head: int
) -> bytes:
    """Return an index whose head says what is there, but for the fields given."""
    rows = np.zeros(len(entries), index.ENTRY)
    for number, entry in enumerate(entries):
        rows["offset"][number], rows["slots"][number], rows["block_shift"][number] = HEADER_BYTES, 1, 12
        for field, value in entry.items():
            rows[field][number] = value
    fields = {
        "created_us": 0,
        "pack_count": packs,
        "signature_count": signatures,
        "entry_count": len(entries),
        "source_count": 0,
        "link_count": 0,
        "run_count": 0,
        "cut_count": 0,
        "cut_run_count": 0,
        "packed_bytes": 0,
        "zero": 0,
    }
    names = b"".join(bytes([number]) * 32 for number in range(packs + signatures))
    return forge_object(Kind.INDEX, index.HEAD.pack(*(fields | head).values()) + names + rows.tobytes() + extra)


def forge_signature(slots: Sequence[int] = (1,), digests: int | None = None, extra: bytes = b"", **head: int) -> bytes:
    """Return a signature of records with these numbers of slots."""
    count = sum(slots) if digests is None else digests
    fields = {"record_count": len(slots), "slot_count": sum(slots), "zero": 0} | head
    ids = b"".join(number.to_bytes(16, "little") for number in range(len(slots)))
    sizes = struct.pack(f"<{len(slots)}H", *slots)
    return forge_object(
        Kind.SIGNATURE, signature.HEAD.pack(*fields.values()) + ids + sizes + bytes(range(16)) * count + extra
    )


def forge_parity(
    sizes: Sequence[int] = (5000,),
    digests: int | None = None,
    *,
    names: Sequence[int] = (1, 2, 3),
    extra: bytes = b"",
    **head: int,
) -> bytes:
    """Return parity for packs of these sizes, with tables and twin that are authentic, whatever they say."""
    fields = {
        "pack_count": len(sizes),
        "shard_bytes": 4096,
        "stripe_count": 1,
        "data_columns": sum(-(-size // 4096) for size in sizes),
        "parity_columns": 1,
        "zero": 0,
    } | head
    planes = bytes(4096) * min(fields["stripe_count"] * fields["parity_columns"], 4)
    count = fields["data_columns"] + len(planes) // 4096 if digests is None else digests
    packs = b"".join(bytes([name]) * 32 + struct.pack("<Q", size) for name, size in zip(names, sizes, strict=False))
    tables = parity.HEAD.pack(*fields.values()) + packs + digest_bytes(bytes(4096)) * count + extra
    front = forge_object(Kind.PARITY, tables, body_bytes=0)
    trailer = parity.TRAILER.pack(len(front), 0, parity.TRAILER_MAGIC)
    length = len(tables) + len(planes) + len(front) + len(trailer)
    front = forge_object(Kind.PARITY, tables, body_bytes=length)
    return front + planes + front + trailer


def pad(packed: bytes, expanded_bytes: int) -> bytes:
    """Return packed columns with the zeros before them that make them a 64th of what they expand to."""
    return packed.rjust(-(-expanded_bytes // 64), b"\0")


def pack_planes(*columns: tuple[str, Sequence[int]]) -> bytes:
    """Return columns as byte planes, written down once more, apart from the writer under test."""
    planes = b""
    for kind, values in columns:
        width = struct.calcsize(f"<{kind}")
        rows = [struct.pack(f"<{kind}", value) for value in values]
        planes += b"".join(bytes(row[byte] for row in rows) for byte in range(width))
    return planes


def forge_map(
    runs: Sequence[tuple[int, int, int]] = (),
    steps: Sequence[int] = (),
    slots: Sequence[int] = (),
    *,
    packed: bytes | None = None,
    is_padded: bool = True,
    extra: bytes = b"",
    **head: int,
) -> bytes:
    """Return a map of `runs` (gap, count, kind), the slot steps of its data runs, and the slots of its records."""
    gaps, counts, kinds = zip(*runs, strict=True) if runs else ((), (), ())
    if packed is None:
        planes = pack_planes(("H", slots), ("Q", gaps), ("I", counts), ("B", kinds), ("I", steps))
        packed = zstandard.compress(planes)
        packed = pad(packed, len(planes)) if is_padded else packed
    fields = {
        "block_count": sum(gap + count for gap, count, _ in runs),
        "record_count": len(slots),
        "run_count": len(runs),
        "data_run_count": len(steps),
        "packed_bytes": len(packed),
    } | head
    ids = b"".join(number.to_bytes(16, "little") for number in range(len(slots)))
    return forge_object(Kind.MAP, map_format.HEAD.pack(*fields.values()) + ids + packed + extra)
