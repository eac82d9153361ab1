# SPDX-License-Identifier: Apache-2.0
"""What is sealed, against a twin that was written from docs/format.md: each opens what the other has sealed."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from deltaimg.crypto.key_slots import Costs, KeyFile, Passphrase, unwrap_secret, wrap_secret
from deltaimg.crypto.sealer import Sealer
from deltaimg.crypto.secret import Secret
from deltaimg.errors import SealBroken
from deltaimg.format.framing import HEADER_BYTES, Kind, digest_bytes, finish_header, frame, salt_object
from deltaimg.format.key_slot import KeySlot
from deltaimg.format.record import RecordHeader, build_record_header, parse_record_header
from tests.golden import sealing_twin

ANSWERS = json.loads(sealing_twin.ANSWERS.read_text())
SECRET = Secret.parse(bytes.fromhex(ANSWERS["secret"]))
FAMILY_ID = ANSWERS["family_id"]


def read_answer(kind: str) -> dict[str, bytes]:
    return {name: bytes.fromhex(value) for name, value in ANSWERS[kind].items() if isinstance(value, str)}


def test_the_twin_still_gives_the_known_answers():
    assert sealing_twin.make_answers() == ANSWERS


def test_an_object_that_the_twin_sealed_is_opened():
    known = read_answer("object")
    data = finish_header(known["header"], digest_bytes(known["sealed"])) + known["sealed"]
    opened = Sealer(SECRET).open_object(Kind.MANIFEST, "snapshots/x", data)
    assert opened[HEADER_BYTES:] == known["body"]


def test_the_twin_opens_an_object():
    data = b"".join(salt_object([frame(Kind.MAP, b"the body of a map")], b"\x11" * 16))
    assert sealing_twin.open_body(SECRET.master_key, Sealer(SECRET).seal_object(data)) == b"the body of a map"


def test_a_record_that_the_twin_sealed_is_opened():
    known = read_answer("record")
    head = known["header"][:40] + digest_bytes(known["sealed"])
    data = head + digest_bytes(head, length=8) + known["sealed"]
    header = parse_record_header("packs/x", 64, data)
    assert bytes(Sealer(SECRET).open_record("packs/x", 64, header, data[64:])) == known["payload"]


def test_the_twin_opens_records():
    records = [
        (RecordHeader(bytes([seed]) * 16, 0, 1, 12, 100, digest_bytes(bytes([seed]) * 100)), bytes([seed]) * 100)
        for seed in range(5)
    ]
    sealed = Sealer(SECRET).seal_records(records)
    assert len({bytes(payload[:32]) for _, payload in sealed}) == 1
    assert [payload[32:36] for _, payload in sealed] == [number.to_bytes(4, "little") for number in range(5)]
    for (_, payload), (header, found) in zip(records, sealed, strict=True):
        assert header.payload_bytes == len(found) == len(payload) + 52
        assert sealing_twin.open_payload(SECRET.master_key, build_record_header(header), bytes(found)) == payload


def test_slots_that_the_twin_wrapped_are_opened():
    for kind, key in (
        ("passphrase", Passphrase(ANSWERS["passphrase"]["text"])),
        ("key_file", KeyFile(bytes.fromhex(ANSWERS["key_file"]["key"]))),
    ):
        slot = msgspec.convert(ANSWERS[kind]["slot"], KeySlot)
        assert unwrap_secret(slot, key, family_id=FAMILY_ID) == SECRET
        assert unwrap_secret(slot, key, family_id="0" * 32) is None


@pytest.mark.parametrize(
    "key", [Passphrase("pässword", Costs(64, 1)), KeyFile(b"\x17" * 32)], ids=["passphrase", "file"]
)
def test_the_twin_opens_slots(key):
    slot = wrap_secret(SECRET, key, family_id=FAMILY_ID, label="spare", created="")
    taken = key.text if isinstance(key, Passphrase) else key.key
    found = sealing_twin.unwrap(msgspec.to_builtins(slot), FAMILY_ID, taken)
    assert found == SECRET.build()


def test_what_another_secret_sealed_is_refused():
    sealed = Sealer(Secret.make()).seal_object(frame(Kind.MAP, b"body"))
    with pytest.raises(SealBroken, match=r"^maps/x: .*another key"):
        Sealer(SECRET).open_object(Kind.MAP, "maps/x", sealed)


def test_random_numbers_that_come_twice_do_not_make_a_seed_come_twice():
    sealer = Sealer(SECRET, draw=bytes)
    one, other = (sealer.seal_object(frame(Kind.MAP, body)) for body in (b"one", b"two"))
    assert one[64:96] != other[64:96]
    header = RecordHeader(b"\1" * 16, 0, 1, 12, 3, digest_bytes(b"one"))
    first = sealer.seal_records([(header, b"one")])[0][1]
    second = sealer.seal_records([(replace(header, payload_digest=digest_bytes(b"two")), b"two")])[0][1]
    assert first[:32] != second[:32]
