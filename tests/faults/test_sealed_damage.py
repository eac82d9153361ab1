# SPDX-License-Identifier: Apache-2.0
"""An encrypted repository in a store that lies: what it changes, moves or exchanges is refused by name, and never restored.

Whoever operates the store can compute every digest that has no key. So damage is done twice: as it is, and with the digests of
header, body and record made right for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from deltaimg.crypto.key_slots import KeyFile
from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.restore.run import restore
from deltaimg.engine.restore.verify import verify
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.errors import ContentDamaged, DeltaimgError, Malformed, SealBroken
from deltaimg.format.framing import HEADER_BYTES, digest_bytes, finish_header
from deltaimg.format.manifest import Manifest
from deltaimg.format.pack import parse_pack_footer
from deltaimg.format.record import RECORD_HEADER_BYTES
from deltaimg.repo.key_slots import open_key_slots
from deltaimg.repo.object_kinds import ANNOTATION, INDEX, MANIFEST, MAP, SIGNATURE, VERIFIED, ObjectKind
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.flips import flip
from tests.support.images import SyntheticImage
from tests.support.repositories import KEY, back_up_image, make_repository

SEALED = (INDEX, SIGNATURE, MAP, MANIFEST, ANNOTATION, VERIFIED)


@cache
def small_repository(seed: int = 2) -> tuple[dict[str, bytes], tuple[tuple[Manifest, bytes], ...]]:
    """Return the objects of two backups of a small image, whose first pack has records of equal size."""
    repository = make_repository(key=KEY)
    image = SyntheticImage(3 << 19, seed=seed)
    image.write_random(0, 1 << 20)
    taken = [(back_up_image(repository, image), bytes(image.content))]
    image.write(8200, b"and another one")
    taken.append((back_up_image(repository, image), bytes(image.content)))
    verify(repository, repository.list_snapshots(), workers=1)
    set_pin(repository, repository.list_snapshots()[0], "for the auditors")
    return repository.objects.store.objects, tuple(taken)  # type: ignore[attr-defined]


def open_encrypted(store: MemoryStore) -> Repository:
    return Repository.open(store, lambda objects, config: open_key_slots(objects, config, KEY)[0])


def names_of(prefix: str) -> list[str]:
    objects, _ = small_repository()
    return sorted(name for name in objects if name.startswith(prefix))


def store_with(changes: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    store.objects = small_repository()[0] | changes
    return store


def right_object(data: bytes) -> bytes:
    """Return an object with the digests in its header right for what follows it."""
    return finish_header(data[:HEADER_BYTES], digest_bytes(data[HEADER_BYTES:])) + data[HEADER_BYTES:]


def right_record(data: bytes, offset: int) -> bytes:
    """Return a pack with the digests in a record's header right for the record."""
    end = offset + RECORD_HEADER_BYTES + int.from_bytes(data[offset + 8 : offset + 12], "little")
    payload = data[offset + RECORD_HEADER_BYTES : end]
    head = data[offset : offset + 40] + digest_bytes(payload)
    return data[:offset] + head + digest_bytes(head, length=8) + payload + data[end:]


def record_offsets(data: bytes) -> list[int]:
    return [int(offset) for offset in parse_pack_footer("packs/x", data)["offset"]]


def try_restores(store: MemoryStore, folder: Path) -> Iterator[DeltaimgError]:
    """Restore each snapshot; assert that what comes out is right, and yield why others do not."""
    for manifest, content in small_repository()[1]:
        target = folder / manifest.id
        try:
            repository = open_encrypted(store)
            ref = next((ref for ref in repository.list_snapshots() if ref.id == manifest.id), None)
            if ref is not None:
                result = restore(repository, repository.load_manifest(ref), str(target), workers=1)
                assert result.damage or target.read_bytes() == content
        except DeltaimgError as error:
            yield error
        target.unlink(missing_ok=True)


