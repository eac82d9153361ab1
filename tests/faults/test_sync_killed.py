# SPDX-License-Identifier: Apache-2.0
"""A sync is killed again and again: what has arrived stays, is not sent again, and the snapshots that are there are whole."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.support.images import make_incompressible_image
from tests.support.program import command, environment, succeed

MIB = 1 << 20
RATE = "4M"


def count_packs(repo: Path) -> int:
    """Return the bytes of all packs that have their names."""
    found = (repo / "packs").glob("*/*") if (repo / "packs").exists() else ()
    return sum(path.stat().st_size for path in found if not path.name.startswith("."))


@pytest.mark.long
def test_a_sync_that_is_killed_at_any_moment_continues_where_it_was(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    source, offsite, path = tmp_path / "source", tmp_path / "offsite", tmp_path / "vm1.raw"
    succeed("init", "-r", source)
    image = make_incompressible_image(4 * MIB, seed=1)
    states: list[bytes] = []
    for _ in range(5):
        image.write_random(0, 2 * MIB)
        image.save(path)
        succeed("backup", path, "--image", "vm1", "-q", "--no-cache", "--delta", "none", repo=source)
        states.append(bytes(image.content))
        path.unlink()
    succeed("init", "--like", source, "-r", offsite)
    whole = succeed("sync", source, offsite, "--dry-run", "--json").json["sent_bytes"]
    kills = snapshots = 0
    while snapshots < len(states):
        process = subprocess.Popen(
            command("sync", source, offsite, "-q", "--bwlimit", RATE, "--lock-wait", "1m"), env=environment(None)
        )
        try:
            process.wait(0.5 + 2.5 * chance.random())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:
            assert process.returncode == 0
        left = succeed("sync", source, offsite, "--dry-run", "--json").json["sent_bytes"]
        assert left <= whole - count_packs(offsite) + 64 * 1024
        succeed("check", "--read-packs", "-q", repo=offsite)
        found = len(succeed("snapshots", "--json", repo=offsite).json)
        assert found >= snapshots
        snapshots = found
        assert kills < 40
    assert kills
    for back, state in enumerate(reversed(states)):
        target = tmp_path / f"restored{back}"
        succeed("restore", f"vm1~{back}", target, repo=offsite)
        assert target.read_bytes() == state
