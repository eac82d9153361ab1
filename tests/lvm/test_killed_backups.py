# SPDX-License-Identifier: Apache-2.0
"""A backup of a volume, killed before each command that it runs: the next one finds, removes and releases what is left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaimg.api.repositories import create_repository
from deltaimg.freeze.thin_pool import read_state
from deltaimg.model import MIB
from tests.support.lvm import GROUP, Disk, find_held, list_made, list_volumes, run, volume_group

pytestmark = pytest.mark.lvm

SIZE_BYTES = 8 * MIB


@pytest.fixture(params=["thin", "thick"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with volume_group():
        if request.param == "thin":
            run("lvcreate", "--yes", "--type", "thin-pool", "-L", "64M", "-c", "64k", "-n", "pool", GROUP)
            run("lvcreate", "--yes", "-V", f"{SIZE_BYTES}b", "--thinpool", "pool", "-n", "root", GROUP)
        else:
            run("lvcreate", "--yes", "-L", f"{SIZE_BYTES}b", "-n", "root", GROUP)
        made = Disk("root", SIZE_BYTES, create_repository(str(tmp_path / "repo")))
        made.fill(4 * MIB)
        yield made


def test_what_a_killed_backup_leaves_is_removed_and_released_by_the_next(disk: Disk, tmp_path: Path) -> None:
    is_thin = "pool" in list_volumes()
    disk.back_up()
    number, were_held, were_left = 0, 0, 0
    while kill_at(number, disk):
        made = [each for each in list_volumes().values() if "-deltaimg-" in each.name]
        assert len(made) <= 2, made
        were_left += len(made) > is_thin
        were_held += is_thin and find_held() is not None
        manifest = disk.back_up()
        assert len(list_made()) == is_thin, (number, list_made())
        assert not [
            tag for each in list_volumes().values() for tag in each.tags if not tag.startswith("deltaimg.kept.")
        ]
        if is_thin:
            assert find_held() is None
            assert manifest.tracking is not None
            disk.assert_restores(manifest, tmp_path)
        number += 1
    assert were_left > 2
    assert (were_held > 0) == is_thin
    print(f"killed {number} times; a volume was left {were_left} times, a metadata snapshot {were_held} times")


def test_what_others_hold_since_then_stays(disk: Disk) -> None:
    """The tag of a dead process, and a metadata snapshot that is not of its transaction."""
    if "pool" not in list_volumes():
        pytest.skip("there is no pool")
    disk.back_up()
    number = 0
    while find_held() is None:
        assert kill_at(number, disk)
        number += 1
    pool = f"{GROUP}-pool-tpool".replace("deltaimg-test", "deltaimg--test")
    run("dmsetup", "message", pool, "0", "release_metadata_snap")
    run("lvcreate", "--yes", "--snapshot", "--name", "theirs", f"{GROUP}/root")
    run("dmsetup", "message", pool, "0", "reserve_metadata_snap")
    disk.back_up()
    assert "another program holds" in disk.progress.messages[-1]
    assert read_state(list_volumes()["pool"], "pool").held_block is not None
    assert not list_volumes()["pool"].tags


def kill_at(number: int, disk: Disk) -> bool:
    """Back up in a process that is killed before it starts its n-th command; return False where it ended before."""
    disk.write(2)
    child = os.fork()
    if child == 0:
        seen = []

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event == "subprocess.Popen":
                seen.append(event)
                if len(seen) > number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            disk.back_up()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
