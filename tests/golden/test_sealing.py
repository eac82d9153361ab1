# SPDX-License-Identifier: Apache-2.0
"""What is sealed, against a twin that was written from docs/format.md: each opens what the other has sealed."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import pytest
from msgspec.structs import replace

from deltaimg.crypto.key_slots import Costs, KeyFile, Passphrase, unwrap_secret, wrap_secret
from deltaimg.crypto.sealer import HostSealer, SecretSealer, bare_header
from deltaimg.crypto.secret import Secret
from deltaimg.errors import Malformed, OnlyWrites, PaddingMissing, SealBroken
from deltaimg.format.framing import HEADER_BYTES, Kind, digest_bytes, finish_header, frame, salt_object
from deltaimg.format.key_slot import KeySlot
from deltaimg.format.padding import padded_bytes
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
    opened = SecretSealer(SECRET).open_object(Kind.MANIFEST, "snapshots/x", data)
    assert opened[HEADER_BYTES:] == known["body"]


def test_the_twin_opens_an_object():
    data = b"".join(salt_object([frame(Kind.MAP, b"the body of a map")], b"\x11" * 16))
    assert sealing_twin.open_body(SECRET.master_key, SecretSealer(SECRET).seal_object(data)) == b"the body of a map"


def test_a_record_that_the_twin_sealed_is_opened():
    known = read_answer("record")
    head = known["header"][:40] + digest_bytes(known["sealed"])
    data = head + digest_bytes(head, length=8) + known["sealed"]
    header = parse_record_header("packs/x", 64, data)
    assert bytes(SecretSealer(SECRET).open_record("packs/x", 64, header, data[64:])) == known["payload"]


def test_the_twin_opens_records():
    records = [
        (RecordHeader(bytes([seed]) * 16, 0, 1, 12, 100, digest_bytes(bytes([seed]) * 100)), bytes([seed]) * 100)
        for seed in range(5)
    ]
    sealed = SecretSealer(SECRET).seal_records(records)
    assert len({bytes(payload[:32]) for _, payload in sealed}) == 1
    assert [payload[32:36] for _, payload in sealed] == [number.to_bytes(4, "little") for number in range(5)]
    for (_, payload), (header, found) in zip(records, sealed, strict=True):
        assert header.payload_bytes == len(found) == len(payload) + 52
        assert sealing_twin.open_payload(SECRET.master_key, build_record_header(header), bytes(found)) == payload


HOST_SECRET = SECRET.make_host_secret(bytes.fromhex("00000000000000cc"))


def test_what_the_twin_sealed_as_a_write_only_host_is_opened():
    known = read_answer("host_object")
    data = finish_header(known["header"], digest_bytes(known["sealed"])) + known["sealed"]
    for sealer in (SecretSealer(SECRET), HostSealer(HOST_SECRET)):
        assert sealer.open_object(Kind.MANIFEST, "snapshots/x", data)[HEADER_BYTES:] == known["body"]
    known = read_answer("host_record")
    head = known["header"][:40] + digest_bytes(known["sealed"])
    data = head + digest_bytes(head, length=8) + known["sealed"]
    header = parse_record_header("packs/x", 64, data)
    assert bytes(SecretSealer(SECRET).open_record("packs/x", 64, header, data[64:])) == known["payload"]
    with pytest.raises(OnlyWrites):
        HostSealer(HOST_SECRET).open_record("packs/x", 64, header, memoryview(data)[64:])


def test_the_twin_opens_what_a_write_only_host_sealed():
    data = b"".join(salt_object([frame(Kind.MAP, b"the body of a map")], b"\x11" * 16))
    for sealer in (HostSealer(HOST_SECRET), SecretSealer(SECRET).for_host(HOST_SECRET.host)):
        assert sealing_twin.open_host_body(SECRET.master_key, sealer.seal_object(data)) == b"the body of a map"
    records = [(RecordHeader(bytes([seed]) * 16, 0, 1, 12, 9, digest_bytes(bytes(9))), bytes(9)) for seed in range(3)]
    sealed = HostSealer(HOST_SECRET).seal_records(records)
    assert len({bytes(payload[:40]) for _, payload in sealed}) == 1
    for header, found in sealed:
        assert sealing_twin.open_host_payload(SECRET.master_key, build_record_header(header), bytes(found)) == bytes(9)


def test_the_slot_of_a_write_only_host_is_what_the_twin_makes_of_it():
    known = ANSWERS["write_only"]
    slot = msgspec.convert(known["slot"], KeySlot)
    key = KeyFile(bytes.fromhex(known["key"]))
    assert unwrap_secret(slot, key, family_id=FAMILY_ID) == HOST_SECRET
    assert HOST_SECRET.build().hex() == known["wrapped"]
    own = wrap_secret(SECRET, key, family_id=FAMILY_ID, label="web1", created="", is_write_only=True)
    found = sealing_twin.unwrap(msgspec.to_builtins(own), FAMILY_ID, key.key)
    assert found == sealing_twin.host_secret(SECRET.build(), bytes.fromhex(own.id))


@pytest.mark.parametrize("ephemeral", [bytes(32), b"\1" + bytes(31), b"\xff" * 32], ids=["zero", "one", "large"])
def test_an_ephemeral_key_that_is_none_is_refused(ephemeral):
    known = read_answer("host_record")
    sealed = known["sealed"][:8] + ephemeral + known["sealed"][40:]
    header = replace(_host_header(known), payload_digest=digest_bytes(sealed))
    with pytest.raises(SealBroken, match=r"^packs/x: "):
        SecretSealer(SECRET).open_record("packs/x", 64, header, sealed)


def _host_header(known):
    return parse_record_header("packs/x", 64, known["header"][:56] + digest_bytes(known["header"][:56], length=8))


def test_a_host_opens_nothing_of_others_and_others_nothing_of_its_records():
    data, other = frame(Kind.MAP, b"body"), SECRET.make_host_secret(b"\xdd" * 8)
    for sealed in (SecretSealer(SECRET).seal_object(data), HostSealer(other).seal_object(data)):
        with pytest.raises(OnlyWrites, match=r"^maps/x: the key that was given only writes"):
            HostSealer(HOST_SECRET).open_object(Kind.MAP, "maps/x", sealed)


def test_a_host_cannot_seal_in_the_name_of_another():
    # Whoever has the key of one host writes another's id before what it seals.
    forged = HostSealer(dataclasses.replace(HOST_SECRET, host=b"\xdd" * 8))
    with pytest.raises(SealBroken):
        SecretSealer(SECRET).open_object(Kind.MAP, "maps/x", forged.seal_object(frame(Kind.MAP, b"body")))
    header, payload = forged.seal_records([(RecordHeader(b"\1" * 16, 0, 1, 12, 3, bytes(16)), b"one")])[0]
    with pytest.raises(SealBroken):
        SecretSealer(SECRET).open_record("packs/x", 64, header, bytes(payload))


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
    sealed = SecretSealer(Secret.make()).seal_object(frame(Kind.MAP, b"body"))
    with pytest.raises(SealBroken, match=r"^maps/x: .*another key"):
        SecretSealer(SECRET).open_object(Kind.MAP, "maps/x", sealed)


def test_random_numbers_that_come_twice_do_not_make_a_seed_come_twice():
    sealer = SecretSealer(SECRET, draw=bytes)
    one, other = (sealer.seal_object(frame(Kind.MAP, body)) for body in (b"one", b"two"))
    assert one[64:96] != other[64:96]
    header = RecordHeader(b"\1" * 16, 0, 1, 12, 3, digest_bytes(b"one"))
    other = replace(header, payload_digest=digest_bytes(b"two"))
    for sealer, prefix in ((SecretSealer(SECRET, draw=bytes), 32), (HostSealer(HOST_SECRET, draw=bytes), 40)):
        first = sealer.seal_records([(header, b"one")])[0][1]
        second = sealer.seal_records([(other, b"two")])[0][1]
        assert first[:prefix] != second[:prefix]


# -- padding -----------------------------------------------------------------------------------------------------------

PADDED = json.loads(sealing_twin.PADDED_ANSWERS.read_text())
PADDED_SEALER = SecretSealer(SECRET, is_padded=True)


def list_padded(kind: str) -> list[dict[str, bytes]]:
    return [
        {part: bytes.fromhex(value) for part, value in known.items()}
        for name, known in PADDED.items()
        if name.startswith(kind)
    ]


def test_the_twin_still_gives_the_known_answers_with_padding():
    assert sealing_twin.make_padded_answers() == PADDED


def test_padded_lengths_are_those_of_the_twin():
    assert {int(size): length for size, length in PADDED["lengths"].items()} == {
        int(size): padded_bytes(int(size)) for size in PADDED["lengths"]
    }
    for size in range(3000):
        assert len(sealing_twin.pad(bytes(size))) == padded_bytes(size)


def test_padded_objects_that_the_twin_sealed_are_opened():
    for known in list_padded("object"):
        data = finish_header(known["header"], digest_bytes(known["sealed"])) + known["sealed"]
        assert PADDED_SEALER.open_object(Kind.MANIFEST, "snapshots/x", data)[HEADER_BYTES:] == known["body"]
        with pytest.raises(PaddingMissing, match=r"^snapshots/x: is padded, and 'config'"):
            SecretSealer(SECRET).open_object(Kind.MANIFEST, "snapshots/x", data)


def test_padded_records_that_the_twin_sealed_are_opened():
    for known in list_padded("record"):
        head = known["header"][:40] + digest_bytes(known["sealed"])
        header = parse_record_header("packs/x", 64, head + digest_bytes(head, length=8))
        for room in (None, memoryview(bytearray(10)), memoryview(bytearray(5000))):
            opened = PADDED_SEALER.open_record("packs/x", 64, header, known["sealed"], room)
            assert bytes(opened) == known["payload"]


def test_the_twin_opens_what_is_padded():
    for size in (0, 1, 31, 32, 100, 8191):
        data = b"".join(salt_object([frame(Kind.MAP, bytes(size))], b"\x11" * 16))
        assert sealing_twin.open_body(SECRET.master_key, PADDED_SEALER.seal_object(data)) == bytes(size)
        payload = b"\x80" * size
        bare = RecordHeader(b"\1" * 16, 0, 2, 12, size, digest_bytes(payload))
        ((header, sealed),) = PADDED_SEALER.seal_records([(bare, payload)])
        assert header.payload_bytes == len(sealed) == 52 + padded_bytes(size, 8192)
        assert sealing_twin.open_payload(SECRET.master_key, build_record_header(header), bytes(sealed)) == payload
        assert bare_header(header, PADDED_SEALER.open_record("packs/x", 64, header, sealed)) == bare


@pytest.mark.parametrize("padding", [b"", b"\0", b"\x80\0", b"\x80\0\0", b"\x81", b"\x80" + bytes(300)])
def test_a_padding_of_another_length_is_refused(padding):
    # Whoever has the key can seal anything: nine bytes are padded by 0x80 and one zero.
    header, number = list_padded("record of 9")[0]["header"][:8], 3
    header += (52 + 9 + len(padding)).to_bytes(4, "little") + b"\xa1" * 16
    header += bytes(4) + b"\1\0" + b"\x0c\1" + bytes(4) + bytes(24)
    sealed = sealing_twin.seal_payload(SECRET.master_key, b"\7" * 32, number, header, b"123456789" + padding)
    header = header[:40] + digest_bytes(sealed)
    header = parse_record_header("packs/x", 64, header + digest_bytes(header, length=8))
    if padding == b"\x80\0":
        assert bytes(PADDED_SEALER.open_record("packs/x", 64, header, sealed)) == b"123456789"
        return
    with pytest.raises(Malformed, match=r"^packs/x: its padding is not that of its length \(at byte 64\)$"):
        PADDED_SEALER.open_record("packs/x", 64, header, sealed)


@pytest.mark.parametrize("is_repeatable", [False, True])
def test_padded_and_not_the_same_content_never_has_the_same_key(is_repeatable):
    """Members of a family share a secret: the same records, sealed by both, are two messages of different lengths."""
    header = RecordHeader(b"\1" * 16, 0, 1, 12, 9, digest_bytes(bytes(9)))
    for make, secret, prefix in ((SecretSealer, SECRET, 32), (HostSealer, HOST_SECRET, 40)):
        seeds = set()
        for is_padded in (False, True):
            sealer = make(secret, draw=bytes, is_padded=is_padded)
            ((_, sealed),) = sealer.seal_records([(header, bytes(9))], is_repeatable=is_repeatable)
            seeds |= {bytes(sealed[:prefix]), sealer.seal_object(frame(Kind.MAP, b"body"))[64 : 64 + prefix]}
        assert len(seeds) == 4
