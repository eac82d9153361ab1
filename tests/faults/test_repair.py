# SPDX-License-Identifier: Apache-2.0
"""Each kind of object is damaged or lost, and repaired: what can be is recovered, the rest is named, nothing is deleted."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path

import pytest

from deltaimg.api.restore_many import restore_newest
from deltaimg.crypto.key_slots import Key
from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.content.snapshot import open_reader
from deltaimg.engine.parity.add import add_parity
from deltaimg.engine.repair.run import RepairReport, repair
from deltaimg.engine.restore.run import restore
from deltaimg.errors import ContentDamaged, LockLost, RepositoryLocked, StoreFull, StoreUnavailable, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.model import KIB
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.lock_watch import remove_lock
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START
from tests.support.faults import FaultyStore
from tests.support.images import SyntheticImage, SyntheticSource, edit_at_random, make_mixed_image
from tests.support.repositories import KEY, Warnings, assert_restores, back_up_image, make_repository, reopen
from tests.support.wrapping import WatchedStore, WrappedStore

FOLDERS = ("packs/", "index/", "signatures/", "maps/", "snapshots/")
HARMS = ("flip", "cut", "lose")
# A manifest that is lost without a trace is as good as forgotten: nothing misses it.
CASES = [(folder, how) for folder in FOLDERS for how in HARMS if (folder, how) != ("snapshots/", "lose")]


Backups = tuple[Repository, list[tuple[Manifest, bytes]], SyntheticImage]


def make_two_backups(size_bytes: int = 300_000, key: Key | None = None) -> Backups:
    """Return a repository of two backups, each manifest with its content, and the image as the second backup read it."""
    return _make_two_backups(size_bytes, key)


@cache
def _make_two_backups(size_bytes: int, key: Key | None) -> Backups:
    repository = make_repository(key=key)
    image = make_mixed_image(size_bytes, seed=1)
    taken = [(back_up_image(repository, image), bytes(image.content))]
    edit_at_random(image)
    taken.append((back_up_image(repository, image), bytes(image.content)))
    return repository, taken, image


def copy_of(repository: Repository) -> Repository:
    store = MemoryStore()
    store.objects = dict(repository.objects.store.objects)  # type: ignore[attr-defined]
    return Repository(store, repository.config, repository.secret)


def objects_of(repository: Repository) -> dict[str, bytes]:
    return repository.objects.store.objects  # type: ignore[attr-defined, no-any-return]


def harm(repository: Repository, name: str, how: str) -> None:
    objects = objects_of(repository)
    data = objects[name]
    if how == "lose":
        del objects[name]
    else:
        middle = len(data) // 2
        objects[name] = data[:-1] if how == "cut" else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def names_of(repository: Repository, folder: str) -> list[str]:
    return [name for name in objects_of(repository) if name.startswith(folder)]


def assert_whole(repository: Repository, key: Key | None = None) -> None:
    for manifest, content in make_two_backups(key=key)[1]:
        assert_restores(repository, manifest, content)
    assert not check(repository, read_packs=True).of(Severity.ERROR)


def assert_damage_is_told(repository: Repository, report: RepairReport) -> None:
    """What the report does not name restores; nothing that was there is gone but by another name."""
    told = {each.ref.id: each for each in report.damage}
    assert told
    present = {ref.id for ref in repository.list_snapshots()}
    for manifest, content in make_two_backups()[1]:
        if manifest.id not in told:
            if manifest.id in present:
                assert_restores(repository, manifest, content)
        elif not told[manifest.id].is_whole:
            for extent in told[manifest.id].extents:
                assert any(content[extent.start : extent.end])


@pytest.mark.parametrize(("folder", "how"), CASES)
def test_a_copy_of_the_repository_makes_everything_whole(folder: str, how: str) -> None:
    original = make_two_backups()[0]
    for name in names_of(original, folder):
        repository = copy_of(original)
        harm(repository, name, how)
        report = repair(repository, copy=copy_of(original))
        assert report.damage == ()
        assert_whole(repository)


@pytest.mark.parametrize(("folder", "how"), CASES)
def test_without_help_what_can_be_is_recovered(folder: str, how: str) -> None:
    original = make_two_backups()[0]
    for name in names_of(original, folder):
        repository = copy_of(original)
        harm(repository, name, how)
        before = dict(objects_of(repository))
        dry = repair(repository, is_dry_run=True)
        assert objects_of(repository) == before, "a dry run changes nothing"
        report = repair(repository)
        kept = set(objects_of(repository).values())
        assert all(data in kept for other, data in before.items() if other != name or report.quarantined), (
            "nothing is deleted"
        )
        if folder in ("index/", "signatures/") or (folder, how) == ("packs/", "cut"):
            assert report.damage == ()
            assert_whole(repository)
        else:
            assert_damage_is_told(repository, report)
            assert {each.ref.id for each in dry.damage} <= {each.ref.id for each in report.damage}
        after = dict(objects_of(repository))
        again = repair(repository)
        assert objects_of(repository) == after, "a second repair finds nothing to do"
        assert again.damage == report.damage


def test_a_manifest_that_is_lost_costs_its_own_snapshot_alone() -> None:
    original = make_two_backups()[0]
    for name in names_of(original, "snapshots/"):
        repository = copy_of(original)
        harm(repository, name, "lose")
        assert not check(repository, read_packs=True).of(Severity.ERROR)
        assert repair(repository).damage == ()
        for manifest, content in make_two_backups()[1]:
            if manifest.object_name != name:
                assert_restores(repository, manifest, content)


@pytest.mark.parametrize("how", ["flip", "lose"])
def test_the_live_image_gives_back_records_whose_blocks_it_still_has(how: str) -> None:
    original, taken, image = make_two_backups()
    newest = names_of(original, "packs/")[-1]
    repository = copy_of(original)
    harm(repository, newest, how)
    dry = repair(repository, source=SyntheticSource(image), is_dry_run=True)
    report = repair(repository, source=SyntheticSource(image))
    assert report.remade_records == dry.remade_records == 1
    assert report.lost_records == 0
    assert report.damage == ()
    assert_whole(repository)
    other = copy_of(original)
    harm(other, newest, how)
    report = repair(other, source=SyntheticSource(make_mixed_image(100_000, seed=77)))
    assert report.lost_records == 1
    assert [each.ref.id for each in report.damage] == [taken[-1][0].id]


def test_the_good_records_of_a_damaged_pack_are_salvaged_and_the_lost_one_is_named() -> None:
    repository = make_repository()
    image = make_mixed_image(3_000_000, seed=5)
    manifest = back_up_image(repository, image)
    pack = names_of(repository, "packs/")[0]
    harm(repository, pack, "flip")
    total = check(repository).records
    report = repair(repository)
    assert report.salvaged_records == total - 1
    assert report.lost_records == 1
    assert [each.is_whole for each in report.damage] == [False]
    assert f"quarantine/{pack}" in objects_of(repository)
    lost = sum(extent.end - extent.start for extent in report.damage[0].extents)
    assert 0 < lost <= 512 * 1024
    report = repair(repository, source=SyntheticSource(image))
    assert report.damage == ()
    assert_restores(repository, manifest, image.content)


class BadSectorStore(WrappedStore):
    """A disk with a bad sector, of 512 bytes in the middle of an object: where this is read, EIO is all that comes."""

    def __init__(self, inner: Store, name: str) -> None:
        super().__init__(inner)
        self.name, self.start = name, len(inner.get(name)) // 2

    def around(self, call: str) -> AbstractContextManager[None]:
        return nullcontext()

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        return self._read(name, 0, None, super().get(name, max_bytes))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._read(name, offset, length, super().get_range(name, offset, length))

    def _read(self, name: str, offset: int, length: int | None, data: bytes) -> bytes:
        if name == self.name and offset < self.start + 512 and self.start < offset + len(data):
            raise StoreUnavailable(name, "fails: Input/output error") from OSError(errno.EIO, os.strerror(errno.EIO))
        return data


def test_a_bad_sector_in_a_pack_costs_what_lies_on_it_and_no_repair() -> None:
    """A repair ended with the error of the disk, so that nothing was repaired, in other packs neither."""
    repository = make_repository()
    image = make_mixed_image(3_000_000, seed=5)
    manifest = back_up_image(repository, image)
    pack = names_of(repository, "packs/")[0]
    total = check(repository).records
    failing = reopen(repository, BadSectorStore(repository.objects.store, pack))
    assert repair(failing, is_dry_run=True).lost_records == 1
    report = repair(failing)
    assert (report.salvaged_records, report.lost_records) == (total - 1, 1)
    assert pack in report.quarantined
    assert [each.is_whole for each in report.damage] == [False]
    assert repair(failing, source=SyntheticSource(image)).damage == ()
    assert_restores(failing, manifest, image.content)


def test_a_restore_beside_a_bad_sector_lacks_what_lies_on_it_and_no_more(tmp_path: Path) -> None:
    """One request brings up to 2 MiB of records, and all of them were given up."""
    repository = make_repository()
    image = make_mixed_image(3_000_000, seed=5)
    manifest = back_up_image(repository, image)
    failing = reopen(repository, BadSectorStore(repository.objects.store, names_of(repository, "packs/")[0]))
    with pytest.raises(StoreUnavailable):
        restore(failing, manifest, str(tmp_path / "none"))
    result = restore(failing, manifest, str(tmp_path / "image"), keep_going=True)
    expected = bytearray(image.content)
    for extent in result.damage:
        expected[extent.start : extent.end] = bytes(extent.length)
    assert (tmp_path / "image").read_bytes() == expected
    assert 0 < sum(extent.length for extent in result.damage) <= 512 * KIB
    # The same at any offset, as a mount reads.
    with open_reader(failing, manifest) as reader:
        found, damage = reader.read_what_is_left(0, len(image.content))
        assert found == expected
        assert sorted(damage) == sorted(result.damage)
        start, end = damage[0].start, damage[-1].end
        with pytest.raises(ContentDamaged, match=f"bytes {start} to "):
            reader.read(0, len(image.content))
        assert reader.read(0, start) == image.content[:start]
        assert reader.read(end, len(image.content)) == image.content[end:]


@pytest.mark.parametrize("folder", ["packs/", "maps/", "snapshots/vm1/"])
def test_a_bad_sector_costs_a_restore_of_all_images_one_of_them(tmp_path: Path, folder: str) -> None:
    repository = make_repository()
    back_up_image(repository, make_mixed_image(1_000_000, seed=5), "vm1")
    failing = reopen(repository, BadSectorStore(repository.objects.store, names_of(repository, folder)[0]))
    image = make_mixed_image(1_000_000, seed=6)
    back_up_image(repository, image, "vm2")
    done = restore_newest(failing, str(tmp_path))
    assert {name: type(error) for name, error in done.failed.items()} == {"vm1": StoreUnavailable}
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [image.content]


@pytest.mark.parametrize("folder", ["index/", "signatures/"])
def test_what_follows_from_packs_is_made_again_where_a_bad_sector_took_it(folder: str) -> None:
    original = make_two_backups()[0]
    for name in names_of(original, folder):
        failing = reopen(original, BadSectorStore(copy_of(original).objects.store, name))
        assert repair(failing).damage == ()
        for manifest, content in make_two_backups()[1]:
            assert_restores(failing, manifest, content)
        assert not check(failing, read_packs=True).of(Severity.ERROR)


def test_a_store_that_fails_otherwise_ends_a_repair_and_nothing_is_moved() -> None:
    original = make_two_backups()[0]
    repository = copy_of(original)
    harm(repository, names_of(repository, "packs/")[0], "flip")
    before = dict(objects_of(repository))

    class Gone(BadSectorStore):
        def _read(self, name: str, offset: int, length: int | None, data: bytes) -> bytes:
            if name == self.name:
                raise StoreUnavailable(name, "the server does not answer")
            return data

    with pytest.raises(StoreUnavailable):
        repair(reopen(original, Gone(repository.objects.store, names_of(repository, "packs/")[0])))
    assert {name: data for name, data in objects_of(repository).items() if not name.startswith("locks/")} == before


def test_everything_but_snapshots_and_packs_may_be_lost_at_once() -> None:
    original = make_two_backups()[0]
    repository = copy_of(original)
    for folder in ("index/", "signatures/"):
        for name in names_of(repository, folder):
            harm(repository, name, "lose")
    report = repair(repository)
    assert report.indexed_packs == len(names_of(original, "packs/"))
    assert report.damage == ()
    assert_whole(repository)


def break_much(repository: Repository) -> None:
    """Damage the first pack's end, its index, and the second signature: all of which is repaired without help."""
    harm(repository, names_of(repository, "packs/")[0], "cut")
    harm(repository, names_of(repository, "index/")[0], "flip")
    harm(repository, names_of(repository, "signatures/")[-1], "lose")


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_a_repair_that_fails_at_any_call_is_run_again(
    after_effect: bool, key: Key | None, request: pytest.FixtureRequest
) -> None:
    original = make_two_backups(key=key)[0]
    broken = copy_of(original)
    break_much(broken)
    error = StoreUnavailable("x", "gone")
    counting = WatchedStore(copy_of(broken).objects.store)
    assert repair(reopen(original, counting)).damage == ()
    is_long = request.config.getoption("--long")
    changing = counting.changing
    assert len(changing) > 8
    for number in range(len(counting.calls)) if is_long else changing:
        repository = copy_of(broken)
        faulty = FaultyStore(
            repository.objects.store, error, fail_at=number, after_effect=after_effect, is_lasting=True
        )
        with suppress(StoreUnavailable):
            repair(reopen(original, faulty))
        for name in names_of(repository, "locks/"):
            repository.objects.store.delete(name)  # its owner, this process, lives on
        report = repair(repository)
        assert report.damage == (), counting.calls[number]
        assert_whole(repository, key)


