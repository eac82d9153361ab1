# SPDX-License-Identifier: Apache-2.0
"""The reserved room: made again where it is missing or small, and read back by nobody."""

from __future__ import annotations

import pytest

from deltaimg.repo.object_kinds import RESERVE_NAME
from deltaimg.repo.reserve import RESERVE_BYTES, make_reserve
from deltaimg.store.memory import MemoryStore
from tests.support.repositories import make_repository, reopen
from tests.support.wrapping import WatchedStore


@pytest.mark.parametrize("size_bytes", [None, 0, 1000, RESERVE_BYTES // 2])
def test_one_that_is_missing_or_small_is_made_again(size_bytes: int | None) -> None:
    store = MemoryStore()
    repository = make_repository(store)
    store.delete(RESERVE_NAME)
    if size_bytes is not None:
        store.put(RESERVE_NAME, [bytes(size_bytes)])
    make_reserve(repository)
    assert len(store.get(RESERVE_NAME)) == RESERVE_BYTES


def test_one_that_is_whole_is_neither_read_nor_written() -> None:
    store = MemoryStore()
    repository = make_repository(store)
    make_reserve(repository)
    before = store.get(RESERVE_NAME)
    watched = WatchedStore(store)
    make_reserve(reopen(repository, watched))
    assert watched.calls == [f"get_range {RESERVE_NAME}"]
    assert store.get(RESERVE_NAME) == before
