# SPDX-License-Identifier: Apache-2.0
"""Guests of Xen, backed up by one command while they run, restored to other places, and started from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaimg.model import KIB
from tests.support.killed import run_killed_at
from tests.support.lvm import GROUP, list_made, run, volume_group
from tests.support.program import fail, succeed
from tests.support.xen import (
    DISK_BYTES,
    Guest,
    assert_goes_on,
    make_system,
    make_volumes,
    read_number,
    requires_xen,
    running,
    wait_for,
)

pytestmark = pytest.mark.xen

BACKUP = ("backup", "--guest", "web1", "--freeze", "lvm")
ROOT, DATA = f"/dev/{GROUP}/web1-root", f"/dev/{GROUP}/web1-data"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    repo = tmp_path / "repo"
    succeed("init", repo=repo)
    return repo


@pytest.fixture
def web1(tmp_path: Path) -> Iterator[Guest]:
    requires_xen()
    with volume_group():
        make_volumes("web1-root", "web1-data")
        make_system(ROOT, tmp_path)
        with running(Guest("web1", f"phy:{ROOT},xvda,w", f"phy:{DATA},xvdb,w")) as guest:
            yield guest


def test_a_guest_on_volumes_is_backed_up_while_it_runs_and_boots_from_others(
    web1: Guest, repo: Path, tmp_path: Path
) -> None:
    before = read_number(DATA)
    first = succeed(*BACKUP, "--json", repo=repo).json
    assert [each["image"] for each in first["members"]] == ["web1.xvda", "web1.xvdb", "web1.config"]
    assert [each["freeze"]["method"] for each in first["members"][:2]] == ["lvm", "lvm"]
    assert first["spread_s"] == 0
    assert list_made() == []
    assert_goes_on(web1, DATA)

    second = succeed(*BACKUP, "--json", repo=repo).json
    stored_bytes = sum(each["stored_bytes"] for each in second["members"])
    assert stored_bytes < 256 * KIB < sum(each["stored_bytes"] for each in first["members"])
    after = read_number(ROOT)
    print(f"stored {stored_bytes} bytes the second time; stopped for {second['members'][0]['freeze']['frozen_s']} s")
    assert_goes_on(web1, DATA)

    new_root, new_data = make_volumes("new-root", "new-data")
    moves = ("--map", f"{ROOT}={new_root}", "--map", f"{DATA}={new_data}")
    succeed("restore", "--guest", "web1", *moves, "--force", repo=repo)
    number = read_number(new_data)
    assert before <= number < after
    assert read_number(new_root) - number in (0, 1)

    restored = tmp_path / "web1.cfg"
    succeed("restore", "--guest", "web1", "--config-only", restored, *moves, repo=repo)
    assert restored.read_text() == web1.config.read_text().replace(ROOT, new_root).replace(DATA, new_data)
    root_number = read_number(new_root)
    web1.destroy()
    stopped_at = read_number(ROOT)
    assert web1.start(restored).startswith(f"{root_number} and {number}, ")
    assert_goes_on(web1, new_data)
    assert read_number(ROOT) == stopped_at


def test_volumes_of_a_guest_that_is_not_stopped_are_of_different_moments(
    web1: Guest, repo: Path, tmp_path: Path
) -> None:
    """What the numbers are there to show, shown without the pause."""
    own = ("--pre-freeze", "true", "--post-freeze", "true")
    succeed(*BACKUP, *own, repo=repo)
    succeed("restore", "--guest", "web1", "--into", tmp_path, repo=repo)
    assert read_number(tmp_path / "web1-data") - read_number(tmp_path / "web1-root") > 1
    assert_goes_on(web1, DATA)


def test_a_backup_that_is_killed_leaves_the_guest_running_and_no_snapshot_after_the_next(
    web1: Guest, repo: Path, tmp_path: Path
) -> None:
    """Every other time all that it has started is killed with it: then it is the next that resumes the guest."""
    succeed(*BACKUP, repo=repo)
    number, killed_at, left_paused, left_volumes = 0, [], 0, 0
    while killed := run_killed_at(number, tmp_path / "hook", repo, *BACKUP, with_children=bool(number % 2)):
        killed_at.append(killed)
        left_volumes += bool(list_made())
        if number % 2 and web1.is_paused():
            left_paused += 1
            assert "left paused by a backup that died, and is resumed" in succeed(*BACKUP, repo=repo).err
            assert list_made() == []
        wait_for(lambda: not web1.is_paused(), "the guest is resumed")
        assert len(list_made()) <= 2, list_made()
        number += 3
    succeed(*BACKUP, repo=repo)
    assert list_made() == []
    assert left_paused
    assert left_volumes
    assert_goes_on(web1, DATA)
    succeed("check", repo=repo)
    commands = killed_at.count("subprocess.Popen")
    print(
        f"killed {len(killed_at)} times, before {commands} commands; left paused {left_paused}, volumes {left_volumes} times"
    )


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on XFS."""
    requires_xen()
    with volume_group():
        run("lvcreate", "--yes", "--size", "640M", "--name", "images", GROUP)
        run("mkfs.xfs", "-q", f"/dev/{GROUP}/images")
        (folder := tmp_path / "images").mkdir()
        run("mount", f"/dev/{GROUP}/images", folder)
        try:
            for name in ("root.raw", "data.raw"):
                with open(folder / name, "wb") as file:
                    file.truncate(DISK_BYTES)
            make_system(str(folder / "root.raw"), tmp_path)
            yield folder
        finally:
            run("umount", folder)


