# SPDX-License-Identifier: Apache-2.0
"""Disks of a running qemu: one moment while the guest writes, bitmaps that rotate, and nothing left in the qemu."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deltaimg.model import KIB, MIB
from tests.support.components import requires_program
from tests.support.killed import run_killed_at
from tests.support.live_qemu import LiveQemu, live_qemu
from tests.support.nbd import make_filled_qcow2, make_qcow2, serving
from tests.support.program import deltaimg, fail, succeed

SIZE_MIB = 64


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return make_filled_qcow2(tmp_path / "vm1.qcow2", SIZE_MIB, 16)


def back_up(repo: Path, live: LiveQemu, track: str = "auto") -> Any:
    return succeed("backup", live.address, "--image", "vm1", "--json", "--track", track, repo=repo).json


def wait_until_none(find: Callable[[], list[str]]) -> None:
    deadline_s = time.monotonic() + 20
    while found := find():
        assert time.monotonic() < deadline_s, found
        time.sleep(0.02)


def assert_restores(repo: Path, disk: Path) -> None:
    """Nothing writes any more: the newest snapshot is the disk."""
    flat = disk.with_name("flat.raw")
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", disk, flat], check=True)
    assert succeed("restore", "vm1", "-", repo=repo).out == flat.read_bytes()


@pytest.mark.parametrize("has_server", [True, False])
def test_one_moment_is_read_while_the_guest_writes_and_the_next_run_reads_what_changed(
    repo: Path, disk: Path, tmp_path: Path, has_server: bool
) -> None:
    with live_qemu(tmp_path, disk, has_server=has_server) as live:
        with live.guest_that_counts():
            for number in range(2):
                made = back_up(repo, live)
                content = succeed("restore", "vm1", "-", repo=repo).out
                first, second = content[: 64 * KIB], content[40 * MIB : 40 * MIB + 64 * KIB]
                assert len(set(first)) == len(set(second)) == 1, "half of a write"
                assert first[0] - second[0] in (0, 1, 1 - 250), "two moments"
                assert content[2 * MIB : 3 * MIB] == bytes([2]) * MIB
                shown = succeed("show", "vm1", "--json", repo=repo).json
                assert shown["freeze"]["method"] == "qmp"
                assert shown["source"] == live.address
                assert made["tracking"]["method"] == ("bitmap" if number else "scan")
                assert live.find_traces() == []
                assert [each["name"].rpartition("-")[2] for each in live.bitmaps()] == [made["snapshot"]]
        assert made["read_bytes"] <= 2 * 64 * KIB
        live.write("write -P 9 7M 64k", "write -z 9M 64k", "flush")
        made = back_up(repo, live, "bitmap")
        assert made["read_bytes"] <= 4 * 64 * KIB
    assert_restores(repo, disk)
    # A qemu that ends well stores its bitmaps; here it was killed.
    with live_qemu(tmp_path, disk, has_server=has_server) as live:
        assert back_up(repo, live)["tracking"]["method"] == "scan"
        live.ask("quit")
        live.process.wait(10)
    with live_qemu(tmp_path, disk, has_server=has_server) as live:
        assert back_up(repo, live)["tracking"]["method"] == "bitmap"
    assert_restores(repo, disk)


def test_a_flat_disk_is_tracked_as_long_as_that_qemu_lives(repo: Path, tmp_path: Path) -> None:
    disk = tmp_path / "flat"
    disk.write_bytes(bytes(range(1, 65)) * 64 * KIB)
    with live_qemu(tmp_path, disk, kind="raw") as live:
        back_up(repo, live)
        live.write("write -P 9 1M 64k")
        made = back_up(repo, live)
        assert made["tracking"]["method"] == "bitmap"
        assert made["read_bytes"] == 64 * KIB
        assert succeed("restore", "vm1", "-", repo=repo).out == disk.read_bytes()
        assert succeed("backup", live.address, "--image", "vm1", "--json", repo=repo).json["tracking"] is None
        assert live.find_traces() == []
    with live_qemu(tmp_path, disk, kind="raw") as live:
        assert "no dirty bitmap was begun" in back_up(repo, live)["tracking"]["reason"]


def test_a_qcow2_disk_that_can_store_no_bitmap_is_read_all_the_same(repo: Path, tmp_path: Path) -> None:
    disk = make_qcow2(tmp_path / "old.qcow2", "8M", "-o", "compat=0.10")
    with live_qemu(tmp_path, disk) as live:
        live.write("write -P 9 1M 64k")
        for _ in range(2):
            run = succeed("backup", live.address, "--image", "vm1", "--track", "auto", "-q", repo=repo)
            assert "so that the next backup reads everything: qemu: " in run.err
        assert live.find_traces() == []
    assert_restores(repo, disk)


def test_killed_at_many_steps_nothing_is_lost_and_the_next_run_cleans_up(
    repo: Path, disk: Path, tmp_path: Path
) -> None:
    with live_qemu(tmp_path, disk, has_server=False) as live:
        back_up(repo, live)
        number, left = 1, 0
        while True:
            live.write(f"write -P {100 + number} {number}M 64k")
            arguments = ("backup", live.address, "-i", "vm1", "--track", "auto", "-q")
            is_all = number % 2 == 0
            if run_killed_at(number, tmp_path / "hook", repo, *arguments, with_children=is_all) is None:
                break
            if is_all:
                left += bool(live.find_traces())
            else:
                wait_until_none(live.find_traces)
            number += 3
        assert left > 2
        assert live.find_traces() == []
        assert len(live.bitmaps()) == 1
        live.write("write -P 77 50M 64k")
        assert back_up(repo, live)["tracking"]["method"] == "bitmap"
    assert_restores(repo, disk)
    succeed("check", "-q", repo=repo)


def test_what_cannot_be_used_is_said_and_leaves_nothing(repo: Path, disk: Path, tmp_path: Path) -> None:
    for wrong in (
        "qmp+unix:///disk",
        "qmp+unix:///?socket=/x",
        "qmp+unix://host/disk?socket=/x",
        "qmp+unix:///disk?socket=x",
        "qmp+unix:///disk?socket=/x&port=1",
        "qmp+tcp:///disk?socket=/x",
        "qmp:disk",
    ):
        fail(2, "backup", wrong, "--image", "vm1", repo=repo)
    said = fail(60, "backup", f"qmp+unix:///disk?socket={tmp_path}/none", "--image", "vm1", repo=repo)
    assert "cannot be connected to: No such file or directory" in said
    with live_qemu(tmp_path, disk) as live:
        options = ("--image", "vm1", "-q")
        said = fail(60, "backup", live.address.replace("///disk", "///other"), *options, repo=repo)
        assert "that qemu has no disk 'other', but disk, file" in said
        said = fail(60, "backup", live.address.partition("&")[0], *options, repo=repo)
        assert "already running: name its socket with &nbd=PATH" in said
        said = fail(60, "backup", f"{live.address}&scratch=/proc", *options, repo=repo)
        assert "there is no place for old content" in said
        said = fail(60, "backup", live.address, *options, "--freeze", "lvm", repo=repo)
        assert "--freeze lvm cannot be used" in said
        fail(2, "inspect", live.address)
        assert live.find_traces() == []
        assert live.bitmaps() == []
        # Hooks run around the moment, and a failing one leaves nothing.
        run = deltaimg("backup", live.address, *options, "--pre-freeze", "false", repo=repo)
        assert run.code == 62
        succeed("backup", live.address, *options, "--pre-freeze", f"touch {tmp_path}/frozen", repo=repo)
        assert (tmp_path / "frozen").exists()
        assert live.find_traces() == []


def test_a_qemu_that_would_not_survive_it_is_refused(repo: Path, disk: Path, tmp_path: Path) -> None:
    """One before version 9 with I/O threads: Debian 12's ends by an assertion when a client of such an export goes."""
    with live_qemu(tmp_path, disk, options=("--object", "iothread,id=io0")) as live:
        if live.ask("query-version")["qemu"]["major"] >= 9:
            pytest.skip("qemu: this one would survive")
        said = fail(60, "backup", live.address, "--image", "vm1", "-q", repo=repo)
        assert "has I/O threads" in said
        assert live.find_traces() == []


