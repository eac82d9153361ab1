# SPDX-License-Identifier: Apache-2.0
"""Change tracking by dirty bitmaps: in qcow2 files, where backups rotate them, and those that NBD servers export."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deltaimg.model import KIB, MIB
from tests.support.killed import run_killed_at
from tests.support.nbd import make_filled_qcow2, make_qcow2, qemu_io, qemu_nbd, serving
from tests.support.program import fail, succeed

SIZE_MIB = 64
DATA_MIB = 24


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return make_filled_qcow2(tmp_path / "vm1.qcow2", SIZE_MIB, DATA_MIB)


def back_up(repo: Path, disk: Path, *options: object) -> Any:
    return succeed("backup", disk, "--image", "vm1", "--json", "--track", "bitmap", *options, repo=repo).json


def names(disk: Path) -> list[str]:
    said = subprocess.run(["qemu-img", "info", "--output=json", disk], check=True, capture_output=True).stdout
    return [each["name"] for each in json.loads(said)["format-specific"]["data"].get("bitmaps", [])]


def assert_restores(repo: Path, disk: Path) -> None:
    flat = disk.with_name("flat.raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, flat], check=True)
    assert succeed("restore", "vm1", "-", repo=repo).out == flat.read_bytes()


def test_what_changed_alone_is_read_and_the_bitmaps_rotate(repo: Path, disk: Path) -> None:
    subprocess.run(["qemu-img", "bitmap", "--add", disk, "of another tool"], check=True)
    first = back_up(repo, disk)
    assert first["tracking"]["reason"] == "there is no earlier snapshot"
    assert [name.rpartition("-")[2] for name in names(disk)] == ["of another tool", first["snapshot"]]
    qemu_io(disk, "write -P 77 4M 4k", "write -z 8M 64k", "discard 10M 64k", "write -P 78 50M 4k")
    for track in ("bitmap", "auto"):
        made = succeed("backup", disk, "--image", "vm1", "--json", "--track", track, repo=repo).json
        assert made["tracking"]["method"] == "bitmap"
        assert made["tracking"]["audited_blocks"] == 459
        assert made["read_bytes"] <= 4 * 64 * KIB
        assert [name.rpartition("-")[2] for name in names(disk)] == ["of another tool", made["snapshot"]]
        assert_restores(repo, disk)
    assert made["changed_bytes"] == 0


def test_a_grown_image_and_two_repositories(repo: Path, disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    succeed("init", "-r", other)
    for each in (repo, other):
        back_up(each, disk)
    qemu_io(disk, "write -P 77 4M 4k")
    subprocess.run(["qemu-img", "resize", "-q", disk, "80M"], check=True)
    qemu_io(disk, "write -P 78 70M 4k")
    for each in (repo, other):
        made = back_up(each, disk)
        assert made["tracking"]["method"] == "bitmap"
        assert_restores(each, disk)
    assert len(names(disk)) == 2


def test_after_a_crash_of_the_writer_everything_is_read_and_tracking_begins_again(
    repo: Path, disk: Path, tmp_path: Path
) -> None:
    back_up(repo, disk)
    where = tmp_path / "rw.sock"
    with serving(where, "qemu-nbd", "-t", "-f", "qcow2", "-k", where, disk) as writer:
        address = f"nbd+unix:///?socket={where}"
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 9 6M 64k", "-c", "flush", address], check=True)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    run = succeed("backup", disk, "--image", "vm1", "--track", "bitmap", "--json", repo=repo)
    assert "a qemu that had the file open did not end well; everything is read" in run.err
    assert run.json["tracking"]["method"] == "scan"
    assert_restores(repo, disk)
    assert len(names(disk)) == 1
    qemu_io(disk, "write -P 10 8M 4k")
    assert back_up(repo, disk)["tracking"]["method"] == "bitmap"
    assert_restores(repo, disk)


def test_bitmaps_that_say_nothing(repo: Path, disk: Path) -> None:
    """Removed, disabled, or of a snapshot that is not the newest any more."""
    back_up(repo, disk)
    subprocess.run(["qemu-img", "bitmap", "--remove", disk, names(disk)[0]], check=True)
    assert "no dirty bitmap was begun for snapshot" in back_up(repo, disk)["tracking"]["reason"]
    subprocess.run(["qemu-img", "bitmap", "--disable", disk, names(disk)[0]], check=True)
    qemu_io(disk, "write -P 10 8M 4k")
    assert "another program has disabled it" in back_up(repo, disk)["tracking"]["reason"]
    succeed("backup", disk, "--image", "vm1", "-q", repo=repo)
    assert "the disk has one of another snapshot" in back_up(repo, disk)["tracking"]["reason"]
    assert_restores(repo, disk)
    assert back_up(repo, disk)["tracking"]["method"] == "bitmap"


def test_a_bitmap_that_lost_writes_is_found_out(repo: Path, disk: Path) -> None:
    back_up(repo, disk)
    name = names(disk)[0]
    qemu_io(disk, *(f"write -P 99 {4 * number}M 512k" for number in range(DATA_MIB // 2)))
    subprocess.run(["qemu-img", "bitmap", "--clear", disk, name], check=True)
    run = succeed("backup", disk, "--image", "vm1", "--track", "bitmap", "--json", repo=repo)
    assert "CHANGE TRACKING IS WRONG" in run.err
    assert run.json["tracking"]["refuted_blocks"] > 0
    assert_restores(repo, disk)


def test_files_without_bitmaps_and_dry_runs(repo: Path, tmp_path: Path, disk: Path) -> None:
    old = make_qcow2(tmp_path / "old.qcow2", "8M", "-o", "compat=0.10")
    run = succeed("backup", old, "--image", "vm2", "--track", "bitmap", "--json", repo=repo)
    assert "no dirty bitmap was begun, so that the next backup reads everything: qemu-img: " in run.err
    flat = tmp_path / "flat.raw"
    flat.write_bytes(bytes(MIB))
    said = fail(11, "backup", flat, "--image", "vm3", "--track", "bitmap", repo=repo)
    assert "is no qcow2 file" in said
    fail(2, "backup", disk, "--image", "vm1", "--track", "bitmap", "--freeze", "reflink", repo=repo)
    fail(2, "backup", disk, "--image", "vm1", "--track", "bitmap", "--hints", "x", repo=repo)
    before = disk.read_bytes()
    back_up(repo, disk, "--dry-run")
    assert disk.read_bytes() == before


def test_everything_is_read_once_a_backing_file_is_another_one(repo: Path, disk: Path) -> None:
    """Of 64 KiB in 24 MiB that another backing file had, the bitmap said nothing, and the audit found them by chance alone."""
    other, top = disk.with_name("other.qcow2"), disk.with_name("top.qcow2")
    other.write_bytes(disk.read_bytes())
    qemu_io(other, "write -P 88 20M 64k")
    make_qcow2(top, f"{SIZE_MIB}M", "-b", disk.name, "-F", "qcow2")

    def tracked() -> str:
        made = back_up(repo, top)["tracking"]
        assert_restores(repo, top)
        assert len(names(top)) == 1
        return str(made["method"])

    assert [tracked(), tracked()] == ["scan", "bitmap"]
    subprocess.run(["qemu-img", "rebase", "-u", "-b", other.name, "-F", "qcow2", top], check=True)
    assert [tracked(), tracked()] == ["scan", "bitmap"]
    qemu_io(other, "write -P 89 21M 64k")
    run = succeed("backup", top, "--image", "vm1", "--track", "bitmap", "--audit-blocks", "1", repo=repo)
    assert "the files that it lies over were exchanged or written to since" in run.text + run.err
    assert_restores(repo, top)


def test_killed_at_each_step_of_the_rotation_nothing_is_lost(repo: Path, disk: Path, tmp_path: Path) -> None:
    back_up(repo, disk)
    number, snapshots = 0, 1
    events = []
    while True:
        qemu_io(disk, f"write -P {100 + number} {2 * (number % DATA_MIB)}M 4k")
        arguments = ("backup", disk, "-i", "vm1", "--track", "bitmap", "-q")
        event = run_killed_at(number, tmp_path / "hook", repo, *arguments)
        found = len(succeed("snapshots", "vm1", "--json", repo=repo).json)
        if found > snapshots:
            assert_restores(repo, disk)
            snapshots = found
        if event is None:
            break
        events.append(event)
        number += 1
    assert events.count("subprocess.Popen") >= 4  # list, add, serve, remove
    assert events.count("os.link") >= 3
    assert len(names(disk)) == 1
    made = back_up(repo, disk)
    assert made["tracking"]["method"] == "bitmap"
    succeed("check", "-q", repo=repo)


def test_a_bitmap_of_a_server(repo: Path, disk: Path, tmp_path: Path) -> None:
    first = succeed("backup", disk, "--image", "vm1", "--json", repo=repo).json["snapshot"]
    subprocess.run(["qemu-img", "bitmap", "--add", disk, "b@1"], check=True)
    qemu_io(disk, "write -P 77 4M 4k", "write -P 78 50M 4k")
    with qemu_nbd(tmp_path, disk, "-B", "b@1", kind="qcow2") as address:
        options = ("backup", address, "--image", "vm1", "--json")
        made = succeed(*options, "--bitmap", f"b@1@{first}", repo=repo).json
        assert made["tracking"]["method"] == "bitmap"
        assert made["read_bytes"] <= 2 * 64 * KIB
        assert_restores(repo, disk)
        run = succeed(*options, "--bitmap", f"b@1@{first}", repo=repo)
        assert f"bitmap 'b@1' is of changes since snapshot {first}, and the base is {made['snapshot']}" in run.err
        run = succeed(*options, "--bitmap", f"other@{run.json['snapshot'][:8]}", repo=repo)
        assert "the server has no bitmap 'other'" in run.err
        assert (
            "an export is tracked by a bitmap"
            in succeed(*options, "--track", "auto", repo=repo).json["tracking"]["reason"]
        )
        fail(2, *options, "--bitmap", "b1", repo=repo)
        fail(2, *options, "--bitmap", f"b1@{first}", "--track", "auto", repo=repo)
        assert "--bitmap is for exports" in fail(2, "backup", disk, "--image", "x", "--bitmap", f"b@{first}", repo=repo)
        fail(11, *options, "--track", "bitmap", repo=repo)
