# SPDX-License-Identifier: Apache-2.0
"""How fuzzed bytes become sealed objects, sealed records and key slots, and what may come of opening them.

Whoever operates a store can make every digest right that has no key. So the digests of what is fuzzed are right, and what opens
all the same must be what was sealed: anything else is a defect.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from deltaimg.crypto.key_slots import KeyFile, unwrap_secret, wrap_secret
from deltaimg.crypto.sealer import HostSealer, Sealer, SecretSealer
from deltaimg.crypto.secret import Secret
from deltaimg.errors import DeltaimgError
from deltaimg.format.framing import HEADER_BYTES, Kind, digest_bytes, finish_header, frame
from deltaimg.format.key_slot import build_key_slot, parse_key_slot
from deltaimg.format.record import RECORD_HEADER_BYTES, RecordHeader, build_record_header, parse_record_header

SECRET = Secret.parse(bytes(range(64)))
HOST_SECRET = SECRET.make_host_secret(b"\xee" * 8)
FAMILY_ID = "00112233445566778899aabbccddeeff"
KEY = KeyFile(b"\x42" * 32)
SEALERS: tuple[Sealer, ...] = (SecretSealer(SECRET), HostSealer(HOST_SECRET))
PADDED_SEALERS: tuple[Sealer, ...] = (SecretSealer(SECRET, is_padded=True), HostSealer(HOST_SECRET, is_padded=True))
"""Of a repository with padding, which open what the others have sealed as well."""

_BODY = b'{"of":"a manifest"}'
_PAYLOAD = b"the payload of a record"


def open_object(data: bytes) -> bytes | None:
    """Open fuzzed bytes as a manifest; return its body, None if it was refused as it should be."""
    if len(data) >= HEADER_BYTES:
        data = finish_header(data[:HEADER_BYTES], digest_bytes(data[HEADER_BYTES:])) + data[HEADER_BYTES:]
    found = None
    for sealer in (*SEALERS, *PADDED_SEALERS):
        try:
            found = bytes(sealer.open_object(Kind.MANIFEST, "snapshots/x", data)[HEADER_BYTES:])
        except DeltaimgError:
            continue
        assert found == _BODY, "a sealed object was opened that no one has sealed"
    return found


def open_record(data: bytes) -> bytes | None:
    """Open fuzzed bytes as a record; return its payload, None if it was refused as it should be."""
    head, payload = data[:RECORD_HEADER_BYTES], data[RECORD_HEADER_BYTES:]
    if len(head) == RECORD_HEADER_BYTES:
        head = head[:40] + digest_bytes(payload)
        head += digest_bytes(head, length=8)
    try:
        header = parse_record_header("packs/x", 0, head)
        found = bytes(SEALERS[0].open_record("packs/x", 0, header, payload))
    except DeltaimgError:
        return None
    assert found == _PAYLOAD, "a sealed record was opened that no one has sealed"
    return found


def open_slot(data: bytes) -> bytes | None:
    """Open fuzzed bytes as a key slot; return its secret, None if it was refused as it should be."""
    for made in _SLOTS:
        with suppress(DeltaimgError):
            slot = parse_key_slot(frame(Kind.KEY_SLOT, data), made.object_name)
            if (secret := unwrap_secret(slot, KEY, family_id=FAMILY_ID)) is not None:
                assert slot == made, "a slot was opened that no one has made"
                return secret.build()
    return None


@dataclass(frozen=True, slots=True)
class SealedTarget:
    """Something to fuzz: what opens fuzzed bytes, and what is opened."""

    exercise: Callable[[bytes], bytes | None]
    seeds: tuple[bytes, ...]


def _make_objects() -> tuple[bytes, ...]:
    return tuple(each.seal_object(frame(Kind.MANIFEST, _BODY)) for each in (*SEALERS, *PADDED_SEALERS))


def _make_records() -> tuple[bytes, ...]:
    header = RecordHeader(b"\xa1" * 16, 0, 1, 12, len(_PAYLOAD), digest_bytes(_PAYLOAD))
    sealed = [sealer.seal_records([(header, _PAYLOAD)])[0] for sealer in (*SEALERS, *PADDED_SEALERS)]
    return tuple(build_record_header(header) + bytes(payload) for header, payload in sealed)


_SLOTS = [
    wrap_secret(SECRET, KEY, family_id=FAMILY_ID, label="one", created="", is_write_only=is_write_only)
    for is_write_only in (False, True)
]

TARGETS = {
    "object": SealedTarget(open_object, _make_objects()),
    "record": SealedTarget(open_record, _make_records()),
    "slot": SealedTarget(open_slot, tuple(build_key_slot(each)[HEADER_BYTES:] for each in _SLOTS)),
}
