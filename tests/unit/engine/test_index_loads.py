# SPDX-License-Identifier: Apache-2.0
"""A run loads the index once, however many parts of it need it; prune and repair look again, at what they changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.api.compare import diff
from deltaimg.api.inspection import inspect
from deltaimg.cli.plot import CELLS
from deltaimg.engine.inspect.change_map import map_changes
from deltaimg.engine.parity.add import add_parity
from deltaimg.engine.parity.repair import repair_packs
from deltaimg.engine.restore.run import restore
from deltaimg.engine.restore.verify import verify
from deltaimg.engine.retention.flatten import flatten
from deltaimg.errors import StoreUnavailable
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.faults import FaultyStore
from tests.support.images import make_mixed_image
from tests.support.repositories import back_up_image, make_repository

Run = Callable[[Repository, Path], object]


def newest(repository: Repository) -> SnapshotRef:
    return repository.list_snapshots()[-1]


def back_up_again(repository: Repository, _folder: Path) -> object:
    image = make_mixed_image(300_000)
    image.content[:9000] = bytes(9000)
    clock = FixedClock()
    clock.advance(days=9)
    return back_up_image(repository, image, clock=clock)


def draw(repository: Repository, _folder: Path) -> object:
    return map_changes(diff(repository, "vm1~1", "vm1"), CELLS)


RUNS: dict[str, Run] = {
    "backup": back_up_again,
    "restore": lambda repository, folder: restore(
        repository, repository.load_manifest(newest(repository)), str(folder / "restored"), workers=1
    ),
    "verify": lambda repository, _: list(verify(repository, repository.list_snapshots(), clock=FixedClock())),
    "show": lambda repository, _: inspect(repository, repository.load_manifest(newest(repository))),
    "diff": draw,
    "flatten": lambda repository, _: flatten(repository, newest(repository), clock=FixedClock(), workers=1),
    "parity add": lambda repository, _: add_parity(repository, 10, clock=FixedClock()),
    "parity repair": lambda repository, _: repair_packs(repository, clock=FixedClock()),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_loads_the_index_once(name: str, tmp_path: Path) -> None:
    if name.startswith("parity"):
        pytest.importorskip("pyeclib")
    clock, image = FixedClock(), make_mixed_image(300_000)
    repository = make_repository(store := MemoryStore())
    back_up_image(repository, image, clock=clock)
    image.content[100_000:120_000] = image.content[:20_000]
    clock.advance(days=1)
    back_up_image(repository, image, clock=clock)
    counting = FaultyStore(store, StoreUnavailable("x", "gone"), fail_at=None)
    RUNS[name](Repository(counting, repository.config), tmp_path)
    assert counting.calls.count("list index/") == 1
