# SPDX-License-Identifier: Apache-2.0
"""`signatures/<digest>`: the digest of every slot of some records.

Digests are kept once, with the record that holds the content, and not once more for each snapshot that refers to it: fifty
guests from one template share one set of digests. A snapshot's own signature follows from its map.

    body    := head ids slots digests
    head    := u32 record_count, u32 slot_count, u64 zero
    ids     := record_count times a 16-byte record id
    slots   := record_count times u16
    digests := slot_count times 16 bytes, record after record
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.format.framing import BodyReader, Kind, frame, unframe
from deltaimg.format.limits import find_slots_problem
from deltaimg.memory import check_room

SIGNATURES: Final = "signatures/"
HEAD: Final = struct.Struct("<IIQ")
_SLOT_MEMORY_BYTES: Final = 48
"""What a digest takes at most, in any verb: where it was read, with its place, and where it is put."""


class SignatureObject(Struct, frozen=True):
    """Records and the digests of their slots, in order."""

    record_ids: Digests
    record_slots: npt.NDArray[np.uint16]
    digests: Digests


def build_signature(content: SignatureObject) -> bytes:
    """Return a signature object."""
    head = HEAD.pack(len(content.record_ids), len(content.digests), 0)
    slots = content.record_slots.astype("<u2").tobytes()
    return frame(Kind.SIGNATURE, b"".join((head, content.record_ids.tobytes(), slots, content.digests.tobytes())))


def parse_signature(data: bytes, name: str) -> SignatureObject:
    """Read the signature at object `name`; raises IntegrityError, UnsupportedFormat or MemoryLimitReached.

    That the digests are those of the records is not known here: a record's id is the keyed digest of its digests.
    """
    reader = BodyReader(name, unframe(Kind.SIGNATURE, name, data))
    record_count, slot_count, reserved = reader.take_struct(HEAD)
    if reserved:
        reader.refuse("reserved bytes are not zero")
    ids = np.frombuffer(reader.take(DIGEST_BYTES * record_count), np.uint8).reshape(record_count, DIGEST_BYTES)
    slots = np.frombuffer(reader.take(2 * record_count), "<u2")
    if problem := find_slots_problem(slots):
        reader.refuse(problem)
    if int(slots.sum(dtype=np.uint64)) != slot_count:
        reader.refuse(f"its records have {int(slots.sum(dtype=np.uint64))} slots, not {slot_count}")
    digests = np.frombuffer(reader.take(DIGEST_BYTES * slot_count), np.uint8).reshape(slot_count, DIGEST_BYTES)
    reader.expect_end()
    check_room(name, slot_count * _SLOT_MEMORY_BYTES)
    return SignatureObject(ids, slots, digests)
