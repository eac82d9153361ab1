# SPDX-License-Identifier: Apache-2.0
"""The cache of a host: listed by name and size, bounded over all images, cleaned of what is left over."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.api.cache import clean_cache, find_cache_folder, is_leftover, list_cache
from deltaimg.engine.backup.cache_folder import CacheFolder
from deltaimg.engine.backup.delta_sources.content_cache import ContentCache
from deltaimg.errors import CacheError
from deltaimg.repo.creation import create_repository
from deltaimg.store.local import LocalStore
from tests.support.clock import START
from tests.support.images import edit_at_random, make_mixed_image
from tests.support.repositories import back_up_image

ID = "0123456789abcdef" * 2


def keep(folder: Path, image: str, name: str, size: int, *, age_s: float, repository_id: str = ID) -> Path:
    """Make a file of the cache that was used so long ago."""
    path = folder / repository_id / f"{image}{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_what_was_used_longest_ago_goes_first_over_all_images_and_content_before_anchors(tmp_path: Path) -> None:
    other = "f" * 32
    oldest = keep(tmp_path, "a", f".content/{'1' * 32}.content", 1000, age_s=900)
    anchors = keep(tmp_path, "a", ".anchors", 1000, age_s=800)
    newer = keep(tmp_path, "b.raw", f".content/{'2' * 32}.content", 1000, age_s=700, repository_id=other)
    newest = keep(tmp_path, "a", f".content/{'3' * 32}.content", 1000, age_s=5)
    cache = CacheFolder(str(tmp_path))
    for budget, left in (
        (4000, {oldest, anchors, newer, newest}),
        (3000, {anchors, newer, newest}),
        (2999, {anchors, newest}),
    ):
        cache.trim(budget)
        assert {path for path in (oldest, anchors, newer, newest) if path.exists()} == left
    cache.trim(0)
    assert cache.list_images() == []


def test_content_that_is_read_counts_as_used(tmp_path: Path) -> None:
    record = bytes.fromhex("1" * 32)
    path = keep(tmp_path, "a", f".content/{'1' * 32}.content", 1000, age_s=900)
    other = keep(tmp_path, "a", f".content/{'2' * 32}.content", 1000, age_s=800)
    content = memoryview(bytearray(b"x" * 1000))
    assert ContentCache(str(path.parent), 0).read(record, content)
    assert bytes(content) == bytes(1000)
    CacheFolder(str(tmp_path)).trim(1000)
    assert path.exists()
    assert not other.exists()


@pytest.mark.parametrize("length", [999, 1001])
def test_content_of_another_length_is_not_taken(tmp_path: Path, length: int) -> None:
    path = keep(tmp_path, "a", f".content/{'1' * 32}.content", 1000, age_s=900)
    cache = ContentCache(str(path.parent), 0)
    assert not cache.read(bytes.fromhex("1" * 32), memoryview(bytearray(length)))
    assert not cache.read(bytes.fromhex("2" * 32), memoryview(bytearray(1000)))


def test_temporaries_of_dead_runs_go_and_those_of_live_ones_and_foreign_files_stay(tmp_path: Path) -> None:
    dead = keep(tmp_path, "a", ".anchors.0123abcd", 10, age_s=90_000)
    live = keep(tmp_path, "a", ".anchors.0123abce", 10, age_s=60)
    foreign = keep(tmp_path, "notes", ".txt", 10, age_s=900_000)
    elsewhere = keep(tmp_path, "a", ".anchors", 10, age_s=900_000, repository_id="somebody's folder")
    CacheFolder(str(tmp_path)).trim(0)
    assert [path.exists() for path in (dead, live, foreign, elsewhere)] == [False, True, True, True]


def test_backups_of_several_images_keep_to_one_bound_and_are_listed_by_name(tmp_path: Path) -> None:
    repository = create_repository(LocalStore(str(tmp_path / "repo")), created=START, software="test")
    folder, budget = tmp_path / "cache", 600_000
    for name in ("a", "b", "c"):
        image = make_mixed_image(2 << 20, seed=ord(name))
        for _ in range(3):
            back_up_image(repository, image, name, cache_folder=str(folder), cache_budget_bytes=budget, delta="zstd")
            edit_at_random(image)
        assert (
            sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "location")
            <= budget
        )
    found = list_cache(str(folder))
    assert {each.image for each in found} <= {"a", "b", "c"}
    assert found[-1].image == "c"
    assert {each.location for each in found} == {str(tmp_path / "repo")}
    assert not any(is_leftover(each) for each in found)
    (tmp_path / "repo").rename(tmp_path / "moved")
    assert all(is_leftover(each) for each in found)
    create_repository(LocalStore(str(tmp_path / "repo")), created=START, software="test")
    assert all(is_leftover(each) for each in found), "another repository is there now"
    assert clean_cache(str(folder), found) == sum(each.anchor_bytes + each.content_bytes for each in found) > 0
    assert list(folder.iterdir()) == []


def test_a_cache_that_cannot_be_cleaned_is_named(make_tmpfs: Callable[[int], Path]) -> None:
    folder = make_tmpfs(1 << 20)
    keep(folder, "a", ".anchors", 10, age_s=0)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    with pytest.raises(CacheError, match="the cache cannot be changed: Read-only file system"):
        clean_cache(str(folder), list_cache(str(folder)))


def test_a_cache_is_found_where_there_is_a_home_folder_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, a backup made the folder that HOME named, wherever that was."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_cache_folder() == str(tmp_path / ".cache" / "deltaimg")
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    assert find_cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert find_cache_folder() == str(tmp_path / "xdg" / "deltaimg")
