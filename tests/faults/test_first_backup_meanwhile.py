# SPDX-License-Identifier: Apache-2.0
"""A backup on the same host stores the first snapshot of an image while a prune or a check has just listed the snapshots."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deltaimg.api.backup import backup
from deltaimg.api.retention import plan_prune, prune
from deltaimg.api.verification import check
from deltaimg.engine.check.findings import Severity
from deltaimg.format.manifest import SNAPSHOTS
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store
from deltaimg.store.memory import MemoryStore
from tests.support.repositories import make_repository, reopen
from tests.support.wrapping import WrappedStore


class BackedUpInto(WrappedStore):
    """Lets another process finish its backup once the snapshots have been listed for the first time."""

    def __init__(self, inner: Store, back_up: Callable[[], None]) -> None:
        super().__init__(inner)
        self._back_up, self.is_done = back_up, False

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        yield
        if call.startswith(f"list {SNAPSHOTS}") and not self.is_done:
            self.is_done = True
            self._back_up()


def check_finds_nothing(repository: Repository) -> None:
    assert check(repository).of(Severity.ERROR) == []


@pytest.mark.parametrize("look", [prune, plan_prune, check_finds_nothing])
def test_a_first_snapshot_that_comes_meanwhile_has_not_vanished(
    tmp_path: Path, look: Callable[[Repository], object]
) -> None:
    image, store = tmp_path / "vm.raw", MemoryStore()
    image.write_bytes(os.urandom(50_000))
    repository = make_repository(store)
    backup(repository, str(image), "vm1")
    watched = BackedUpInto(store, lambda: backup(repository, str(image), "vm2") and None)
    look(reopen(repository, watched))
    assert watched.is_done
    assert {ref.image for ref in repository.list_snapshots()} == {"vm1", "vm2"}
