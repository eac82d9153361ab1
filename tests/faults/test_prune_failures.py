# SPDX-License-Identifier: Apache-2.0
"""Every call that a prune makes fails, before or after its effect, once or for good: no snapshot loses a byte, and the next
prune brings the space back."""

from __future__ import annotations

import errno
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from deltaimg.crypto.key_slots import Key
from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.rosters import accept_state
from deltaimg.engine.check.run import check
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.prune.run import PruneResult, prune
from deltaimg.errors import DeltaimgError, StoreError, StoreFull, StoreUnavailable
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.faults import FaultyPort, FaultyStore
from tests.support.images import PAGE, SyntheticImage, make_incompressible_image
from tests.support.repositories import KEY, back_up_image, count_stored_bytes, make_repository, open_again, reopen
from tests.support.retention import keep_only, list_manifests
from tests.support.wrapping import WatchedStore

SIZE = 512 << 10


@dataclass(frozen=True, slots=True)
class Prunable:
    """A repository as a dictionary, what its snapshots hold, an image of it as it is now, and what a prune leaves."""

    objects: dict[str, bytes]
    kept: dict[str, bytes]
    image: SyntheticImage
    calls: int
    left_bytes: int

    def copy(self) -> MemoryStore:
        store = MemoryStore()
        store.objects = dict(self.objects)
        return store

    def write(self, folder: Path) -> None:
        for name, data in self.objects.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


@pytest.fixture(scope="module")
def prunable() -> Prunable:
    """What most scenes of this module begin with."""
    return make_prunable()


def make_prunable(key: Key | None = None) -> Prunable:
    """One pack is deleted, one repacked, one kept; of one record most is needed, of others little; a delta has lost sources."""
    store = MemoryStore()
    repository = make_repository(store, key)
    kept = {}
    back_up_image(repository, make_incompressible_image(SIZE, seed=1), "gone")
    shrunk = make_incompressible_image(2 * SIZE, seed=2)
    back_up_image(repository, shrunk, "shrunk")
    shrunk.resize(SIZE * 3 // 2)
    kept[back_up_image(repository, shrunk, "shrunk").id] = bytes(shrunk.content)
    image = make_incompressible_image(SIZE, seed=3)
    back_up_image(repository, image, "edited")
    image.write_random(0, SIZE // 2)
    kept[back_up_image(repository, image, "edited").id] = bytes(image.content)
    image.write(SIZE * 3 // 4 + 300, b"another")
    kept[back_up_image(repository, image, "edited").id] = bytes(image.content)
    table = make_incompressible_image(SIZE, seed=5)
    back_up_image(repository, table, "table")
    quarters = [bytes(table.content[place : place + PAGE // 4]) for place in range(0, SIZE, PAGE)]
    table.zero(0, SIZE)
    table.write(0, b"".join(quarters))
    kept[back_up_image(repository, table, "table").id] = bytes(table.content)
    table.zero(0, SIZE)
    kept[back_up_image(repository, table, "table").id] = bytes(table.content)
    other = make_incompressible_image(SIZE, seed=4)
    kept[back_up_image(repository, other, "other").id] = bytes(other.content)
    keep_only(repository, kept)
    accept_state(repository, FixedClock()())  # where it is encrypted: no run has forgotten the others
    objects = dict(store.objects)
    counting = WatchedStore(store)
    result = prune_now(reopen(repository, counting))
    assert result.plan.dead_packs
    assert result.plan.repacked_packs
    assert len(result.plan.trim.cut)
    assert len(result.plan.trim.splits.entries)
    assert len(result.plan.trim.recoded)
    check_contents(repository, kept)
    return Prunable(objects, kept, image, len(counting.calls), count_stored_bytes(repository))


def prune_now(repository: Repository) -> PruneResult:
    return prune(repository, PruneOptions(), clock=FixedClock())


def try_prune(repository: Repository) -> DeltaimgError | None:
    """Prune and return the error that ended it, if one did; anything but a DeltaimgError fails the test."""
    try:
        prune_now(repository)
    except DeltaimgError as error:
        return error
    return None


def check_after_failure(store: Store, prunable: Prunable, *, backs_up: bool) -> None:
    """What is kept restores; the next prune brings back the same space; the next backup succeeds."""
    for name in [found.name for found in store.list("locks/")]:
        store.delete(name)  # its removal may be what failed, and its owner, this process, lives on
    repository = open_again(store)
    check_contents(repository, prunable.kept)
    assert not check(repository, workers=1).of(Severity.ERROR)
    prune_now(repository)
    assert not load_deletions(repository)
    # A pack, a signature and an index object more; less, where what was split in the first run is not stored twice now.
    assert count_stored_bytes(repository) < prunable.left_bytes + 4096
    check_contents(repository, prunable.kept)
    if backs_up:
        image = prunable.image.copy()
        image.write_random(1000, 50_000)
        manifest = back_up_image(repository, image, "edited")
        check_contents(repository, {**prunable.kept, manifest.id: bytes(image.content)})


def check_contents(repository: Repository, contents: dict[str, bytes]) -> None:
    manifests = list_manifests(repository)
    assert {manifest.id for manifest in manifests} == contents.keys()
    for manifest in manifests:
        content = contents[manifest.id]
        assert (
            SnapshotContent(repository, manifest, load_index(repository)).make_reader().read(0, len(content)) == content
        )


@pytest.mark.parametrize("mode", ["before", "after", "for good"])
@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.long)])
def test_a_prune_survives_the_failure_of_any_store_call(prunable: Prunable, mode: str, stride: int, seed: int) -> None:
    assert prunable.calls > 50
    error: StoreError = StoreUnavailable("x", "gone")
    for number in range(random.Random(seed).randrange(stride), prunable.calls, stride):
        inner = prunable.copy()
        is_lasting = mode == "for good"
        faulty = FaultyStore(inner, error, fail_at=number, after_effect=mode == "after", is_lasting=is_lasting)
        met = try_prune(reopen(open_again(inner), faulty))
        assert met is error or met is None
        check_after_failure(inner, prunable, backs_up=number % 4 == 0)


@pytest.mark.parametrize("stride", [31, pytest.param(1, marks=pytest.mark.long)])
def test_a_prune_of_an_encrypted_repository_survives_it_as_well(
    stride: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "none")  # each scene is a past of its own
    for mode in ("before", "for good"):
        test_a_prune_survives_the_failure_of_any_store_call(make_prunable(KEY), mode, stride, seed)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("stride", [23, pytest.param(1, marks=pytest.mark.long)])
def test_a_prune_survives_the_failure_of_any_system_call(
    prunable: Prunable, tmp_path: Path, number: int, stride: int, seed: int
) -> None:
    call = random.Random(seed).randrange(stride)
    tried = 0
    while True:
        folder = tmp_path / f"repo{call}"
        prunable.write(folder)
        port = FaultyPort(number, fail_at=call)
        config = Repository.open(LocalStore(str(folder))).config
        met = try_prune(Repository(LocalStore(str(folder), port), config))
        assert met is None or isinstance(met, StoreFull if number == errno.ENOSPC else StoreUnavailable)
        if not port.has_failed:
            break
        check_after_failure(LocalStore(str(folder)), prunable, backs_up=tried % 8 == 0)
        shutil.rmtree(folder)
        call += stride
        tried += 1
    assert tried * stride > 100
