# SPDX-License-Identifier: Apache-2.0
"""`keys/<id>`: the secret of an encrypted repository, wrapped with a passphrase or a key file; or that of a write-only host.

Written once.

Readable without a key, of course: what a passphrase is turned into a key with is in it. A store may send anything here, and
a reader refuses what would cost it more than a bounded time and memory.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, Literal

import msgspec

from deltaimg.errors import Malformed
from deltaimg.format.documents import build_document, find_note_problem, parse_document
from deltaimg.format.framing import HEADER_BYTES, Kind
from deltaimg.format.limits import (
    MAX_ARGON2_ITERATIONS,
    MAX_ARGON2_KIB,
    MAX_ARGON2_LANES,
    MAX_ARGON2_WORK_KIB,
    MAX_TAG_CHARACTERS,
)

KEYS: Final = "keys/"
PASSPHRASE: Final = "passphrase"  # noqa: S105  a type of slot
KEY_FILE: Final = "keyfile"
WRITE_ONLY: Final = "writeonly"
WRAPPED_BYTES: Final = {PASSPHRASE: 80, KEY_FILE: 80, WRITE_ONLY: 112}
"""The secret and a tag, by type."""
_TYPE_NUMBERS: Final = {PASSPHRASE: 1, KEY_FILE: 2, WRITE_ONLY: 3}
_BOUND: Final = struct.Struct("<16s8sB3xIII")
_BOUND_CONTEXT: Final = b"deltaimg 2026 key slot"


class KeySlot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One way to the secret of a repository."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    type: Literal["passphrase", "keyfile", "writeonly"]
    label: Annotated[str, msgspec.Meta(max_length=MAX_TAG_CHARACTERS)]
    """For people: whose key this is."""
    created: str
    salt: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    wrapped: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{160}([0-9a-f]{64})?\Z")]
    memory_kib: Annotated[int, msgspec.Meta(ge=0, le=MAX_ARGON2_KIB)] = 0
    iterations: Annotated[int, msgspec.Meta(ge=0, le=MAX_ARGON2_ITERATIONS)] = 0
    lanes: Annotated[int, msgspec.Meta(ge=0, le=MAX_ARGON2_LANES)] = 0

    @property
    def object_name(self) -> str:
        """Its name in the store."""
        return KEYS + self.id

    @property
    def host(self) -> bytes:
        """Its id as objects have it that a write-only host sealed."""
        return bytes.fromhex(self.id)

    @property
    def is_write_only(self) -> bool:
        """Whether it is of a host that only writes."""
        return self.type == WRITE_ONLY


def bound_slot_fields(slot: KeySlot, family_id: str) -> bytes:
    """Return what the wrapping of a slot authenticates besides: whose slot it is, and how the wrapping key is made.

    The family's id stands for the repository: `repair --from` may take a slot from another member.
    """
    fields = _BOUND.pack(
        bytes.fromhex(family_id),
        bytes.fromhex(slot.id),
        _TYPE_NUMBERS[slot.type],
        slot.memory_kib,
        slot.iterations,
        slot.lanes,
    )
    return _BOUND_CONTEXT + fields + f"{slot.label}\0{slot.created}".encode()


def find_label_problem(label: str) -> str | None:
    """Return why `label`, which may be empty, cannot be one, or None."""
    return find_note_problem(label, MAX_TAG_CHARACTERS)


def build_key_slot(slot: KeySlot) -> bytes:
    """Return a key slot object."""
    return build_document(Kind.KEY_SLOT, slot)


def parse_key_slot(data: bytes, name: str) -> KeySlot:
    """Read the key slot at object `name`; raises IntegrityError or UnsupportedFormat."""
    slot = parse_document(Kind.KEY_SLOT, name, data, KeySlot)
    if slot.object_name != name:
        raise Malformed(name, HEADER_BYTES, f"it belongs at {slot.object_name}")
    if len(slot.wrapped) != 2 * WRAPPED_BYTES[slot.type]:
        raise Malformed(name, HEADER_BYTES, "what it wraps has not the length of its type")
    has_costs = min(slot.memory_kib, slot.iterations, slot.lanes) > 0
    if has_costs != (slot.type == PASSPHRASE) or (not has_costs and slot.memory_kib + slot.iterations + slot.lanes):
        raise Malformed(name, HEADER_BYTES, "its parameters of argon2id are not those of its type")
    if slot.memory_kib * slot.iterations > MAX_ARGON2_WORK_KIB or slot.memory_kib < 8 * slot.lanes:
        raise Malformed(name, HEADER_BYTES, "its parameters of argon2id are absurd")
    return slot
