# SPDX-License-Identifier: Apache-2.0
"""Thin volumes on the real thing: the snapshot of the last backup stays in the pool and says what changed since."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from deltaimg.api.groups import backup_group
from deltaimg.errors import FreezeFailed, UnsupportedImage
from deltaimg.format.manifest import Manifest, Tracking
from deltaimg.freeze.thin_pool import hold_metadata
from deltaimg.model import MIB
from deltaimg.options.backup import BackupOptions
from deltaimg.tracking.thin import find_obstacle
from deltaimg.tracking.thin_delta import compare_volumes
from tests.support.lvm import (
    CHUNK_BYTES,
    GROUP,
    PAGE,
    Disk,
    find_held,
    list_made,
    list_volumes,
    run,
    volume_group,
    writer,
)
from tests.support.program import fail, succeed

pytestmark = pytest.mark.lvm

SIZE_BYTES = 24 * MIB


@pytest.fixture
def disk() -> Iterator[Disk]:
    with volume_group():
        run(
            "lvcreate",
            "--yes",
            "--type",
            "thin-pool",
            "-L",
            "96M",
            "-c",
            "64k",
            "--poolmetadatasize",
            "4M",
            "-n",
            "pool",
            GROUP,
        )
        run("lvcreate", "--yes", "-V", f"{SIZE_BYTES}b", "--thinpool", "pool", "-n", "root", GROUP)
        made = Disk("root", SIZE_BYTES)
        made.fill(12 * MIB)
        yield made


def tracking(manifest: Manifest) -> Tracking:
    assert manifest.tracking is not None
    return manifest.tracking


def test_disks_of_a_group_are_tracked_each_by_its_own_volume(disk: Disk, tmp_path: Path) -> None:
    run("lvcreate", "--yes", "-V", f"{SIZE_BYTES}b", "--thinpool", "pool", "-n", "data", GROUP)
    other = Disk("data", SIZE_BYTES, disk.repository)
    other.fill(12 * MIB)
    flat = tmp_path / "swap.raw"
    flat.write_bytes(bytes(MIB))
    left = f"{GROUP}/root-deltaimg-0123abcd"
    dead = run(sys.executable, "-c", "from deltaimg.freeze.owner import name_owner; print(name_owner())").strip()
    run("lvcreate", "--yes", "--snapshot", "--name", left.partition("/")[2], "--addtag", dead, f"{GROUP}/root")
    paths, options = {"root": disk.path, "data": other.path}, BackupOptions(track="thin", workers=1, audit_blocks=20)
    for number in range(2):
        disk.progress.messages.clear()
        made = backup_group(disk.repository, "web1", paths, options, progress=disk.progress)
        assert [tracking(each).method for each in made] == ["thin" if number else "scan"] * 2
        assert disk.progress.messages == ([] if number else [f"{left} was left by a backup that died, and is removed"])
        for each, volume in zip(made, (disk, other), strict=True):
            volume.assert_restores(each, tmp_path)
        assert [name[-16:] for name in list_made()] == [made[1].id, made[0].id]
        disk.write()
        other.write()
    with pytest.raises(FreezeFailed, match="is not a logical volume, so that --freeze lvm cannot be used"):
        backup_group(disk.repository, "web1", paths | {"swap": str(flat)}, options)
    made = backup_group(disk.repository, "web1", paths | {"swap": str(flat)}, replace(options, track="auto"))
    assert [tracking(each).method for each in made] == ["thin", "thin", "scan"]


def test_a_group_reads_what_changed_on_each_of_its_volumes_and_fails_as_one(disk: Disk, tmp_path: Path) -> None:
    run("lvcreate", "--yes", "-V", f"{SIZE_BYTES}b", "--thinpool", "pool", "-n", "data", GROUP)
    disks = (disk, Disk("data", SIZE_BYTES, disk.repository))
    disks[1].fill(12 * MIB)
    repo = tmp_path / "repo"
    succeed("init", repo=repo)
    command = ("backup", "--group", "web1", f"root={disk.path}", f"data={disks[1].path}", "--track", "thin")
    writes = (10, 6)

    def back_up(method: str) -> None:
        """Back up; the kept volumes are those of this backup, and have what the restored disks have."""
        members = succeed(*command, "--audit-blocks", 20, "--json", repo=repo).json["members"]
        assert [each["tracking"]["method"] for each in members] == [method] * 2
        if method == "thin":
            most = [count * CHUNK_BYTES + 20 * PAGE for count in writes]
            assert all(each["read_bytes"] <= bound for each, bound in zip(members, most, strict=True)), members
        for each, member in zip(disks, members, strict=True):
            [kept] = [name for name in list_made() if name.startswith(f"{each.name}-deltaimg-")]
            assert kept.endswith(member["snapshot"])
            run("cmp", f"/dev/{GROUP}/{kept}", each.path)
            succeed("restore", member["snapshot"], restored := tmp_path / "restored", repo=repo)
            run("cmp", restored, each.path)
            restored.unlink()
        assert find_held() is None

    back_up("scan")
    for each, count in zip(disks, writes, strict=True):
        each.write(count)
    back_up("thin")
    kept = list_made()
    for each, count in zip(disks, writes, strict=True):
        each.write(count)
    # The new snapshot of the second volume goes, between the moment in which it was made and that in which it is read.
    lose_it = f"lvs --noheadings -o vg_name,lv_name --separator / {GROUP} | grep -E 'data-deltaimg-.{{8}}$' | xargs lvremove -y"
    fail(61, *command, "--post-freeze", lose_it, repo=repo)
    assert list_made() == kept
    assert find_held() is None
    assert len(succeed("snapshots", "--json", repo=repo).json) == 4
    back_up("thin")


def test_backups_read_what_changed_and_a_sample_and_are_right(disk: Disk, tmp_path: Path) -> None:
    first = disk.back_up()
    assert (tracking(first).method, first.freeze and first.freeze.method) == ("scan", "lvm")
    disk.assert_restores(first, tmp_path)

    def nothing() -> None: ...

    def discard() -> None:
        disk.discard(2 * MIB, MIB)
        disk.discard(SIZE_BYTES - MIB, MIB)

    def write_beyond() -> None:
        disk.fill(MIB, 20 * MIB)
        disk.write(3)

    for change in (disk.write, nothing, write_beyond, discard, disk.write):
        change()
        manifest = disk.back_up()
        assert (tracking(manifest).method, disk.progress.messages) == ("thin", []), tracking(manifest).reason
        assert tracking(manifest).unchanged_bytes >= SIZE_BYTES - 12 * (CHUNK_BYTES + 32 * 1024) - 2 * MIB
        disk.assert_restores(manifest, tmp_path)
        assert len(list_made()) == 1
        assert list_made()[0].endswith(manifest.id)
        assert find_held() is None
        assert not [
            tag for each in list_volumes().values() for tag in each.tags if tag.startswith(("held-", "deltaimg-"))
        ]
    disk.assert_restores(manifest, tmp_path, f"/dev/{GROUP}/{list_made()[0]}")


def test_what_is_written_while_a_backup_runs_is_for_the_next(disk: Disk, tmp_path: Path) -> None:
    disk.back_up()
    disk.write()
    with writer(disk.path, SIZE_BYTES) as written:
        second = disk.back_up()
    assert written.count > 0
    assert tracking(second).method == "thin"
    disk.assert_restores(second, tmp_path, f"/dev/{GROUP}/{list_made()[0]}")
    third = disk.back_up()
    assert tracking(third).method == "thin"
    disk.assert_restores(third, tmp_path)


def test_a_kept_volume_that_is_no_longer_what_it_was_costs_a_scan(disk: Disk, tmp_path: Path) -> None:
    def remove(kept: str) -> None:
        run("lvremove", "--yes", f"{GROUP}/{kept}")

    def replace(kept: str) -> None:
        run("lvremove", "--yes", f"{GROUP}/{kept}")
        run("lvcreate", "--yes", "--snapshot", "--permission", "r", "--name", kept, f"{GROUP}/root")

    def open_up(kept: str) -> None:
        run("lvchange", "--permission", "rw", f"{GROUP}/{kept}")

    def roll_back(kept: str) -> None:
        run("lvchange", "--activate", "n", f"{GROUP}/root")
        run("lvconvert", "--yes", "--merge", f"{GROUP}/{kept}")
        run("lvchange", "--activate", "y", f"{GROUP}/root")

    for spoil, reason, is_surprising in (
        (remove, "no volume was kept of snapshot", False),
        (replace, "may have been written to, or is another one of its name", True),
        (open_up, "may have been written to, or is another one of its name", True),
        (roll_back, "no volume was kept of snapshot", False),
    ):
        disk.back_up()
        disk.write()
        spoil(list_made()[0])
        manifest = disk.back_up()
        assert (tracking(manifest).method, bool(disk.progress.messages)) == ("scan", is_surprising)
        assert reason in tracking(manifest).reason
        disk.assert_restores(manifest, tmp_path)
        assert [each.endswith(manifest.id) for each in list_made()] == [True]


def test_a_volume_that_is_inactive_since_the_host_started_serves_as_well(disk: Disk, tmp_path: Path) -> None:
    disk.back_up()
    disk.write()
    run("vgchange", "--activate", "n", GROUP)
    run("vgchange", "--activate", "y", GROUP)
    assert [list_volumes()[each].is_active for each in list_made()] == [False]
    manifest = disk.back_up()
    assert tracking(manifest).method == "thin"
    disk.assert_restores(manifest, tmp_path)


def test_a_volume_that_was_resized(disk: Disk, tmp_path: Path) -> None:
    disk.back_up()
    for option, size_bytes in (("lvextend", SIZE_BYTES + 8 * MIB), ("lvreduce", SIZE_BYTES - 4 * MIB)):
        run(
            option,
            "--yes",
            "--force" if option == "lvreduce" else "--quiet",
            "--size",
            f"{size_bytes}b",
            f"{GROUP}/root",
        )
        disk.size_bytes = size_bytes
        disk.write()
        manifest = disk.back_up()
        assert tracking(manifest).method == "thin"
        assert manifest.size_bytes == size_bytes
        disk.assert_restores(manifest, tmp_path)


def test_the_kept_volume_of_another_origin_is_not_compared(disk: Disk, tmp_path: Path) -> None:
    disk.back_up()
    run("lvcreate", "--yes", "-V", f"{SIZE_BYTES}b", "--thinpool", "pool", "-n", "other", GROUP)
    other = Disk("other", SIZE_BYTES, disk.repository)
    other.fill(MIB)
    manifest = other.back_up()
    assert tracking(manifest).method == "scan"
    assert "is of another volume than deltaimg-test/other" in tracking(manifest).reason
    other.assert_restores(manifest, tmp_path)
    assert [each.startswith("other-") for each in list_made()] == [True]


def test_a_metadata_snapshot_of_another_program_is_left_alone(disk: Disk, tmp_path: Path) -> None:
    disk.back_up()
    disk.write()
    run("dmsetup", "message", f"{GROUP.replace('-', '--')}-pool-tpool", "0", "reserve_metadata_snap")
    held = find_held()
    manifest = disk.back_up()
    assert tracking(manifest).method == "scan"
    assert "another program holds the metadata snapshot" in disk.progress.messages[0]
    assert "another program holds" in find_obstacle(disk.path)
    disk.assert_restores(manifest, tmp_path)
    assert find_held() == held
    assert held is not None
    run("dmsetup", "message", f"{GROUP.replace('-', '--')}-pool-tpool", "0", "release_metadata_snap")
    disk.write()
    assert tracking(disk.back_up()).method == "thin"


def test_a_pool_that_is_nearly_full_keeps_no_volume_and_a_fuller_one_is_refused(disk: Disk, tmp_path: Path) -> None:
    disk.back_up()
    run("lvcreate", "--yes", "-V", "96M", "--thinpool", "pool", "-n", "other", GROUP)
    other = Disk("other", 96 * MIB, disk.repository)
    other.fill(73 * MIB)
    second = disk.back_up()
    assert tracking(second).method == "thin"
    assert "is not kept, so that the next backup reads everything: thin pool deltaimg-test/pool is full to 8" in str(
        disk.progress.messages
    )
    assert list_made() == []
    third = disk.back_up()
    assert tracking(third).reason.startswith("no volume was kept of")
    disk.assert_restores(third, tmp_path)
    other.fill(8 * MIB, 73 * MIB)
    with pytest.raises(FreezeFailed, match="is full to 9"):
        disk.back_up(track="thin")
    assert list_made() == []


def test_a_pool_that_can_only_be_read_is_not_touched(disk: Disk) -> None:
    disk.back_up()
    pool = f"{GROUP.replace('-', '--')}-pool-tpool"
    table = run("dmsetup", "table", pool).split()
    read_only = " ".join((*table[:7], str(int(table[7]) + 1), *table[8:], "read_only"))
    run("dmsetup", "reload", pool, "--table", read_only)
    run("dmsetup", "suspend", pool)
    run("dmsetup", "resume", pool)
    try:
        with pytest.raises(FreezeFailed, match="can only be read: its metadata is damaged or full"):
            disk.back_up(track="thin")
        assert "can only be read" in find_obstacle(disk.path)
        live = disk.back_up(track="auto", allow_live=True)
        assert (tracking(live).method, live.freeze and live.freeze.method) == ("scan", "none")
    finally:
        run("dmsetup", "reload", pool, "--table", " ".join(table))
        run("dmsetup", "suspend", pool)
        run("dmsetup", "resume", pool)


def test_without_tracking_nothing_stays_in_the_pool(disk: Disk) -> None:
    assert find_obstacle(disk.path) == ""
    disk.back_up()
    assert len(list_made()) == 1
    disk.back_up(track="none", freeze="lvm")
    assert list_made() == []
    disk.back_up(track="thin")
    other = disk.back_up(track="thin", name="vm2")
    assert tracking(other).reason == "there is no earlier snapshot"
    assert len(list_made()) == 2
    run("lvcreate", "--yes", "-L", "8M", "-n", "thick", GROUP)
    thick = Disk("thick", 8 * MIB, disk.repository)
    with pytest.raises(UnsupportedImage, match="is no thin volume: --track thin cannot be used"):
        thick.back_up(track="thin", name="thick")
    thick.back_up(name="thick")
    assert tracking(thick.back_up(name="thick")).reason == "LVM: is no thin volume"
    assert len(list_made()) == 2


def test_thin_delta_and_the_claim_agree_on_a_fragmented_volume(disk: Disk) -> None:
    """What the kernel's metadata says by `thin_dump`, block by block, is what `thin_delta` lists."""
    disk.back_up()
    for _ in range(4):
        disk.write(30)
        disk.discard(CHUNK_BYTES * disk.random.randrange(100), 5 * CHUNK_BYTES)
        run("lvcreate", "--yes", "--snapshot", "--setactivationskip", "n", "--name", "now", f"{GROUP}/root")
        volumes = list_volumes()
        pool, ids = volumes["pool"], (volumes[list_made()[0]].thin_id, volumes["now"].thin_id)
        metadata = volumes["pool_tmeta"].node
        with hold_metadata(pool, disk.path):
            found = compare_volumes(disk.path, metadata, *ids, pool.chunk_bytes)
            maps = [read_mappings(run("thin_dump", "--metadata-snap", "--dev-id", each, metadata)) for each in ids]
        differing = [block for block in range(SIZE_BYTES // CHUNK_BYTES) if maps[0].get(block) != maps[1].get(block)]
        listed = [block for start, end in found.tolist() for block in range(start // CHUNK_BYTES, end // CHUNK_BYTES)]
        assert listed == differing
        run("lvremove", "--yes", f"{GROUP}/now")


def read_mappings(dumped: str) -> dict[int, int]:
    """Return which block of the pool each block of a volume is."""
    found = {}
    for mapping in ET.fromstring(dumped).iter():
        if mapping.tag == "single_mapping":
            found[int(mapping.attrib["origin_block"])] = int(mapping.attrib["data_block"])
        elif mapping.tag == "range_mapping":
            start, data = int(mapping.attrib["origin_begin"]), int(mapping.attrib["data_begin"])
            found |= {start + number: data + number for number in range(int(mapping.attrib["length"]))}
    return found
