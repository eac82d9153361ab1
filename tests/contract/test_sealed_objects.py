# SPDX-License-Identifier: Apache-2.0
"""What sealed objects promise on every store: each kind of store, with each kind of key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deltaimg.crypto.sealer import HostSealer, Sealer, SecretSealer
from deltaimg.crypto.secret import Secret
from deltaimg.errors import DigestMismatch, IntegrityError, ObjectExists, ObjectNotFound, OnlyWrites
from deltaimg.format.framing import HEADER_BYTES, digest_bytes
from deltaimg.format.pack import finish_pack, parse_pack_footer
from deltaimg.format.record import RECORD_HEADER_BYTES, RecordHeader, parse_record_header
from deltaimg.format.signature import SignatureObject
from deltaimg.repo.object_kinds import MANIFEST, PACK, SIGNATURE
from deltaimg.repo.objects import Objects
from deltaimg.store.interface import Store
from deltaimg.store.planned import PlannedStore
from tests.contract.test_stores import plain_sshd, shared_plain_sshd, store  # noqa: F401  fixtures
from tests.golden.samples import FULL

SECRET = Secret.parse(bytes(range(64)))
HOST_SECRET = SECRET.make_host_secret(b"\xee" * 8)
SIGNED = SignatureObject(
    np.full((1, 16), 0xA1, np.uint8), np.array([2], np.uint16), np.arange(32, dtype=np.uint8).reshape(2, 16)
)


@pytest.fixture(params=["secret", "host"])
def sealer(request: pytest.FixtureRequest) -> Sealer:
    return SecretSealer(SECRET) if request.param == "secret" else HostSealer(HOST_SECRET)


@pytest.fixture
def objects(store: Store, sealer: Sealer) -> Objects:  # noqa: F811
    """The objects of whoever writes."""
    return Objects(store, sealer)


@pytest.fixture
def reader(store: Store) -> Objects:  # noqa: F811
    """The same objects for a holder of the secret."""
    return Objects(store, SecretSealer(SECRET))


def test_what_was_sealed_is_opened_by_who_may_and_shows_nothing_in_the_store(objects: Objects, reader: Objects) -> None:
    objects.put(MANIFEST, FULL.object_name, FULL)
    digest, size_bytes = objects.put_new(SIGNATURE, SIGNED)
    name = SIGNATURE.name_of(digest)
    for each in (objects, reader):
        assert each.get(MANIFEST, FULL.object_name) == FULL
        assert (each.get(SIGNATURE, name).digests == SIGNED.digests).all()
    stored = objects.get_verified(name)
    assert len(stored) == size_bytes == objects.count_bytes(SIGNATURE, SIGNED)
    assert SIGNED.digests.tobytes() not in stored
    assert {each.name: each.size_bytes for each in objects.list("signatures/")} == {name: size_bytes}
    again, _ = objects.put_new(SIGNATURE, SIGNED)
    assert again != digest, "a name is never used again"


def test_names_of_their_own_are_taken_once_and_replaced_whole(objects: Objects, reader: Objects, store: Store) -> None:  # noqa: F811
    objects.creates_exclusively = False if store.properties.creates_exclusively is None else None
    objects.put(MANIFEST, FULL.object_name, FULL)
    if objects.creates_exclusively is False or store.properties.creates_exclusively:
        with pytest.raises(ObjectExists):
            objects.put(MANIFEST, FULL.object_name, FULL)
    before = reader.get_bytes(FULL.object_name)
    objects.replace(MANIFEST, FULL.object_name, FULL)
    assert reader.get_bytes(FULL.object_name) != before, "sealed with a key of its own"
    assert reader.get(MANIFEST, FULL.object_name) == FULL
    objects.delete(FULL.object_name)
    with pytest.raises(ObjectNotFound):
        reader.get(MANIFEST, FULL.object_name)


def test_ranges_of_sealed_packs_are_read_and_opened_by_themselves(objects: Objects, reader: Objects) -> None:
    if isinstance(objects.store, PlannedStore):
        pytest.skip("a plan keeps no packs")
    payloads = [bytes([number]) * 300 for number in range(5)]
    bare = [
        (RecordHeader(payload[:16], 0, 1, 12, len(payload), digest_bytes(payload)), payload) for payload in payloads
    ]
    parts, _ = finish_pack(objects.seal_records(bare))
    digest, _ = objects.put_named(PACK, parts)
    name = PACK.name_of(digest)
    footer = parse_pack_footer(name, reader.get_bytes(name))
    for entry, payload in zip(footer, payloads, strict=True):
        offset, length = int(entry["offset"]), int(entry["payload_bytes"])
        data = reader.get_range(name, offset, RECORD_HEADER_BYTES + length)
        header = parse_record_header(name, offset, data)
        assert bytes(reader.open_record(name, offset, header, memoryview(data)[RECORD_HEADER_BYTES:])) == payload
        if objects.sealer is not None and objects.sealer.host:
            with pytest.raises(OnlyWrites):
                objects.open_record(name, offset, header, memoryview(data)[RECORD_HEADER_BYTES:])


def test_what_a_store_gives_back_otherwise_is_refused_by_name(objects: Objects, reader: Objects) -> None:
    digest, _ = objects.put_new(SIGNATURE, SIGNED)
    name = SIGNATURE.name_of(digest)
    data = reader.get_bytes(name)
    objects.put(MANIFEST, FULL.object_name, FULL)
    manifest = reader.get_bytes(FULL.object_name)
    for place in (8, HEADER_BYTES + 1, len(data) - 1):
        reader.replace_bytes(name, [data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]])
        with pytest.raises(DigestMismatch, match=name):
            reader.get(SIGNATURE, name)
    reader.replace_bytes(FULL.object_name, [manifest[:-1] + bytes([manifest[-1] ^ 1])])
    with pytest.raises(IntegrityError, match=FULL.object_name):
        reader.get(MANIFEST, FULL.object_name)


def test_many_threads_seal_and_open_at_once(objects: Objects, reader: Objects) -> None:
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda _: objects.put_new(SIGNATURE, SIGNED)[0], range(24)))
        found = list(pool.map(lambda digest: reader.get(SIGNATURE, SIGNATURE.name_of(digest)), stored))
    assert len(set(stored)) == 24
    assert all((each.digests == SIGNED.digests).all() for each in found)
    assert not reader.delete_many([SIGNATURE.name_of(digest) for digest in stored])
    assert not list(reader.list("signatures/"))
