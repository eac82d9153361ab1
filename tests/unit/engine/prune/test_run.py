# SPDX-License-Identifier: Apache-2.0
"""Prune: space is reclaimed, every snapshot that is kept restores byte for byte, and nobody at work loses anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deltaimg.engine.backup.run import back_up
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.prune.run import PruneResult, plan_prune, prune
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.errors import LockLost, ReachabilityUnknown, RepositoryLocked, StoreUnavailable
from deltaimg.format.deletion import LOCKS_SUFFIX
from deltaimg.format.manifest import Manifest
from deltaimg.options.backup import BackupOptions
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import MaintenanceLock, ReaderLock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.images import PAGE, SyntheticImage, make_incompressible_image
from tests.support.locks import remove_claims
from tests.support.repositories import assert_restores, back_up_image, count_stored_bytes, make_repository
from tests.support.retention import HookedStore, PausedSource, keep_only, list_manifests
from tests.support.wrapping import WatchedStore

SIZE = 1 << 20


def prune_now(repository: Repository, **options: object) -> PruneResult:
    return prune(repository, PruneOptions(**options), clock=FixedClock())  # type: ignore[arg-type]


def names(repository: Repository, kind: str) -> set[str]:
    return {found.name for found in repository.objects.store.list(kind)}


def two_images(repository: Repository) -> tuple[SyntheticImage, Manifest, SyntheticImage, Manifest]:
    """Return two images that share nothing, and their snapshots."""
    first, second = make_incompressible_image(SIZE, seed=1), make_incompressible_image(SIZE, seed=2)
    return first, back_up_image(repository, first, "a"), second, back_up_image(repository, second, "b")


def check_all(repository: Repository, contents: dict[str, bytes]) -> None:
    """Each snapshot that stands restores."""
    manifests = list_manifests(repository)
    assert {manifest.id for manifest in manifests} == contents.keys()
    for manifest in manifests:
        assert_restores(repository, manifest, contents[manifest.id])


# -- space -----------------------------------------------------------------------------------------------------------


def test_what_is_forgotten_gives_its_space_back() -> None:
    repository, alone = make_repository(), make_repository()
    first, kept, _, _ = two_images(repository)
    back_up_image(alone, first, "a")
    keep_only(repository, [kept.id])
    before = count_stored_bytes(repository)
    result = prune_now(repository)
    assert before - count_stored_bytes(repository) == result.freed_bytes - result.written_bytes
    # Manifests say how long their backups took, in more digits or in fewer.
    assert abs(count_stored_bytes(repository) - count_stored_bytes(alone)) < 16
    check_all(repository, {kept.id: bytes(first.content)})


def test_a_repository_without_snapshots_is_left_with_its_config() -> None:
    repository = make_repository()
    two_images(repository)
    keep_only(repository, [])
    prune_now(repository)
    assert names(repository, "") == {"config"}


def test_nothing_to_do_writes_and_deletes_nothing() -> None:
    repository = make_repository()
    first, kept, second, other = two_images(repository)
    before = names(repository, "")
    result = prune_now(repository)
    assert result.plan.is_empty
    assert (result.freed_bytes, result.written_bytes, result.waiting) == (0, 0, ())
    assert names(repository, "") == before
    check_all(repository, {kept.id: bytes(first.content), other.id: bytes(second.content)})


def make_half_used(repository: Repository) -> tuple[Manifest, bytes]:
    """Store one pack of which the first half is needed by the snapshot that is kept, and nothing else."""
    image = make_incompressible_image(2 * SIZE, seed=3)
    back_up_image(repository, image, "a")
    content = bytes(image.content)[:SIZE]
    image.resize(SIZE)
    kept = back_up_image(repository, image, "a")
    keep_only(repository, [kept.id])
    return kept, content


def test_a_pack_that_is_half_used_is_repacked() -> None:
    repository = make_repository()
    kept, content = make_half_used(repository)
    result = prune_now(repository)
    assert len(result.plan.repacked_packs) == 1
    assert SIZE < count_stored_bytes(repository) < 1.02 * SIZE
    check_all(repository, {kept.id: content})
    assert prune_now(repository).plan.is_empty


def test_packs_are_left_alone_below_the_bound_of_unused_bytes() -> None:
    repository = make_repository()
    kept, content = make_half_used(repository)
    result = prune_now(repository, max_unused_percent=60)
    assert not result.plan.repacked_packs
    assert result.plan.unused_bytes > 0.9 * SIZE
    check_all(repository, {kept.id: content})


def test_no_more_is_written_than_allowed() -> None:
    repository = make_repository()
    make_half_used(repository)
    assert not prune_now(repository, max_repack_bytes=SIZE // 2).plan.repacked_packs


def test_a_plan_says_beforehand_how_much_is_reclaimed() -> None:
    repository = make_repository()
    make_half_used(repository)
    before = count_stored_bytes(repository)
    forecast = plan_prune(repository, PruneOptions())
    plan = forecast.plan
    assert count_stored_bytes(repository) == before
    result = prune_now(repository)
    assert plan.freed_bytes == result.freed_bytes
    assert abs(plan.written_bytes - result.written_bytes) < 2048
    assert not forecast.waiting


def test_a_plan_reads_neither_packs_nor_signatures() -> None:
    repository = make_repository()
    make_half_used(repository)
    counting = WatchedStore(repository.objects.store)
    plan_prune(Repository(counting, repository.config), PruneOptions())
    read = [call for call in counting.calls if call.startswith("get")]
    assert read
    assert not any("packs/" in call or "signatures/" in call for call in read)


def test_index_objects_do_not_become_more_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("plan", "repack"):
        monkeypatch.setattr(f"deltaimg.engine.prune.{module}.MAX_INDEXES", 8)
    repository, clock = make_repository(), FixedClock()
    image = SyntheticImage(12 * PAGE, seed=4)
    for number in range(10):
        image.write_random(number * PAGE, PAGE)
        clock.advance(days=1)
        kept = back_up_image(repository, image, "a", clock=clock, delta="none")
    assert len(names(repository, "index/")) == 10
    prune_now(repository)
    assert len(names(repository, "index/")) <= 4
    assert_restores(repository, kept, bytes(image.content))
    assert prune_now(repository).plan.is_empty


def test_what_a_dead_backup_left_behind_goes() -> None:
    repository = make_repository()
    broken = FaultyStore(repository.objects.store, StoreUnavailable("x", "gone"), fail_at=None)
    image = make_incompressible_image(SIZE, seed=5)
    back_up_image(Repository(broken, repository.config), image, "a")
    at = next(number for number, call in enumerate(broken.calls) if call.startswith("put index/"))
    again = make_repository()
    broken = FaultyStore(again.objects.store, StoreUnavailable("x", "gone"), fail_at=at)
    with pytest.raises(StoreUnavailable):
        back_up_image(Repository(broken, again.config), image, "a")
    assert names(again, "packs/")
    prune_now(again)
    assert names(again, "") == {"config"}


# -- what cannot be known ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["snapshots/", "maps/", "index/"])
@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_nothing_is_deleted_where_what_is_needed_cannot_be_told(kind: str, harm: str) -> None:
    repository = make_repository()
    _, kept, _, _ = two_images(repository)
    keep_only(repository, [kept.id])
    assert isinstance(repository.objects.store, MemoryStore)
    victim = f"maps/{kept.maps[0]}" if kind == "maps/" else next(iter(sorted(names(repository, kind))))
    if kind == "index/":
        entries = {name: load_index(repository) for name in names(repository, kind)}
        assert len(entries) == 2
    if harm == "damaged":
        repository.objects.store.objects[victim] = repository.objects.store.objects[victim][:-1] + b"?"
    else:
        del repository.objects.store.objects[victim]
    if harm == "missing" and kind != "maps/":
        return  # a snapshot less, and an index less: the one is forgotten, the other is for the next test
    before = names(repository, "")
    with pytest.raises(ReachabilityUnknown) as caught:
        prune_now(repository)
    assert victim in str(caught.value)
    assert names(repository, "") == before


@pytest.mark.parametrize("kind", ["index/", "packs/"])
def test_nothing_is_deleted_where_something_needed_is_missing(kind: str) -> None:
    repository = make_repository()
    two_images(repository)
    assert isinstance(repository.objects.store, MemoryStore)
    del repository.objects.store.objects[next(iter(sorted(names(repository, kind))))]
    before = names(repository, "")
    with pytest.raises(ReachabilityUnknown):
        prune_now(repository)
    assert names(repository, "") == before


def test_a_damaged_record_is_not_copied_and_its_pack_stays() -> None:
    repository = make_repository()
    kept, _ = make_half_used(repository)
    pack = next(iter(names(repository, "packs/")))
    assert isinstance(repository.objects.store, MemoryStore)
    damaged = bytearray(repository.objects.store.objects[pack])
    damaged[SIZE // 4] ^= 1
    repository.objects.store.objects[pack] = bytes(damaged)
    prune_now(repository)
    assert pack in names(repository, "packs/")
    SnapshotContent(repository, kept, load_index(repository)).make_reader().read(SIZE // 2 + PAGE, PAGE)


# -- beside others -----------------------------------------------------------------------------------------------------


def test_two_prunes_do_not_meet() -> None:
    repository = make_repository()
    with MaintenanceLock(repository, "test", START), pytest.raises(RepositoryLocked):
        prune_now(repository)


def test_a_prune_that_lost_its_lock_deletes_nothing() -> None:
    repository = make_repository()
    make_half_used(repository)
    assert isinstance(repository.objects.store, MemoryStore)
    packs = names(repository, "packs/")

    def steal() -> None:
        remove_claims(repository.objects.store, ".maintenance")

    hooked = Repository(HookedStore(repository.objects.store, "put index/", steal), repository.config)
    with pytest.raises(LockLost):
        prune_now(hooked)
    assert packs <= names(repository, "packs/")
    assert not load_deletions(repository)


def test_a_reader_keeps_what_it_may_be_reading_and_the_next_prune_takes_it() -> None:
    repository = make_repository()
    first, kept, second, gone = two_images(repository)
    with ReaderLock(repository, "restore", START) as reader:
        content = SnapshotContent(repository, gone, load_index(repository))
        keep_only(repository, [kept.id])
        result = prune_now(repository)
        assert result.freed_bytes == 0
        assert [found.lock.token for found in result.waiting[0].locks] == [reader.token]
        assert result.waiting[0].stored_bytes > SIZE
        assert content.make_reader().read(0, SIZE) == bytes(second.content)
        assert prune_now(repository).plan.is_empty
    result = prune_now(repository)
    assert result.freed_bytes > SIZE
    assert not result.waiting
    assert not load_deletions(repository)
    check_all(repository, {kept.id: bytes(first.content)})


def back_up_paused(
    repository: Repository, image: SyntheticImage, name: str, meanwhile: Callable[[], object]
) -> Manifest:
    return back_up(repository, PausedSource(image, meanwhile), name, BackupOptions(workers=2), clock=FixedClock())


def test_a_backup_may_commit_what_was_listed_for_deletion_while_it_ran() -> None:
    """It began before, and refers to content that no snapshot needed any more when the prune looked."""
    repository = make_repository()
    first, kept, second, _ = two_images(repository)
    keep_only(repository, [kept.id])
    found: list[PruneResult] = []
    late = back_up_paused(repository, second, "c", lambda: found.append(prune_now(repository)))
    assert late.statistics.referenced_bytes == SIZE
    assert found[0].freed_bytes == 0
    assert [lock.label for lock in found[0].waiting[0].locks] == ["c"]
    contents = {kept.id: bytes(first.content), late.id: bytes(second.content)}
    check_all(repository, contents)
    prune_now(repository)
    check_all(repository, contents)
    assert not load_deletions(repository)
    assert prune_now(repository).plan.is_empty
    check_all(repository, contents)


def test_a_backup_may_be_between_its_packs_and_their_index_while_a_prune_runs() -> None:
    for call in ("put signatures/", "put index/", "put maps/", "put snapshots/"):
        repository, image = make_repository(), make_incompressible_image(SIZE, seed=6)
        hooked = HookedStore(repository.objects.store, call, lambda repository=repository: prune_now(repository))
        manifest = back_up_image(Repository(hooked, repository.config), image, "a")
        for _ in range(3):
            check_all(repository, {manifest.id: bytes(image.content)})
            prune_now(repository)
        assert not load_deletions(repository)


def test_a_backup_that_begins_when_its_content_is_pending_deletion_stores_it_again() -> None:
    """Equal content gets other names, so that the prune which goes on later deletes the old objects only."""
    repository = make_repository()
    image = make_incompressible_image(SIZE, seed=7)
    back_up_image(repository, image, "a")
    keep_only(repository, [])
    with ReaderLock(repository, "restore", START):
        prune_now(repository)
        pending = names(repository, "packs/") | names(repository, "signatures/") | names(repository, "maps/")
        manifest = back_up_image(repository, image, "b")
        assert manifest.statistics.new_bytes == SIZE
    check_all(repository, {manifest.id: bytes(image.content)})
    prune_now(repository)
    assert not pending & names(repository, "")
    check_all(repository, {manifest.id: bytes(image.content)})
    assert prune_now(repository).plan.is_empty


def test_an_unchanged_image_goes_on_with_the_map_that_it_has() -> None:
    repository, clock = make_repository(), FixedClock()
    image = make_incompressible_image(SIZE, seed=8)
    first = back_up_image(repository, image, "a", clock=clock)
    quiet = back_up_image(repository, image, "a", clock=clock)
    keep_only(repository, [quiet.id])
    with ReaderLock(repository, "restore", START):
        prune_now(repository)
        again = back_up_image(repository, image, "a", clock=clock)
    assert first.maps == quiet.maps == again.maps
    prune_now(repository)
    check_all(repository, {quiet.id: bytes(image.content), again.id: bytes(image.content)})


def test_what_a_forget_left_beside_manifests_goes() -> None:
    repository = make_repository()
    manifest = back_up_image(repository, make_incompressible_image(SIZE, seed=8), "a")
    other = back_up_image(repository, make_incompressible_image(SIZE, seed=8), "b")
    for each in (manifest, other):
        set_pin(repository, SnapshotRef.of(each), "why", clock=FixedClock())
    repository.remove_snapshot(SnapshotRef.of(manifest))
    prune_now(repository)
    assert names(repository, "annotations/") == {f"annotations/b/{other.id}-00000001"}


def test_layers_that_snapshots_list_stay_whatever_is_forgotten_between_them() -> None:
    repository, image, clock = make_repository(), make_incompressible_image(SIZE, seed=8), FixedClock()
    contents = {}
    for number in range(5):
        image.write_random(number * 100_000, 80_000)
        contents[back_up_image(repository, image, "a", clock=clock).id] = bytes(image.content)
    kept = list(contents)[2]
    maps = names(repository, "maps/")
    keep_only(repository, [kept])
    prune_now(repository)
    assert len(maps) == 5
    assert len(names(repository, "maps/")) == 3
    check_all(repository, {kept: contents[kept]})
    later = back_up_image(repository, image, "a", clock=clock)
    check_all(repository, {kept: contents[kept], later.id: bytes(image.content)})


def _die_before_locks_are_recorded(repository: Repository) -> None:
    at = next(number for number, call in enumerate(_calls_of_prune()) if LOCKS_SUFFIX in call)
    broken = FaultyStore(repository.objects.store, StoreUnavailable("x", "gone"), fail_at=at)
    with pytest.raises(StoreUnavailable):
        prune_now(Repository(broken, repository.config))
    assert load_deletions(repository)[0].waits_for is None


def test_a_list_whose_locks_a_crash_left_unrecorded_gets_them_from_the_next_prune() -> None:
    repository = make_repository()
    first, kept, _, _ = two_images(repository)
    keep_only(repository, [kept.id])
    _die_before_locks_are_recorded(repository)
    with ReaderLock(repository, "restore", START) as reader:
        assert prune_now(repository).freed_bytes == 0
        assert load_deletions(repository)[0].waits_for == {reader.token}
    assert prune_now(repository).freed_bytes > SIZE
    check_all(repository, {kept.id: bytes(first.content)})


def test_a_list_in_the_repository_is_never_replaced() -> None:
    calls = _calls_of_prune()
    assert sum(call.startswith("put deletions/") for call in calls) == 2
    assert not [call for call in calls if call.startswith("replace deletions/")]


def _calls_of_prune() -> list[str]:
    repository = make_repository()
    _, kept, _, _ = two_images(repository)
    keep_only(repository, [kept.id])
    counting = WatchedStore(repository.objects.store)
    prune_now(Repository(counting, repository.config))
    return counting.calls
