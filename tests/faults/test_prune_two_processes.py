# SPDX-License-Identifier: Apache-2.0
"""A prune beside a backup and a reader that are other processes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.repository import Repository
from deltaimg.store.local import LocalStore
from tests.support.images import make_incompressible_image
from tests.support.program import command, environment, succeed

SIZE = 1 << 20


def test_a_backup_of_another_process_loses_nothing_to_a_prune(tmp_path: Path) -> None:
    """It is held half way, as it reads from a pipe, with content matched that the prune finds unneeded."""
    repo, path = tmp_path / "repo", tmp_path / "vm1.raw"
    image = make_incompressible_image(2 * SIZE, seed=1)
    image.save(path)
    succeed("init", "-r", repo)
    succeed("backup", path, "--image", "gone", "-q", repo=repo)
    repository = Repository.open(LocalStore(str(repo)))
    held = subprocess.Popen(
        command("backup", "-", "--image", "late", "-q", "--block-size", "4K"),
        stdin=subprocess.PIPE,
        env=environment(repo),
    )
    assert held.stdin is not None
    try:
        held.stdin.write(image.content[: SIZE + SIZE // 2])
        held.stdin.flush()
        wait_for(repo / "locks" / "late")
        time.sleep(1.0)
        succeed("forget", "gone@latest", "--force", "-q", repo=repo)
        found = succeed("prune", "--force", "--json", repo=repo).json
        assert found["freed_bytes"] == 0
        assert [lock["name"] for each in found["waiting"] for lock in each["locks"]] == ["late"]
        held.stdin.write(image.content[SIZE + SIZE // 2 :])
        held.stdin.close()
        assert held.wait(timeout=60) == 0
    finally:
        held.kill()
        held.wait()
    for _ in range(2):
        succeed("restore", "late", tmp_path / "out.raw", "--force", "-q", repo=repo)
        assert (tmp_path / "out.raw").read_bytes() == image.content
        assert succeed("prune", "--json", repo=repo).json["waiting"] == []
    assert not load_deletions(repository)


def test_a_dead_process_keeps_no_prune_waiting(tmp_path: Path) -> None:
    repo, path = tmp_path / "repo", tmp_path / "vm1.raw"
    make_incompressible_image(SIZE, seed=2).save(path)
    succeed("init", "-r", repo)
    succeed("backup", path, "--image", "gone", "-q", repo=repo)
    dead = subprocess.Popen(
        command("backup", "-", "--image", "late", "-q"), stdin=subprocess.PIPE, env=environment(repo)
    )
    try:
        wait_for(repo / "locks" / "late")
    finally:
        dead.kill()
        dead.wait()
    assert os.listdir(repo / "locks" / "late")
    succeed("forget", "gone@latest", "--force", "-q", repo=repo)
    found = succeed("prune", "--force", "--json", repo=repo).json
    assert found["waiting"] == []
    assert found["freed_bytes"] > SIZE


def wait_for(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not any(folder.glob("*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
