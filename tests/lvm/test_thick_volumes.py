# SPDX-License-Identifier: Apache-2.0
"""Volumes that are not thin: a snapshot with room of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaimg.engine.doctor.image import examine_image
from deltaimg.errors import FreezeFailed, FreezeLost
from deltaimg.model import MIB
from tests.support.lvm import GROUP, Disk, list_made, run, volume_group, writer

pytestmark = pytest.mark.lvm

SIZE_BYTES = 48 * MIB


@pytest.fixture
def disk() -> Iterator[Disk]:
    with volume_group():
        run("lvcreate", "--yes", "-L", f"{SIZE_BYTES}b", "-n", "root", GROUP)
        made = Disk("root", SIZE_BYTES)
        made.fill(SIZE_BYTES)
        yield made


def test_a_volume_that_is_written_to_meanwhile_is_of_one_moment(disk: Disk, tmp_path: Path) -> None:
    for _ in range(2):
        disk.write()
        run("dd", f"if={disk.path}", f"of={tmp_path}/copy", "bs=1M", "iflag=direct")
        # The writer begins once the snapshot is there: the copy is what that must be of.
        with writer(disk.path, SIZE_BYTES, begin := tmp_path / "begin") as written:
            manifest = disk.back_up(freeze="lvm", track="none", post_freeze=f"touch {begin}; sleep 1")
        begin.unlink()
        assert written.count > 0
        assert manifest.freeze is not None
        assert manifest.freeze.method == "lvm"
        assert manifest.freeze.used_bytes > 0
        disk.assert_restores(manifest, tmp_path, f"{tmp_path}/copy")
        assert list_made() == []


def test_a_snapshot_that_overflows_is_no_backup(disk: Disk) -> None:
    disk.back_up(track="none", freeze="lvm")
    with writer(disk.path, SIZE_BYTES), pytest.raises(FreezeLost, match="its snapshot of 4 MiB overflowed"):
        disk.back_up(track="none", freeze="lvm", snapshot_bytes=4 * MIB, is_direct=True)
    assert len(disk.repository.list_snapshots("vm1")) == 1
    assert list_made() == []
    disk.back_up(track="none", freeze="lvm")


def test_no_room_in_the_group(disk: Disk) -> None:
    with pytest.raises(FreezeFailed, match="a snapshot of 4096 MiB does not fit"):
        disk.back_up(track="none", freeze="lvm", snapshot_bytes=4096 * MIB)
    assert list_made() == []


def test_doctor_says_how_a_volume_would_be_backed_up(disk: Disk) -> None:
    outlook = examine_image(disk.path)
    assert (outlook.best_freezing, outlook.best_tracking) == ("lvm", "scan")
    assert {way.name: way.obstacle for way in outlook.tracking}["thin"] == "is no thin volume"
