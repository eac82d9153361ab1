# SPDX-License-Identifier: Apache-2.0
"""`index/<digest>`: where each record lies, and where its digests lie. Rebuildable by scanning packs.

body       := head packs signatures entries
head       := u64 created_us, u32 pack_count, u32 signature_count, u32 entry_count, u32 zero
packs      := pack_count times the 32-byte digest that names a pack
signatures := signature_count times the 32-byte digest that names a signature
entries    := entry_count times `ENTRY`
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deltaimg.format.framing import HEADER_BYTES, BodyReader, Kind, frame, unframe
from deltaimg.format.limits import find_record_problem

INDEXES: Final = "index/"
HEAD: Final = struct.Struct("<QIIII")
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


@dataclass(frozen=True, slots=True)
class IndexObject:
    """What an index object says."""

    created_us: int
    packs: tuple[str, ...]
    signatures: tuple[str, ...]
    entries: npt.NDArray[Any]


def build_index(content: IndexObject) -> bytes:
    """Return an index object."""
    head = HEAD.pack(content.created_us, len(content.packs), len(content.signatures), len(content.entries), 0)
    names = b"".join(bytes.fromhex(name) for name in content.packs + content.signatures)
    return frame(Kind.INDEX, head + names + content.entries.tobytes())


def parse_index(data: bytes, name: str) -> IndexObject:
    """Read the index at object `name`; raises IntegrityError or UnsupportedFormat."""
    reader = BodyReader(name, unframe(Kind.INDEX, name, data))
    created_us, pack_count, signature_count, entry_count, reserved = reader.take_struct(HEAD)
    if reserved:
        reader.refuse("reserved bytes are not zero")
    packs = tuple(bytes(reader.take(32)).hex() for _ in range(min(pack_count, len(data) // 32 + 1)))
    signatures = tuple(bytes(reader.take(32)).hex() for _ in range(min(signature_count, len(data) // 32 + 1)))
    entries = np.frombuffer(reader.take(ENTRY.itemsize * entry_count), ENTRY)
    reader.expect_end()
    if entry_count:
        if int(entries["pack"].max()) >= pack_count or int(entries["signature"].max()) >= signature_count:
            reader.refuse("an entry names a pack or signature that is not listed")
        if int(entries["offset"].min()) < HEADER_BYTES:
            reader.refuse("an entry lies in the header of its pack")
    if problem := find_record_problem(entries):
        reader.refuse(problem)
    return IndexObject(created_us, packs, signatures, entries)
