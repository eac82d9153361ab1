# SPDX-License-Identifier: Apache-2.0
"""Eight processes back up, a ninth forgets and prunes, all in one repository at the same time: nothing is lost."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from deltaimg.api.repositories import create_repository, open_repository
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.prune.run import prune
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.index import load_index
from tests.support.world import assert_sound

IMAGES = [f"vm{number}" for number in range(8)]
KEPT = 3


def test_backups_side_by_side_with_forget_and_prune_lose_nothing(
    tmp_path: Path, seed: int, is_long: bool, record_property: Callable[[str, object], None]
) -> None:
    seconds = 240 if is_long else 12
    repo = tmp_path / "repo"
    create_repository(str(repo))

    def start(task: str, name: str, number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.support.busy_process", task, str(repo), name, str(number), str(seconds)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    workers = {name: start("backup", name, seed + number) for number, name in enumerate(IMAGES)}
    maintainer = start("maintain", ",".join(IMAGES), KEPT)
    said = {name: worker.communicate(timeout=seconds + 300) for name, worker in workers.items()}
    maintained, problem = maintainer.communicate(timeout=300)
    assert maintainer.returncode == 0, problem
    for name, worker in workers.items():
        assert worker.returncode == 0, said[name][1]
    repository = open_repository(str(repo))
    prune(repository)
    assert not load_deletions(repository)
    assert_sound(repository)
    committed = 0
    for name in IMAGES:
        digests = dict(line.split() for line in said[name][0].splitlines())
        committed += len(digests)
        listed = {ref.id: ref for ref in repository.list_snapshots(name)}
        assert list(digests)[-KEPT:] == [each for each in listed if each in list(digests)[-KEPT:]]
        for snapshot, ref in listed.items():
            manifest = repository.load_manifest(ref)
            content = (
                SnapshotContent(repository, manifest, load_index(repository)).make_reader().read(0, manifest.size_bytes)
            )
            assert hashlib.sha256(content).hexdigest() == digests[snapshot]
    done = Counter(maintained.split())
    record_property("side by side", f"{committed} snapshots committed in {seconds} s, meanwhile {dict(done)}")
    assert committed > 2 * len(IMAGES)
    assert done["forget"]
    assert done["prune"] + done["waited"]