def test_a_guest_on_files_is_backed_up_from_clones(images: Path, repo: Path, tmp_path: Path) -> None:
    """A qemu of the first domain serves the files."""
    root, data = images / "root.raw", images / "data.raw"
    with running(Guest("web1", f"file:{root},xvda,w", f"file:{data},xvdb,w")) as guest:
        assert "is not a logical volume" in fail(60, *BACKUP, repo=repo)
        for _ in range(2):
            before = read_number(data)
            done = succeed("backup", "--guest", "web1", "--freeze", "auto", "--json", repo=repo).json
            assert [each["freeze"]["method"] for each in done["members"][:2]] == ["reflink", "reflink"]
            assert_goes_on(guest, str(data))
            assert_of_one_moment(repo, tmp_path, root.name, data.name, before, read_number(root))


def test_a_guest_on_loop_devices_is_stopped_while_they_are_read(images: Path, repo: Path, tmp_path: Path) -> None:
    """The page cache of a device has not what a guest writes past it."""
    devices = [run("losetup", "--find", "--show", images / name).strip() for name in ("root.raw", "data.raw")]
    try:
        with running(Guest("web1", *(f"phy:{each},xvd{'ab'[n]},w" for n, each in enumerate(devices)))) as guest:
            assert "is not a logical volume" in fail(60, *BACKUP, repo=repo)
            for _ in range(2):
                run("dd", f"if={devices[0]}", "of=/dev/null", "bs=1M")
                run("dd", f"if={devices[1]}", "of=/dev/null", "bs=1M")
                assert_goes_on(guest, devices[1])
                before = read_number(devices[1])
                done = succeed("backup", "--guest", "web1", "--freeze", "auto", "--json", repo=repo).json
                assert [each["freeze"]["method"] for each in done["members"][:2]] == ["hook", "hook"]
                assert_goes_on(guest, devices[1])
                names = [Path(each).name for each in devices]
                assert_of_one_moment(repo, tmp_path, *names, before, read_number(devices[0]))
    finally:
        for each in devices:
            run("losetup", "--detach", each)


def assert_of_one_moment(repo: Path, folder: Path, root: str, data: str, before: int, after: int) -> None:
    """The newest snapshot has numbers of one moment, of the time between two others."""
    (out := folder / "out").mkdir(exist_ok=True)
    succeed("restore", "--guest", "web1", "--into", out, "--force", repo=repo)
    number = read_number(out / data)
    assert before <= number <= after
    assert read_number(out / root) - number in (0, 1)
