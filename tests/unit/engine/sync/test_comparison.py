# SPDX-License-Identifier: Apache-2.0
"""What a comparison at the end of a sync reads, what it takes the store's word for, and how much that says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace

from deltaimg.engine.progress import NoProgress
from deltaimg.engine.sync import comparison
from deltaimg.engine.sync.comparison import Compared, compare
from deltaimg.errors import RepositoryDamaged
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import ANY_NAME, Confirm, Layout, ObjectInfo, Parts, Store, always
from deltaimg.store.memory import MemoryStore
from deltaimg.store.open import open_store
from deltaimg.store.wrapped import WrappedStore
from tests.support.flips import flip
from tests.support.images import make_incompressible_image
from tests.support.repositories import make_repository
from tests.support.s3_servers import S3Server
from tests.support.sync import Family, make_family, make_like, run_sync


class TellingStore(WrappedStore):
    """Says of objects in a listing what a test wants it to."""

    def __init__(self, inner: Store, answers: dict[str, bool]) -> None:
        super().__init__(inner)
        self.answers = answers

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        for found in self.inner.list(prefix, layout):
            yield replace(found, is_as_sent=self.answers.get(found.name.partition("/")[0]))


def compare_all(repository: Repository, *, reads_all: bool = False) -> Compared:
    sent = [found.name for found in repository.objects.list() if found.name.partition("/")[0] in FOLDERS]
    return compare(repository, sent, reads_all=reads_all, progress=NoProgress(), chance=random.Random(3))


FOLDERS = ("packs", "index", "signatures", "maps", "snapshots")


def make_told(answers: dict[str, bool]) -> tuple[Repository, MemoryStore]:
    repository = make_family(3).source
    store = repository.objects.store
    assert isinstance(store, MemoryStore)
    return Repository(TellingStore(store, answers), repository.config), store


def test_an_object_of_which_the_store_tells_the_right_digest_is_not_read() -> None:
    repository, _ = make_told(dict.fromkeys(FOLDERS, True))
    found = compare_all(repository)
    assert (found.digest_objects, found.read_bytes, found.listed_objects) == (found.objects, 0, 0)
    assert found.detects() == 1.0


def test_an_object_of_which_the_store_tells_another_digest_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_LEAST_BYTES", 0)
    repository, store = make_told({"packs": False, "index": True})
    found = compare_all(repository)
    packs = [name for name in store.objects if name.startswith("packs/")]
    assert found.read_objects == len(packs)
    assert found.listed_objects
    store.objects[packs[-1]] = bytes(len(store.objects[packs[-1]]))
    with pytest.raises(RepositoryDamaged, match=packs[-1]):
        compare_all(repository)


def test_all_is_read_whatever_the_store_tells_and_manifests_too() -> None:
    repository, store = make_told(dict.fromkeys(FOLDERS, True))
    found = compare_all(repository, reads_all=True)
    assert (found.digest_objects, found.read_objects, found.listed_objects) == (0, found.objects, 0)
    manifest = max(name for name in store.objects if name.startswith("snapshots/"))
    store.objects[manifest] = store.objects[manifest][:-1] + bytes([store.objects[manifest][-1] ^ 1])
    with pytest.raises(RepositoryDamaged, match=manifest):
        compare_all(repository, reads_all=True)


def test_the_probability_is_that_of_drawing_one_that_is_damaged() -> None:
    assert Compared(objects=100, sampled_objects=5, listed_objects=95).detects() == pytest.approx(0.05)
    two = Compared(objects=200, sampled_objects=10, listed_objects=190)
    assert two.detects() == pytest.approx(1 - (190 / 200) * (189 / 199))
    assert two.detects(0.5) == pytest.approx(1.0, abs=0.01)
    assert Compared(objects=7, digest_objects=2, sampled_objects=5).detects() == 1.0


# -- a store that lies ------------------------------------------------------------------------------------------------


class LyingStore(WrappedStore):
    """Loses what is put into one folder, or changes a byte of it, without a word."""

    def __init__(self, inner: MemoryStore, folder: str, *, is_lost: bool) -> None:
        super().__init__(inner)
        self._objects, self._folder, self._is_lost = inner.objects, folder, is_lost

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        size_bytes = super().put(name, parts, confirm)
        if name.startswith(self._folder):
            data = self._objects.pop(name)
            if not self._is_lost:
                self._objects[name] = flip(data)
        return size_bytes


@pytest.mark.parametrize(
    ("folder", "is_lost", "verify"),
    [("packs/", False, "all"), ("packs/", True, "sample"), ("index/", False, "all"), ("snapshots/", True, "sample")],
)
def test_a_store_that_loses_or_changes_what_is_sent_is_found_out(folder, is_lost, verify):
    family = make_family(2)
    destination = make_like(family.source)
    liar = Repository(LyingStore(destination.objects.store, folder, is_lost=is_lost), destination.config)
    with pytest.raises(RepositoryDamaged, match=f"second: {folder}.* did not arrive"):
        run_sync(family.source, liar, verify=verify)


def test_what_was_sent_is_read_back_where_that_is_asked_for():
    family = make_family(3)
    for verify in ("none", "sample", "all"):
        result = run_sync(family.source, make_like(family.source), verify=verify)
        assert (result.compared.read_bytes > result.stored_bytes * 0.9) == (verify != "none")
        assert bool(result.compared.objects) == (verify != "none")


# -- a real server -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large_family() -> Family:
    """A repository with a pack that is sent in parts, and others that are not."""
    family = Family(make_repository(MemoryStore("first")))
    image = make_incompressible_image(18 << 20, seed=9)
    family.back_up(image)
    image.write(5 << 20, b"changed")
    family.back_up(image)
    return family


def test_a_server_vouches_for_objects_sent_whole_and_in_parts(large_family: Family, s3_server: S3Server) -> None:
    destination = make_like(large_family.source, open_store(s3_server.make_place()))
    found = run_sync(large_family.source, destination, verify="sample").compared
    assert any(each.size_bytes > 16 << 20 for each in destination.objects.list("packs/"))
    assert (found.digest_objects, found.read_bytes) == (found.objects, 0)


def test_a_pack_that_others_changed_in_the_bucket_is_found(large_family: Family, s3_server: S3Server) -> None:
    """It has its size, and all that was sent before the comparison was sent well."""
    destination = make_like(large_family.source, open_store(s3_server.make_place()))
    destination.objects.note_digests()
    run_sync(large_family.source, destination)
    objects = destination.objects
    packs = sorted(objects.list("packs/"), key=lambda each: each.size_bytes)
    for damaged in (packs[0], packs[-1]):
        data = objects.get_bytes(damaged.name)
        changed = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
        key = f"{urlsplit(objects.location).path[1:]}/{damaged.name}"
        s3_server.client().put_object(Bucket=s3_server.shared_bucket, Key=key, Body=changed)
        with pytest.raises(RepositoryDamaged, match=f"{damaged.name} did not arrive"):
            compare_all(destination)
        s3_server.client().delete_object(Bucket=s3_server.shared_bucket, Key=key)
        objects.put_bytes(damaged.name, [data])
    assert compare_all(destination).digest_objects