def is_found(store: MemoryStore) -> bool:
    """Whether opening, check or verify finds something wrong."""
    try:
        repository = open_encrypted(store)
        report = check(repository, read_packs=True)
        if report.of(Severity.ERROR) or report.of(Severity.WARNING):
            return True
        return any(each.damage for each in verify(repository, repository.list_snapshots(), workers=1))
    except DeltaimgError:
        return True


def test_every_kind_is_there() -> None:
    for prefix in (*(kind.folder for kind in SEALED), "packs/", "keys/", "config"):
        assert names_of(prefix), prefix


def test_nothing_of_an_image_or_a_manifest_is_readable() -> None:
    objects, taken = small_repository()
    stored = b"".join(objects.values())
    assert taken[0][1][5000:5100] not in stored
    assert b"another one" not in stored
    for word in (b"root_digest", b"apparent_bytes", taken[0][0].root_digest.encode()):
        assert word not in stored


@pytest.mark.parametrize("are_digests_right", [False, True])
def test_every_flipped_byte_is_found_and_none_gives_a_wrong_restore(
    tmp_path: Path, seed: int, request: pytest.FixtureRequest, are_digests_right: bool
) -> None:
    objects, _ = small_repository()
    kinds = [[(name, place) for name in names_of(prefix) for place in range(len(objects[name]))] for prefix in
             ("config", "keys/", "index/", "maps/", "packs/", "signatures/", "snapshots/", "verified")]  # fmt: skip
    chance = random.Random(seed)
    is_long = request.config.getoption("--long")
    for name, place in [each for places in kinds for each in (places if is_long else chance.sample(places, 6))]:
        data = flip(objects[name], place, chance.randrange(8))
        if are_digests_right:
            if name.startswith("packs/"):
                for offset in record_offsets(objects[name]):
                    data = (
                        right_record(data, offset)
                        if data[offset + 8 : offset + 12] == objects[name][offset + 8 : offset + 12]
                        else data
                    )
            elif place >= HEADER_BYTES and name != "config":
                data = right_object(data)
        if data == objects[name]:
            continue  # it was a digest that was flipped
        store = store_with({name: data})
        for error in try_restores(store, tmp_path):
            assert isinstance(error, DeltaimgError)
        assert is_found(store) or name == "verified" or name == "config", (name, place)


@pytest.mark.parametrize("kind", SEALED, ids=lambda kind: kind.folder.strip("/"))
def test_a_sealed_object_that_is_changed_and_has_right_digests_is_refused_by_name(kind: ObjectKind[Any]) -> None:
    for name in names_of(kind.folder):
        data = small_repository()[0][name]
        for place in (HEADER_BYTES, HEADER_BYTES + 40, len(data) - 1, 12, 40):
            changed = right_object(flip(data, place))
            repository = open_encrypted(store_with({name: changed}))
            with pytest.raises(DeltaimgError, match=f"^{name}: "):
                repository.objects.get(kind, name)
            # Its name would be refused first; it may have been made for what it is now.
            with pytest.raises(SealBroken, match=f"^{name}: "):
                repository.objects.sealer.open_object(kind.magic, name, changed)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("kind", SEALED, ids=lambda kind: kind.folder.strip("/"))
def test_a_truncated_object_with_right_digests_is_refused_by_name(kind: ObjectKind[Any]) -> None:
    for name in names_of(kind.folder):
        data = small_repository()[0][name]
        for length in (HEADER_BYTES, HEADER_BYTES + 20, HEADER_BYTES + 47, len(data) - 1):
            head = data[:16] + (length - HEADER_BYTES).to_bytes(8, "little") + data[24:HEADER_BYTES]
            changed = right_object(head + data[HEADER_BYTES:length])
            repository = open_encrypted(store_with({name: changed}))
            with pytest.raises(SealBroken, match=f"^{name}: "):
                repository.objects.sealer.open_object(kind.magic, name, changed)  # type: ignore[union-attr, arg-type]