class NoRoomForPacks(WrappedStore):
    """A store that replaces no pack, for want of room."""

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        if call.startswith("replace packs/"):
            raise StoreFull(call, "no room")
        yield


def test_a_repair_that_never_ends_keeps_what_is_damaged_once() -> None:
    original = make_two_backups()[0]
    broken = copy_of(original)
    name = names_of(broken, "packs/")[0]
    harm(broken, name, "flip")
    damaged = objects_of(broken)[name]
    for _ in range(3):
        with pytest.raises(StoreFull):
            repair(reopen(original, NoRoomForPacks(broken.objects.store)), copy=original)
    repair(broken, copy=original)
    assert_whole(broken)
    assert [objects_of(broken)[each] for each in names_of(broken, "quarantine/")] == [damaged]


def test_only_one_repairs_and_a_copy_is_of_the_same_repository() -> None:
    original = make_two_backups()[0]
    repository = copy_of(original)
    with MaintenanceLock(repository, "prune", START), pytest.raises(RepositoryLocked):
        repair(repository)
    with pytest.raises(UsageError, match="is no copy of"):
        repair(repository, copy=make_repository())


def test_a_sound_repository_is_left_alone() -> None:
    original = make_two_backups()[0]
    repository = copy_of(original)
    before = dict(objects_of(repository))
    report = repair(repository, copy=copy_of(original))
    assert objects_of(repository) == before
    assert (report.damage, report.copied, report.quarantined) == ((), [], [])


