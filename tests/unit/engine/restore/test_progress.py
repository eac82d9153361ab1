# SPDX-License-Identifier: Apache-2.0
"""Progress of restores and verifications reaches its end when the work does, deltas and their sources included."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from deltaimg.engine.restore.run import restore
from deltaimg.engine.restore.verify import verify
from tests.support.images import edit_at_random, make_mixed_image
from tests.support.repositories import back_up_image, make_repository


class Recorded:
    """What each stage was to do, and did."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None, int]] = []

    def begin(self, task: str, total_bytes: int | None) -> None:
        self.stages.append((task, total_bytes, 0))

    def end(self) -> None: ...

    def advance(self, done_bytes: int) -> None:
        task, total, done = self.stages[-1]
        self.stages[-1] = task, total, done + done_bytes

    def warn(self, message: str) -> None:
        raise AssertionError(message)


@pytest.mark.parametrize("target", ["file", "stream"])
def test_every_stage_with_a_total_does_exactly_that(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verify stood at "445 MiB of 445 MiB, 0.0 s left" while it decoded what only deltas needed."""
    repository, image = make_repository(), make_mixed_image(3_000_000, seed=8)
    for _ in range(4):
        manifest = back_up_image(repository, image, delta="zstd", cache_folder=str(tmp_path / "cache"))
        edit_at_random(image)
    seen = Recorded()
    if target == "file":
        restore(repository, manifest, str(tmp_path / "out"), progress=seen)
        verify(repository, repository.list_snapshots(), progress=seen)
        assert {"restoring", "verifying 4 snapshots"} <= {task for task, _, _ in seen.stages}
    else:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = threading.Thread(target=pipe.read_bytes)
        reader.start()
        restore(repository, manifest, str(pipe), is_forced=True, progress=seen)
        reader.join()
        assert {"loading delta sources", "restoring"} <= {task for task, _, _ in seen.stages}
    for task, total, done in seen.stages:
        assert total is None or done == total, (task, total, done)
