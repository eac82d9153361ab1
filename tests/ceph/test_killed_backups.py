# SPDX-License-Identifier: Apache-2.0
"""A backup of an image of Ceph, killed before each call that opens or changes one: the next finds and removes what is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deltaimg.api.repositories import create_repository
from tests.support.rbd import Disk

pytestmark = pytest.mark.ceph

KILLED = """
import os, signal, sys
from deltaimg.cli import main
from deltaimg.image.rbd import cluster, image, library

number = int(sys.argv.pop(1))

class Deadly:
    calls = 0
    def __init__(self, rbd): self.rbd = rbd
    def __getattr__(self, name):
        if name.startswith(("rbd_open", "rbd_snap_create", "rbd_snap_re", "rbd_diff")):
            if Deadly.calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            Deadly.calls += 1
        return getattr(self.rbd, name)

loaded = library.load_library()
deadly = library.Library(loaded.ffi, loaded.rados, Deadly(loaded.rbd))
cluster.load_library = image.load_library = lambda: deadly
main()
"""


@pytest.mark.parametrize("options", [("--track", "auto"), ("--freeze", "rbd")])
def test_what_a_killed_backup_leaves_is_removed_by_the_next(
    options: tuple[str, ...], disk: Disk, tmp_path: Path
) -> None:
    disk.repository = create_repository(str(tmp_path / "repo"))
    is_tracked = "--track" in options
    how = {"track": "auto"} if is_tracked else {"track": "none", "freeze": "rbd"}
    disk.back_up(**how)
    number, were_left, were_removed = 0, 0, 0
    while kill_at(number, disk, options, tmp_path):
        were_left += len(disk.list_snapshots()) > is_tracked
        disk.write(2)
        manifest = disk.back_up(**how)
        were_removed += any("was left by a backup that died" in each for each in disk.progress.messages)
        kept = disk.list_snapshots()
        assert len(kept) == is_tracked, (number, kept)
        if is_tracked:
            assert manifest.tracking is not None
            assert (manifest.tracking.method, manifest.tracking.refuted_blocks) == ("rbd", 0), manifest.tracking.reason
            assert f"-{manifest.id}-" in kept[0]
        disk.assert_restores(manifest)
        number += 1
    assert number > 5
    assert were_left > 2
    assert 1 < were_removed <= were_left
    print(f"killed {number} times; a snapshot was left {were_left} times")


def kill_at(number: int, disk: Disk, options: tuple[str, ...], folder: Path) -> bool:
    """Back up in a process that is killed before its n-th call; return False where it ended before."""
    disk.write(2)
    words = ("backup", disk.path, "-i", "vm1", "-r", str(folder / "repo"), "--audit-blocks", "20", *options)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(number), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0