@pytest.mark.parametrize("how", HARMS)
def test_a_pack_that_parity_covers_is_repaired_byte_for_byte(how: str) -> None:
    repository, taken, _ = make_two_backups()
    protected = copy_of(repository)
    add_parity(protected, 100.0, clock=lambda: START)
    before = dict(objects_of(protected))
    for name in names_of(repository, "packs/"):
        harmed = copy_of(protected)
        harm(harmed, name, how)
        assert repair(harmed, is_dry_run=True).recovered == [name]
        report = repair(harmed)
        assert (report.recovered, report.quarantined, report.damage) == ([name], [], ())
        assert objects_of(harmed) == before
        for manifest, content in taken:
            assert_restores(harmed, manifest, content)


def test_a_repair_whose_lock_was_taken_away_moves_nothing() -> None:
    repository, _, _ = make_two_backups()
    harmed = copy_of(repository)
    harm(harmed, names_of(harmed, "packs/")[0], "flip")

    class Thief(Warnings):
        def begin(self, task: str, total_bytes: int | None) -> None:
            for each in list_locks(harmed.objects):
                remove_lock(harmed.objects, each)

    before = dict(objects_of(harmed))
    with pytest.raises(LockLost):
        repair(harmed, progress=Thief())
    assert not [name for name in objects_of(harmed) if name.startswith("quarantine/")]
    assert objects_of(harmed).items() >= before.items()