def test_a_record_that_is_changed_and_has_right_digests_is_never_restored(tmp_path: Path) -> None:
    objects, _ = small_repository()
    for name in names_of("packs/"):
        for offset in record_offsets(objects[name]):
            for place in (4, RECORD_HEADER_BYTES, RECORD_HEADER_BYTES + 33, RECORD_HEADER_BYTES + 60):
                store = store_with({name: right_record(flip(objects[name], offset + place), offset)})
                found = list(try_restores(store, tmp_path))
                assert found, (name, offset, place)
                for error in found:
                    assert name.split("/")[-1][:8] in str(error) or isinstance(error, ContentDamaged)


def test_records_that_change_places_are_refused(tmp_path: Path) -> None:
    objects, _ = small_repository()
    name, data = next((name, objects[name]) for name in names_of("packs/") if len(record_offsets(objects[name])) > 1)
    first, second = record_offsets(data)[:2]
    size = second - first
    one, two = data[first:second], data[second : second + size]
    swapped = data[:first] + two + one + data[second + size :]
    # Each with the other's id, as the index expects them.
    renamed = (
        swapped[: first + 12] + one[12:28] + swapped[first + 28 : second + 12] + two[12:28] + swapped[second + 28 :]
    )
    for forged in (swapped, right_record(right_record(renamed, first), second)):
        store = store_with({name: forged})
        assert list(try_restores(store, tmp_path))
        assert is_found(store)


def test_a_manifest_in_the_place_of_another_is_refused() -> None:
    first, second = names_of("snapshots/")
    objects, _ = small_repository()
    repository = open_encrypted(store_with({first: objects[second]}))
    ref = repository.list_snapshots()[0]
    with pytest.raises(Malformed, match="it belongs at"):
        repository.load_manifest(ref)


def test_what_another_repository_sealed_is_refused() -> None:
    other = make_repository(key=KEY)
    image = SyntheticImage(20_000, seed=2)
    image.write(0, b"content")
    manifest = back_up_image(other, image)
    foreign = other.objects.store.objects[manifest.object_name]  # type: ignore[attr-defined]
    repository = open_encrypted(store_with({manifest.object_name: foreign}))
    with pytest.raises(SealBroken, match="another key"):
        repository.load_manifest(next(ref for ref in repository.list_snapshots() if ref.id == manifest.id))
    keys = {name: data for name, data in other.objects.store.objects.items() if name.startswith("keys/")}  # type: ignore[attr-defined]
    assert open_encrypted(store_with(keys)).secret == repository.secret  # its slot is bound to the other family


def test_what_is_not_sealed_is_refused_in_an_encrypted_repository(tmp_path: Path) -> None:
    plain = make_repository()
    image = SyntheticImage(20_000, seed=2)
    image.write(0, b"content")
    manifest = back_up_image(plain, image)
    bare: dict[str, bytes] = plain.objects.store.objects  # type: ignore[attr-defined]
    repository = open_encrypted(store_with({manifest.object_name: bare[manifest.object_name]}))
    with pytest.raises(SealBroken, match="is not sealed, though the repository is encrypted"):
        repository.load_manifest(next(ref for ref in repository.list_snapshots() if ref.id == manifest.id))
    # A record without a seal in the place of one that has it.
    name = names_of("packs/")[0]
    data = small_repository()[0][name]
    offset = record_offsets(data)[0]
    store = store_with({name: right_record(flip(data, offset + 5), offset)})
    assert list(try_restores(store, tmp_path))


def test_a_key_that_is_wrong_opens_nothing() -> None:
    objects, _ = small_repository()
    store = store_with({})
    with pytest.raises(DeltaimgError, match="opens none of its keys"):
        Repository.open(store, lambda objects, config: open_key_slots(objects, config, KeyFile(bytes(32)))[0])
    (name,) = names_of("keys/")
    for place in range(HEADER_BYTES, len(objects[name]), 7):
        store = store_with({name: right_object(flip(objects[name], place, 1))})
        with pytest.raises(DeltaimgError):
            open_encrypted(store)
