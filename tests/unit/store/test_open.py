# SPDX-License-Identifier: Apache-2.0
"""Locations as users write them, each the store that it means or one clear refusal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deltaimg.errors import StoreFull, StoreUnavailable, UsageError
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from deltaimg.store.open import SCHEMES, open_store
from deltaimg.store.retry import Backoff, retry


@pytest.mark.parametrize(
    ("location", "folder"),
    [
        ("/srv/repo", "/srv/repo"),
        ("repo", "repo"),
        ("./s3:bucket", "./s3:bucket"),
        ("file:///srv/my%20repo", "/srv/my repo"),
        ("FILE://localhost/srv/repo", "/srv/repo"),
        ("file:///srv/%ff", "/srv/\udcff"),
    ],
)
def test_a_folder_is_named_by_its_path_or_a_url(location: str, folder: str) -> None:
    store = open_store(location)
    assert isinstance(store, LocalStore)
    assert store.properties.folder == store.location == folder


@pytest.mark.parametrize(
    "location",
    ["", "a\0b", "sftp:///repo", "s3:bucket", "file://host/repo", "file://", "file:///a?b", "file:///a%00"],
)
def test_any_other_location_is_refused_and_becomes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        open_store(location)
    assert os.listdir(tmp_path) == []


def test_schemes_are_looked_up_in_lower_case() -> None:
    assert all(scheme == scheme.lower() for scheme in SCHEMES)


def test_a_store_may_be_closed_twice(tmp_path: Path) -> None:
    for store in (open_store(str(tmp_path)), MemoryStore()):
        store.put("maps/a", [b"x"])
        store.close()
        store.close()


class Failing:
    """Fails so many times, then returns how often it was called."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls


def test_what_may_succeed_the_next_time_is_tried_again() -> None:
    assert retry(Failing(1, StoreUnavailable("x", "gone"))) == 2
    assert retry(Failing(2, StoreUnavailable("x", "gone")), Backoff(tries=3, first_s=0)) == 3


@pytest.mark.parametrize(("error", "calls"), [(StoreUnavailable("x", "gone"), 2), (StoreFull("x", "full"), 1)])
def test_the_last_error_is_raised_and_one_that_stays_at_once(error: Exception, calls: int) -> None:
    failing = Failing(9, error)
    with pytest.raises(type(error)):
        retry(failing)
    assert failing.calls == calls
