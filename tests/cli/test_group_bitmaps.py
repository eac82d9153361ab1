# SPDX-License-Identifier: Apache-2.0
"""Groups with dirty bitmaps: disks of a running qemu frozen in one transaction, qcow2 files, and both beside other disks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deltaimg.model import KIB, MIB
from tests.support.components import loop_file_system, requires_program
from tests.support.killed import run_killed_at
from tests.support.live_qemu import LiveQemu, live_qemu
from tests.support.nbd import make_filled_qcow2, make_qcow2, qemu_io, serving
from tests.support.program import fail, succeed

SIZE_MIB = 32
CLUSTER = 64 * KIB
_GUEST = """
import os, sys
files = [os.open(path, os.O_RDWR) for path in sys.argv[1:]]
number = 0
print("ready", flush=True)
while True:
    number += 1
    for file in files:
        os.pwrite(file, number.to_bytes(8, "little") * 512, 16 << 20)
"""
"""A guest that writes a number to one disk after the other, without a pause."""


@pytest.fixture
def disks(tmp_path: Path) -> tuple[Path, Path]:
    return tuple(make_filled_qcow2(tmp_path / name, SIZE_MIB, 8) for name in ("root.qcow2", "data.qcow2"))  # type: ignore[return-value]


def named(paths: Sequence[object]) -> list[str]:
    return [f"d{number}={path}" for number, path in enumerate(paths)]


def back_up(repo: Path, paths: Sequence[object], *options: object, track: str = "auto") -> Any:
    return succeed("backup", "--group", "web1", *named(paths), "--track", track, "--json", *options, repo=repo).json


def methods(made: Any) -> list[str]:
    return [each["tracking"]["method"] for each in made["members"]]


def names(disk: Path) -> list[str]:
    said = subprocess.run(["qemu-img", "info", "--output=json", disk], check=True, capture_output=True).stdout
    return [each["name"] for each in json.loads(said)["format-specific"]["data"].get("bitmaps", [])]


def restored(repo: Path, number: int) -> bytes:
    return succeed("restore", f"web1.d{number}", "-", repo=repo).out


def assert_restores(repo: Path, disks: Sequence[Path]) -> None:
    """Nothing writes: the newest snapshot is what the disks hold."""
    for number, disk in enumerate(disks):
        flat = disk.with_name("flat.raw")
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", disk, flat], check=True)
        assert restored(repo, number) == flat.read_bytes()


@contextmanager
def guest_of(live: LiveQemu) -> Iterator[None]:
    files = (live.guest, f"{live.guest}1")
    with subprocess.Popen([sys.executable, "-c", _GUEST, *files], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        try:
            yield
        finally:
            process.kill()


def wait_until_none(find: Callable[[], list[str]]) -> None:
    deadline_s = time.monotonic() + 20
    while found := find():
        assert time.monotonic() < deadline_s, found
        time.sleep(0.02)


# -- a running qemu ----------------------------------------------------------------------------------------------------


def test_disks_of_a_running_qemu_and_their_bitmaps_are_of_one_instant(
    repo: Path, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    with live_qemu(tmp_path, *disks, has_server=False) as live:
        with guest_of(live):
            for run in range(6):
                made = back_up(repo, live.addresses)
                assert methods(made) == (["bitmap"] * 2 if run else ["scan"] * 2)
                assert made["spread_s"] == 0
                assert [each["freeze"]["method"] for each in made["members"]] == ["qmp", "qmp"]
                first, second = (
                    int.from_bytes(restored(repo, number)[16 * MIB : 16 * MIB + 8], "little") for number in (0, 1)
                )
                assert second in (first, first - 1), "two instants, or a write that the bitmap did not list"
                assert live.find_traces() == []
                for number, member in enumerate(made["members"]):
                    assert [each["name"][-16:] for each in live.bitmaps(number)] == [member["snapshot"]]
                    assert run == 0 or member["read_bytes"] <= CLUSTER
        back_up(repo, live.addresses, "--pre-freeze", f"touch {tmp_path}/paused", track="bitmap")
        assert (tmp_path / "paused").exists()
    assert_restores(repo, disks)


BOOT_SECTOR = (
    bytes.fromhex(
        "fa31c08ed88ec08ed0bc007cfbb30188d8fcbf0080b90020f3aabe347ce80a00be447ce80400fec3ebe5b800438a5401cd13c390"
        "10801000008000000000000000000000" "10811000008000000080000000000000"
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)  # fmt: skip
"""A guest: it fills 16 sectors with 1, then 2 and so on, writes them to its first disk, and then to its second at 16 MiB. Which
disk that is comes from a byte of the packet for the BIOS that has no meaning there."""


def count_writes(live: LiveQemu) -> list[int]:
    disks = [each for each in live.ask("query-blockstats") if each.get("device", "").startswith("drive")]
    return [each["stats"]["wr_operations"] for each in disks]


def test_two_disks_of_a_real_machine_are_of_one_instant(repo: Path, disks: tuple[Path, Path], tmp_path: Path) -> None:
    program, monitor = requires_program("qemu-system-x86_64"), tmp_path / "qmp.sock"
    (tmp_path / "floppy").write_bytes(BOOT_SECTOR.ljust(1440 * KIB, b"\0"))
    drives = [f"if=ide,index={number},id=drive{number},format=qcow2,file={disk}" for number, disk in enumerate(disks)]
    machine = [
        program, "-accel", "tcg", "-m", "16", "-display", "none", "-nodefaults", "-boot", "a",
        "-drive", f"if=floppy,format=raw,file={tmp_path}/floppy", "-drive", drives[0], "-drive", drives[1],
        "-qmp", f"unix:{monitor},server=on,wait=off",
    ]  # fmt: skip
    addresses = [f"qmp+unix:///drive{number}?socket={monitor}" for number in (0, 1)]
    with serving(monitor, *machine) as process:
        live = LiveQemu(tmp_path, process, "", 2)
        deadline_s = time.monotonic() + 60
        while min(count_writes(live)) < 10:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        for method in ("scan", "bitmap", "bitmap"):
            assert methods(back_up(repo, addresses)) == [method] * 2
            contents = [restored(repo, 0)[: 16 * 512], restored(repo, 1)[16 * MIB : 16 * MIB + 16 * 512]]
            # Sector by sector in the order of the guest: what it wrote last, and then what it wrote the time before.
            sectors = [content[512 * number] for content in contents for number in range(16)]
            new = sectors.count(sectors[0])
            assert sectors == [sectors[0]] * new + [(sectors[0] - 1) % 256] * (32 - new)
            assert len(live.ask("query-jobs")) == len(live.ask("query-block-exports")) == 0
        live.ask("quit")
        process.wait(20)
    assert [len(names(disk)) for disk in disks] == [1, 1]
    assert methods(back_up(repo, disks)) == ["bitmap", "bitmap"]
    assert_restores(repo, disks)


def test_one_qemu_that_has_an_nbd_server_and_a_flat_file_beside_it(
    repo: Path, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    flat = tmp_path / "swap.raw"
    flat.write_bytes(os.urandom(MIB))
    with live_qemu(tmp_path, *disks) as live:
        for number in range(2):
            made = back_up(repo, [*live.addresses, flat])
            assert methods(made) == ["bitmap" if number else "scan"] * 2 + ["scan"]
        live.write("write -P 77 4M 64k", "flush")
        made = back_up(repo, [live.addresses[0], flat, live.addresses[1]])
        assert live.find_traces() == []
    into = tmp_path / "into"
    into.mkdir()
    succeed("restore", "web1", "--into", into, repo=repo)
    # A disk of a qemu has no name of a file.
    assert sorted(each.name for each in into.iterdir()) == ["swap.raw", "web1.d0", "web1.d2"]


def test_disks_of_two_qemus_are_frozen_one_after_the_other(
    repo: Path, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for each in folders:
        each.mkdir()
    with live_qemu(folders[0], disks[0]) as first, live_qemu(folders[1], disks[1]) as second:
        for number in range(2):
            made = back_up(repo, [first.address, second.address])
            assert made["spread_s"] > 0
            assert methods(made) == ["bitmap" if number else "scan"] * 2
        assert first.find_traces() == second.find_traces() == []
    assert_restores(repo, disks)


def test_a_disk_that_can_store_no_bitmap_takes_none_from_the_other(repo: Path, tmp_path: Path) -> None:
    old = make_qcow2(tmp_path / "old.qcow2", "8M", "-o", "compat=0.10")
    new = make_filled_qcow2(tmp_path / "new.qcow2", SIZE_MIB, 8)
    with live_qemu(tmp_path, old, new) as live:
        for number in range(2):
            run = succeed("backup", "--group", "web1", *named(live.addresses), "--track", "auto", "--json", repo=repo)
            assert run.err.count("so that the next backup reads everything: qemu: ") == 1
            assert methods(run.json) == ["scan", "bitmap" if number else "scan"]
        assert live.find_traces() == []
        assert [len(live.bitmaps(number)) for number in (0, 1)] == [0, 1]


def test_disks_of_a_qemu_that_make_no_group_leave_nothing(repo: Path, disks: tuple[Path, Path], tmp_path: Path) -> None:
    with live_qemu(tmp_path, *disks) as live:
        first, second = live.addresses
        group = ("backup", "--group", "web1")
        said = fail(60, *group, *named([first, f"{first}&scratch={tmp_path}"]), repo=repo)
        assert "'disk' and 'disk' are the same disk" in said
        said = fail(60, *group, *named([first, second.partition("&")[0]]), repo=repo)
        assert "name another NBD server" in said
        said = fail(60, *group, *named([first, second.replace("disk1", "disk2")]), repo=repo)
        assert "has no disk 'disk2'" in said
        fail(2, *group, *named([first, "qmp+unix:///disk1"]), repo=repo)
        assert "--freeze lvm cannot be used" in fail(60, *group, *named([first]), "--freeze", "lvm", repo=repo)
        before = [live.bitmaps(number) for number in (0, 1)]
        succeed(*group, *named([first, second]), "--track", "auto", "--dry-run", repo=repo)
        assert [live.bitmaps(number) for number in (0, 1)] == before == [[], []]
        assert live.find_traces() == []


@pytest.mark.parametrize("is_all", [False, True], ids=["the backup", "its guard as well"])
def test_killed_at_many_steps_no_disk_of_a_running_qemu_loses_a_write(
    repo: Path, disks: tuple[Path, Path], tmp_path: Path, *, is_all: bool
) -> None:
    with live_qemu(tmp_path, *disks, has_server=False) as live:
        back_up(repo, live.addresses)
        number, left, events = 0, 0, []
        while True:
            for place, guest in enumerate((live.guest, f"{live.guest}1")):
                with open(guest, "r+b", buffering=0) as file:
                    os.pwrite(file.fileno(), bytes([100 + number]) * KIB, (number % 16 + 8 * place) * MIB)
            arguments = ("backup", "--group", "web1", *named(live.addresses), "--track", "auto", "-q")
            event = run_killed_at(number, tmp_path / "hook", repo, *arguments, with_children=is_all)
            if event is None:
                break
            events.append(event)
            left += bool(live.find_traces())
            if not is_all:
                wait_until_none(live.find_traces)
            number += 3
        assert {"subprocess.Popen", "socket.sendmsg", "os.link"} <= set(events)
        assert left or not is_all
        assert_restores(repo, disks)
        assert live.find_traces() == []
        assert [len(live.bitmaps(place)) for place in (0, 1)] == [1, 1]
        assert methods(back_up(repo, live.addresses)) == ["bitmap", "bitmap"]
    succeed("check", "-q", repo=repo)


# -- files -------------------------------------------------------------------------------------------------------------


def test_qcow2_files_of_a_group_keep_bitmaps_beside_a_flat_disk(
    repo: Path, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    flat = tmp_path / "swap.raw"
    flat.write_bytes(os.urandom(MIB))
    first = back_up(repo, [*disks, flat])
    assert methods(first) == ["scan"] * 3
    for disk, member in zip(disks, first["members"], strict=False):
        assert [name[-16:] for name in names(disk)] == [member["snapshot"]]
    qemu_io(disks[1], "write -P 77 4M 4k")
    before = disks[1].read_bytes()
    back_up(repo, [*disks, flat], "--dry-run")
    assert disks[1].read_bytes() == before
    second = back_up(repo, [*disks, flat])
    assert methods(second) == ["bitmap", "bitmap", "scan"]
    assert [each["read_bytes"] for each in second["members"][:2]] == [0, CLUSTER]
    assert_restores(repo, disks)
    assert methods(back_up(repo, disks, track="bitmap")) == ["bitmap", "bitmap"]
    said = fail(11, "backup", "--group", "web1", *named([*disks, flat]), "--track", "bitmap", repo=repo)
    assert "is no qcow2 file: --track bitmap keeps dirty bitmaps in one" in said
    # A file whose name alone says qcow2 is a flat one.
    only_named = tmp_path / "flat.qcow2"
    only_named.write_bytes(os.urandom(MIB))
    assert methods(back_up(repo, [*disks, only_named])) == ["bitmap", "bitmap", "scan"]


def test_a_guest_that_does_not_run_keeps_bitmaps(repo: Path, disks: tuple[Path, Path], tmp_path: Path) -> None:
    xml = "".join(
        f"<disk type='file' device='disk'><driver type='qcow2'/><source file='{disk}'/><target dev='vd{letter}'/></disk>"
        for disk, letter in zip(disks, "ab", strict=True)
    )
    config = tmp_path / "web1.xml"
    config.write_text(f"<domain><name>web1</name><devices>{xml}</devices></domain>")
    options = ("backup", "--guest", "web1", "--guest-config", config, "--track", "auto", "--json")
    for number in range(2):
        made = succeed(*options, repo=repo).json
        of_disks = [each["tracking"]["method"] for each in made["members"] if each["tracking"]]
        assert of_disks == ["bitmap" if number else "scan"] * 2
        qemu_io(disks[0], "write -P 77 4M 4k")


def test_a_file_that_a_qemu_has_open_is_cloned_or_refused(repo: Path, tmp_path: Path) -> None:
    with loop_file_system("xfs", tmp_path / "mnt", 320 * MIB) as made:
        disks = [make_filled_qcow2(made.folder / f"{name}.qcow2", SIZE_MIB, 8) for name in ("root", "data")]
        group = ("backup", "--group", "web1", *named(disks), "--track")
        with live_qemu(tmp_path, disks[0]):
            found = succeed(*group, "auto", "--json", repo=repo).json["members"]
            assert [each["freeze"]["method"] for each in found] == ["reflink", "none"]
            assert "is open in another process of qemu" in fail(17, *group, "bitmap", repo=repo)
        assert methods(back_up(repo, disks)) == ["scan", "bitmap"]
        assert methods(back_up(repo, disks)) == ["bitmap", "bitmap"]
        found = back_up(repo, [*disks, made.folder / "root.qcow2.raw"][:2], track="reflink")["members"]
        assert "say nothing of the image" in found[0]["tracking"]["reason"]
        assert_restores(repo, disks)


def test_killed_at_each_step_no_file_of_a_group_loses_a_write(
    repo: Path, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    back_up(repo, disks)
    number, events = 0, []
    while True:
        for disk in disks:
            qemu_io(disk, f"write -P {100 + number} {2 * (number % 8)}M 4k")
        arguments = ("backup", "--group", "web1", *named(disks), "--track", "auto", "-q")
        event = run_killed_at(number, tmp_path / "hook", repo, *arguments)
        if event is None:
            break
        events.append(event)
        number += 1
    assert events.count("subprocess.Popen") >= 7  # list, add, serve for each of both; and remove
    assert events.count("os.link") >= 4
    assert_restores(repo, disks)
    assert [len(names(disk)) for disk in disks] == [1, 1]
    assert methods(back_up(repo, disks)) == ["bitmap", "bitmap"]
    succeed("check", "-q", repo=repo)
