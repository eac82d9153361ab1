# SPDX-License-Identifier: Apache-2.0
"""Anchors outlive the run in a file, which gets its name only once the run wants that."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from deltaimg.engine.backup.delta_sources import anchor_cache
from deltaimg.engine.backup.delta_sources.anchor_cache import AnchorCache, open_anchor_cache
from deltaimg.errors import OutOfResources

REPOSITORY, BLOCK = "5a" * 16, 4096
CONTENT = np.random.default_rng(1).bytes(16 * BLOCK)
IDS, COUNTS = np.arange(16, dtype=np.uint8).reshape(1, 16), np.array([16])


def open_cache(path: Path) -> tuple[AnchorCache, bool]:
    return open_anchor_cache(str(path), REPOSITORY, block_bytes=BLOCK, content_bytes=len(CONTENT), budget_bytes=1 << 20)


def save(path: Path, *, is_put: bool = True) -> None:
    """Remember the anchors of a record of 16 blocks."""
    cache, is_new = open_cache(path)
    assert is_new
    names, positions = cache.collect(CONTENT)
    cache.remember(names, cache.label_new(positions // BLOCK))
    with cache.begin_saving(str(path), REPOSITORY, IDS, COUNTS) as file:
        if is_put:
            file.put()


def test_anchors_are_found_by_the_next_run(tmp_path: Path) -> None:
    save(tmp_path / "anchors")
    cache, is_new = open_cache(tmp_path / "anchors")
    names, positions = cache.collect(CONTENT)
    found = cache.find(names)
    assert not is_new
    assert len(names) > 100
    assert np.mean(found == 1 + positions // BLOCK) > 0.9


def test_anchors_are_read_where_there_are_no_more_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OutOfResources("threads")

    save(tmp_path / "anchors")
    monkeypatch.setattr(anchor_cache, "start_thread", refuse)
    cache, _ = open_cache(tmp_path / "anchors")
    assert cache.find(cache.collect(CONTENT)[0]).any()


def test_a_run_that_does_not_commit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    save(tmp_path / "anchors", is_put=False)
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_written_is_an_error_once_it_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        save(tmp_path / "file" / "anchors")
