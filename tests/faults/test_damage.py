# SPDX-License-Identifier: Apache-2.0
"""Objects are truncated, flipped, swapped and lost: all damage is found, named, and limited to what depends on the object."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from deltaimg.engine.restore.run import restore
from deltaimg.engine.restore.verify import verify
from deltaimg.errors import ContentDamaged, DeltaimgError, IntegrityError, ObjectNotFound, SnapshotIncomplete
from deltaimg.format.manifest import Manifest
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.flips import flip
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.repositories import Warnings, assert_restores, back_up_image, make_repository

KINDS = ("packs/", "index/", "maps/", "signatures/", "snapshots/")


class Damaged:
    """A repository of two images; the second snapshot of `vm1` is what gets damaged."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.repository = make_repository(self.store)
        self.first = make_mixed_image(3_000_001, seed=5)
        self.other = make_mixed_image(900_000, seed=77)
        self.other_manifest = back_up_image(self.repository, self.other, "other")
        before = set(self.store.objects)
        self.first_manifest = back_up_image(self.repository, self.first)
        self.second = self.first.copy()
        edit_at_random(self.second, 12)
        self.second.write_random(70_000, 500_000)
        mid = set(self.store.objects)
        self.manifest = back_up_image(self.repository, self.second)
        self.full_objects = sorted(mid - before)
        self.new_objects = sorted(set(self.store.objects) - mid)

    def newest(self, kind: str) -> str:
        return next(name for name in self.new_objects if name.startswith(kind))

    def restore(self, target: Path, manifest: Manifest, *, keep_going: bool = False) -> bytes:
        restore(self.repository, manifest, str(target), keep_going=keep_going, workers=2)
        return target.read_bytes()


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", [truncate, flip, None], ids=["truncated", "flipped", "missing"])
def test_damage_is_named_and_costs_only_the_snapshots_that_need_it(tmp_path: Path, kind: str, harm: object) -> None:
    case = Damaged()
    name = case.newest(kind)
    whole = case.store.objects[name]
    if harm is None:
        del case.store.objects[name]
    else:
        case.store.objects[name] = harm(case.store.objects[name])  # type: ignore[operator]
    ref = next((ref for ref in case.repository.list_snapshots("vm1") if ref.id == case.manifest.id), None)
    if ref is None:
        assert kind == "snapshots/"
        assert harm is None
    else:
        with pytest.raises((IntegrityError, ObjectNotFound, SnapshotIncomplete)) as caught:
            case.restore(tmp_path / "restored", case.repository.load_manifest(ref))
        if kind != "index/" or harm is not None:
            assert name.rsplit("/", 1)[-1] in str(caught.value)
        assert list(tmp_path.iterdir()) == [], "nothing that could be taken for an image is left"
        report = verify(case.repository, [ref], workers=2)[0]
        assert report.damage
    assert_restores(case.repository, case.first_manifest, case.first.content)
    assert_restores(case.repository, case.other_manifest, case.other.content)
    progress = Warnings()
    again = back_up_image(case.repository, case.second, progress=progress)
    if kind != "packs/":
        # A backup, which reads metadata only, does not notice a damaged pack; `verify` is what finds it.
        assert_restores(case.repository, again, case.second.content)
        assert progress.messages or harm is None
    if kind == "signatures/":
        # Each record has two copies now: either's signature will do.
        new = set(case.store.objects) - set(case.full_objects) - set(case.new_objects)
        for signature in [each for each in new if each.startswith(kind)]:
            del case.store.objects[signature]
        case.store.objects[name] = whole
        assert_restores(case.repository, again, case.second.content)


def test_a_swapped_object_is_refused(tmp_path: Path) -> None:
    for kind in KINDS[:-1]:
        case = Damaged()
        old = next(name for name in case.full_objects if name.startswith(kind))
        new = case.newest(kind)
        case.store.objects[old], case.store.objects[new] = case.store.objects[new], case.store.objects[old]
        with pytest.raises(IntegrityError):
            case.restore(tmp_path / "restored", case.manifest)
    names = [ref.object_name for ref in case.repository.list_snapshots("vm1")]
    objects = case.store.objects
    objects[names[0]], objects[names[1]] = objects[names[1]], objects[names[0]]
    with pytest.raises(IntegrityError, match=r"it belongs at"):
        case.repository.load_manifest(case.repository.list_snapshots("vm1")[0])


def test_a_damaged_record_says_which_snapshot_bytes_and_pack(tmp_path: Path) -> None:
    case = Damaged()
    pack = case.newest("packs/")
    case.store.objects[pack] = flip(case.store.objects[pack])
    with pytest.raises(ContentDamaged) as caught:
        case.restore(tmp_path / "restored", case.manifest)
    message = str(caught.value)
    assert case.manifest.label in message
    assert pack in message
    assert "bytes " in message
    assert caught.value.exit_code == ContentDamaged.exit_code


def test_keep_going_restores_the_rest_and_lists_exactly_what_is_missing(tmp_path: Path) -> None:
    case = Damaged()
    pack = next(name for name in case.full_objects if name.startswith("packs/"))
    case.store.objects[pack] = flip(case.store.objects[pack])
    target = tmp_path / "restored"
    result = restore(case.repository, case.manifest, str(target), keep_going=True, workers=2)
    restored, wanted = bytearray(target.read_bytes()), case.second.content
    assert result.damage
    for extent in result.damage:
        assert pack in extent.reason
        assert not any(restored[extent.start : extent.end]), "a damaged extent is restored as a hole"
        assert any(wanted[extent.start : extent.end])
        restored[extent.start : extent.end] = wanted[extent.start : extent.end]
    assert restored == wanted


def test_no_flipped_byte_gives_a_wrong_image(tmp_path: Path, seed: int) -> None:
    """Every object of a small repository, a byte at a time: an error or the right image, nothing between."""
    store = MemoryStore()
    repository = make_repository(store)
    image = SyntheticImage(60_000, seed=2)
    image.write_pages(0, 24_000)
    image.write_random(36_864, 8_000)
    manifests = [(back_up_image(repository, image), bytes(image.content))]
    image.write_random(4096, 5000)
    manifests.append((back_up_image(repository, image), bytes(image.content)))
    chance = random.Random(seed)
    places = [(name, place) for name, data in store.objects.items() for place in range(len(data))]
    found = harmless = 0
    for number, (name, place) in enumerate(chance.sample(places, min(len(places), 500))):
        original = store.objects[name]
        store.objects[name] = (
            original[:place] + bytes([original[place] ^ (1 << chance.randrange(8))]) + original[place + 1 :]
        )
        for manifest, content in manifests:
            target = tmp_path / f"{number}"
            try:
                opened = Repository.open(store)
                ref = next(ref for ref in opened.list_snapshots() if ref.id == manifest.id)
                restore(opened, opened.load_manifest(ref), str(target), workers=1)
                assert target.read_bytes() == content
                harmless += 1
            except DeltaimgError:
                found += 1
            target.unlink(missing_ok=True)
        store.objects[name] = original
    assert found > 0
    print(f"{found} damages found, {harmless} harmless to the snapshot restored")
