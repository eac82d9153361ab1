# SPDX-License-Identifier: Apache-2.0
"""A store that withholds, sets back, puts back or exchanges what an encrypted repository has, and hosts that notice.

What others forget is no alarm, and no run that is cut short makes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from deltaimg.engine.check.findings import FindingKind, Severity
from deltaimg.engine.check.rosters import accept_state
from deltaimg.engine.check.run import check
from deltaimg.engine.retention.forget import forget
from deltaimg.engine.sync.request import SyncRequest
from deltaimg.engine.sync.run import sync
from deltaimg.errors import PermissionDenied, StoreUnavailable
from deltaimg.format.manifest import Manifest
from deltaimg.format.roster import MAX_NUMBER, ROSTERS
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.host_places import accept_exchange
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.object_kinds import ROSTER
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.retention import plan_named
from deltaimg.repo.roster_record import Changes, record
from deltaimg.repo.rosters import find_disagreements
from deltaimg.store.counted import CountedStore, TrafficCounter
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.images import SyntheticImage
from tests.support.repositories import KEY, Warnings, assert_restores, back_up_image, make_repository, reopen
from tests.support.wrapping import WrappedStore


class Guest:
    """An encrypted repository in memory and an image that changes from backup to backup."""

    def __init__(self, like: Repository | None = None, location: str = "first") -> None:
        self.store = MemoryStore(location)
        self.repository = make_repository(self.store, key=KEY, like=like)
        accept_exchange(self.repository, START)
        self.image = SyntheticImage(40_000, seed=3)
        self.clock = FixedClock()
        self.warnings: list[str] = []

    def back_up(self) -> Manifest:
        """Back up the image after a change; keep what was warned of."""
        self.clock.advance(hours=1)
        self.image.write_random(4096, 4096)
        progress = Warnings()
        manifest = back_up_image(self.repository, self.image, clock=self.clock, progress=progress)
        self.warnings = progress.messages
        return manifest

    def forget(self, *manifests: Manifest) -> None:
        ids = frozenset(each.id for each in manifests)
        self.clock.advance(minutes=1)
        forget(
            self.repository,
            "vm1",
            lambda snapshots: plan_named(snapshots, ids, is_forced=True),
            clock=self.clock,
        )

    def check(self) -> tuple[list[str], list[str]]:
        """Return the problems that are errors because something is withheld, and those that are warnings."""
        report = check(self.repository)
        errors = report.of(Severity.ERROR)
        assert all(each.kind is FindingKind.WITHHELD for each in errors), errors
        return [each.problem for each in errors], [each.problem for each in report.of(Severity.WARNING)]


@pytest.fixture
def guest() -> Guest:
    return Guest()


def become_host(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))


def rosters_of(store: MemoryStore) -> list[str]:
    return sorted(name for name in store.objects if name.startswith(ROSTERS))


def test_backups_and_forgets_in_any_order_are_no_alarm(guest: Guest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    hosts = [tmp_path / "one", tmp_path / "two"]
    taken = []
    for number in range(6):
        become_host(monkeypatch, hosts[number % 2])
        taken.append(guest.back_up())
        assert not guest.warnings
    for number, each in enumerate((taken[2], taken[0], taken[5])):
        become_host(monkeypatch, hosts[number % 2])
        guest.forget(each)
        for host in hosts:
            become_host(monkeypatch, host)
            assert guest.check() == ([], [])
    guest.back_up()
    assert not guest.warnings
    assert len(rosters_of(guest.store)) == 1


def test_a_snapshot_that_is_withheld_is_named_by_any_host(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    first = guest.back_up()
    second = guest.back_up()
    for withheld in (first, second):
        data = guest.store.objects.pop(withheld.object_name)
        for host in ("one", "two"):
            become_host(monkeypatch, tmp_path / host)
            ((problem,), _) = guest.check()
            assert f"{withheld.label} was there on 2026-" in problem
        guest.store.objects[withheld.object_name] = data
        assert guest.check() == ([], [])
    del guest.store.objects[first.object_name]
    guest.back_up()
    assert len(guest.warnings) == 1
    assert f"{first.label} was there on" in guest.warnings[0]
    assert "check --accept-state" in guest.warnings[0]
    guest.back_up()
    assert len(guest.warnings) == 1, "it is said until it is accepted"
    (accepted,) = accept_state(guest.repository, guest.clock())
    assert first.label in accepted
    assert guest.check() == ([], [])
    guest.back_up()
    assert not guest.warnings


def test_a_repository_that_was_set_back_is_noticed_by_whoever_saw_the_newer_state(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    become_host(monkeypatch, tmp_path / "one")
    guest.back_up()
    old = dict(guest.store.objects)
    guest.back_up()
    guest.store.objects.clear()
    guest.store.objects |= old
    ((problem,), _) = guest.check()
    assert "older than the one of 2 snapshots that this host saw on 2026-" in problem
    manifest = guest.back_up()
    assert any("was set back" in each for each in guest.warnings)
    assert_restores(guest.repository, manifest, guest.image.content)
    ((problem,), _) = guest.check()
    assert "was set back" in problem, "that a backup was made since hides nothing"
    become_host(monkeypatch, tmp_path / "two")
    assert guest.check() == ([], []), "a host that has seen nothing cannot know"
    become_host(monkeypatch, tmp_path / "one")
    assert accept_state(guest.repository, guest.clock())
    assert guest.check() == ([], [])


def test_two_states_shown_to_two_hosts_are_noticed_once_one_sees_the_other_s(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    guest.back_up()
    common = dict(guest.store.objects)
    states = []
    for host in ("one", "two"):
        become_host(monkeypatch, tmp_path / host)
        guest.store.objects.clear()
        guest.store.objects |= common
        guest.back_up()
        assert not guest.warnings
        states.append(dict(guest.store.objects))
    become_host(monkeypatch, tmp_path / "one")
    ((problem,), _) = guest.check()
    assert "does not continue the one of 2 snapshots" in problem
    become_host(monkeypatch, tmp_path / "two")
    guest.back_up()
    become_host(monkeypatch, tmp_path / "one")
    assert "shows each host another state" in guest.check()[0][0]


def test_rosters_that_are_withheld_are_noticed(guest: Guest):
    guest.back_up()
    (name,) = rosters_of(guest.store)
    data = guest.store.objects.pop(name)
    errors, warnings = guest.check()
    assert "there is no roster, and this host saw one of 1 snapshots" in errors[0]
    assert "no roster says which snapshots there are" in warnings[0]
    guest.store.objects[name] = data
    guest.store.objects[f"{ROSTERS}vm1/{MAX_NUMBER:08d}"] = data
    report = check(guest.repository)
    assert any("it belongs at rosters/vm1/" in each.problem for each in report.of(Severity.ERROR))


def test_what_was_forgotten_and_is_put_back_is_named_and_not_recorded(guest: Guest):
    first, second = guest.back_up(), guest.back_up()
    kept = {each.object_name: guest.store.objects[each.object_name] for each in (first, second)}
    guest.forget(first, second)
    guest.back_up()
    assert not guest.warnings
    guest.store.objects |= kept
    errors, warnings = guest.check()
    assert not errors
    assert len([each for each in warnings if "the store has put it back" in each]) == 2
    guest.back_up()
    assert len(guest.warnings) == 2
    guest.forget(first)
    assert len([each for each in guest.check()[1] if "put it back" in each]) == 1
    guest.forget(second)
    assert guest.check() == ([], [])


def test_the_newest_that_was_forgotten_and_is_put_back_is_no_backup_that_was_cut_off(guest: Guest):
    guest.back_up()
    newest = guest.back_up()
    data = guest.store.objects[newest.object_name]
    guest.forget(newest)
    guest.store.objects[newest.object_name] = data
    assert "the store has put it back" in guest.check()[1][0]


def test_the_config_of_another_member_of_the_family_is_noticed(guest: Guest):
    guest.back_up()
    sibling = Guest(like=guest.repository, location="second")
    sibling.back_up()
    guest.store.objects["config"] = sibling.store.objects["config"]
    guest.repository = reopen_from(guest.store, guest.repository)
    report = check(guest.repository)
    problems = {each.object_name: each.problem for each in report.of(Severity.ERROR)}
    assert "its config was exchanged, or another disk is mounted" in problems["config"]
    assert "it is of the repository" in problems[rosters_of(guest.store)[0]]
    guest.back_up()
    assert any("its config was exchanged" in each for each in guest.warnings)


def reopen_from(store: MemoryStore, repository: Repository) -> Repository:
    return Repository(store, Repository.read_config(store), repository.secret)


def test_the_roster_of_another_member_of_the_family_is_refused(guest: Guest):
    guest.back_up()
    sibling = Guest(like=guest.repository, location="second")
    sibling.back_up()
    (name,) = rosters_of(sibling.store)
    guest.store.objects[name] = sibling.store.objects[name]
    report = check(guest.repository)
    assert any("it is of the repository" in each.problem for each in report.of(Severity.ERROR))


def test_an_old_index_and_packs_that_are_put_back_or_taken_from_a_sibling_change_nothing(guest: Guest):
    first = guest.back_up()
    sibling = Guest(like=guest.repository, location="second")
    sibling.image.write(0, b"of the sibling")
    sibling.back_up()
    foreign = {
        name: data
        for name, data in sibling.store.objects.items()
        if name.startswith(("packs/", "index/", "signatures/"))
    }
    guest.store.objects |= foreign
    report = check(guest.repository, read_packs=True)
    assert not report.of(Severity.ERROR)
    assert_restores(guest.repository, first, guest.image.content)


def test_packs_and_indexes_that_are_withheld_are_missed(guest: Guest):
    guest.back_up()
    for folder in ("packs/", "index/", "maps/", "signatures/"):
        kept = dict(guest.store.objects)
        for name in [name for name in kept if name.startswith(folder)]:
            del guest.store.objects[name]
        assert check(guest.repository).of(Severity.ERROR), folder
        guest.store.objects.clear()
        guest.store.objects |= kept


class CutStore(WrappedStore):
    """Fails every call that changes something from the first that begins with `call` on: the process is dead by then."""

    def __init__(self, inner: MemoryStore, call: str, passes: int = 0) -> None:
        super().__init__(inner)
        self._call, self._passes, self._is_cut = call, passes, False

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        if call.startswith(self._call):
            self._passes -= 1
            self._is_cut |= self._passes < 0
        verb, _, name = call.partition(" ")
        # Its locks go, as those of a dead process would.
        if self._is_cut and verb in ("put", "replace", "delete") and not name.startswith("locks/"):
            raise StoreUnavailable("store", "the process is dead")
        yield


@pytest.mark.parametrize("call", [f"put {ROSTERS}", f"delete {ROSTERS}"])
def test_a_backup_that_is_cut_off_after_its_commit_makes_no_alarm(guest: Guest, call: str):
    guest.back_up()
    whole = guest.repository
    guest.repository = reopen(whole, CutStore(guest.store, call))
    guest.back_up()
    guest.repository = whole
    assert guest.check() == ([], [])
    guest.back_up()
    assert not guest.warnings
    assert len(guest.repository.list_snapshots()) == 3
    assert guest.check() == ([], [])


@pytest.mark.parametrize("call", ["delete snapshots/", f"put {ROSTERS}"])
@pytest.mark.parametrize("passes", [0, 1])
def test_a_forget_that_is_cut_off_makes_no_alarm(guest: Guest, call: str, passes: int):
    taken = [guest.back_up() for _ in range(3)]
    whole = guest.repository
    guest.repository = reopen(whole, CutStore(guest.store, call, passes))
    with suppress(StoreUnavailable):
        guest.forget(taken[0], taken[1])
    guest.repository = whole
    if call.startswith("delete") or passes:
        assert guest.check() == ([], [])
        guest.back_up()
        assert not guest.warnings
    guest.forget(*(each for each in taken[:2] if guest.repository.has_snapshot(SnapshotRef.of(each))))
    assert guest.check() == ([], [])


def test_a_sync_keeps_the_roster_of_its_destination_and_forgets_nothing_that_its_source_withholds(guest: Guest):
    taken = [guest.back_up() for _ in range(3)]
    second = Guest(like=guest.repository, location="second")
    sync(SyncRequest(guest.repository, second.repository, clock=guest.clock))
    assert second.check() == ([], [])
    guest.forget(taken[0])
    del guest.store.objects[taken[1].object_name]
    progress = Warnings()
    request = SyncRequest(
        guest.repository, second.repository, SyncOptions(delete=True), clock=guest.clock, progress=progress
    )
    assert [ref.id for ref in sync(request).forgotten] == [taken[0].id]
    assert any(taken[1].label in each for each in progress.messages)
    del second.store.objects[taken[2].object_name]
    assert taken[2].label in second.check()[0][0]


@pytest.mark.parametrize("call", ["put snapshots/", "put packs/", f"put {ROSTERS}"])
@pytest.mark.parametrize("passes", [0, 1])
def test_a_sync_that_is_cut_off_makes_no_alarm(guest: Guest, call: str, passes: int):
    for _ in range(3):
        guest.back_up()
    second = Guest(like=guest.repository, location="second")
    whole = second.repository
    destination = reopen(whole, CutStore(second.store, call, passes))
    with suppress(StoreUnavailable):
        sync(SyncRequest(guest.repository, destination, clock=guest.clock))
    assert second.check()[0] == []
    sync(SyncRequest(guest.repository, whole, clock=guest.clock))
    assert second.check() == ([], [])


def test_a_roster_costs_a_backup_six_requests():
    counts = {}
    for key in (None, KEY):
        store = MemoryStore(f"counted {key is None}")
        repository, image = make_repository(store, key=key), SyntheticImage(40_000, seed=3)
        image.write(0, b"content")
        clock = FixedClock()
        back_up_image(repository, image, clock=clock)
        image.write(0, b"changed")
        clock.advance(hours=1)
        counted = CountedStore(store, TrafficCounter())
        back_up_image(reopen(repository, counted), image, clock=clock)
        counts[key] = sum(counted.traffic.requests.values())
    # The roster listed, read and written, quarantine listed, the lock looked at, the roster before removed.
    assert counts[KEY] - counts[None] == 6


def test_a_roster_that_another_run_has_written_since_is_continued(guest: Guest):
    manifest, repository = guest.back_up(), guest.repository
    with ImageLock(repository, "vm1", "a test", guest.clock()) as lock:
        find_disagreements(repository, "vm1", guest.clock(), lock)
        (name,) = rosters_of(guest.store)
        other = replace(repository.objects.get(ROSTER, name), number=2, removed=("00000000000000ff",))
        repository.objects.put(ROSTER, other.object_name, other)
        added = replace(manifest, id="00000000000000aa", time="20261231T000000.000000Z")
        repository.commit(added)
        record(repository, lock, guest.clock(), Changes(committed=[SnapshotRef.of(added)]))
    (name,) = rosters_of(guest.store)
    roster = repository.objects.get(ROSTER, name)
    assert (roster.number, roster.snapshots, roster.removed) == (3, (manifest.id, added.id), other.removed)


class UndeletableStore(WrappedStore):
    """A store whose user may delete locks only."""

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        if call.startswith("delete") and not call.startswith("delete locks/"):
            raise PermissionDenied(call, "the store refuses it")
        yield


def test_a_host_that_may_not_delete_leaves_old_rosters_to_others(guest: Guest):
    guest.back_up()
    repository, guest.repository = guest.repository, reopen(guest.repository, UndeletableStore(guest.store))
    guest.back_up()
    assert not guest.warnings
    assert len(rosters_of(guest.store)) == 2
    guest.repository = repository
    guest.back_up()
    assert not guest.warnings
    assert len(rosters_of(guest.store)) == 1
    assert guest.check() == ([], [])