BOOT_SECTOR = (
    bytes.fromhex(
        "fa31c08ed88ec08ed0bc007cfbb30188d8fcbf0080b90020f3aabe347ce80a00be447ce80400fec3ebe5b80043b280cd13c366901000"
        "1000008000000000000000000000100010000080000000400100000000000000"
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
"""A guest: it fills 16 sectors with 1, then 2 and so on, and writes them to the beginning of its disk and 40 MiB after it."""


def test_a_guest_of_a_real_machine_is_read_as_of_one_moment(repo: Path, disk: Path, tmp_path: Path) -> None:
    program, monitor = requires_program("qemu-system-x86_64"), tmp_path / "qmp.sock"
    (tmp_path / "floppy").write_bytes(BOOT_SECTOR.ljust(1440 * KIB, b"\0"))
    machine = [
        program, "-accel", "tcg", "-m", "16", "-display", "none", "-nodefaults", "-boot", "a",
        "-drive", f"if=floppy,format=raw,file={tmp_path}/floppy",
        "-drive", f"if=ide,id=drive0,format=qcow2,file={disk}", "-qmp", f"unix:{monitor},server=on,wait=off",
    ]  # fmt: skip
    with serving(monitor, *machine) as process:
        live = LiveQemu(tmp_path, process, "")
        while live.ask("query-blockstats")[-1]["stats"]["wr_operations"] < 10:
            time.sleep(0.05)
        for method in ("scan", "bitmap"):
            address = f"qmp+unix:///drive0?socket={monitor}"
            made = succeed("backup", address, "--image", "vm1", "--track", "auto", "--json", repo=repo).json
            assert made["tracking"]["method"] == method
            content = succeed("restore", "vm1", "-", repo=repo).out
            # Sector by sector in the order of the guest: what it wrote last, and then what it wrote the time before.
            sectors = [content[at + 512 * number] for at in (0, 40 * MIB) for number in range(16)]
            new = sectors.count(sectors[0])
            assert sectors == [sectors[0]] * new + [(sectors[0] - 1) % 256] * (32 - new)
            assert len(live.ask("query-jobs")) == len(live.ask("query-block-exports")) == 0
        live.ask("quit")
        process.wait(20)
    assert made["read_bytes"] <= 2 * 64 * KIB
