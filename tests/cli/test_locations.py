# SPDX-License-Identifier: Apache-2.0
"""Locations of repositories that do not work: addresses, disks that are not mounted, folders that refuse access."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import deltaimg as deltaimg_api
from deltaimg.cli.app import COMMANDS
from deltaimg.errors import UsageError
from tests.cli.conftest import Backups
from tests.support.components import requires_program, requires_root
from tests.support.program import Run, command, deltaimg, environment, fail, succeed

ADDRESSES = [
    "sftp:host:/repo",
    "s3:bucket/prefix",
    "ftp://host/repo",
    "s3:https://s3.example.org/bucket",
    "host:/path",
    "user@host:path",
    "rclone:x",
    "rest:http://host:8000/",
    "C:\\backup",
    "\\\\nas\\backup",
    "~/repo",
]
ARGUMENTS = {
    "backup": ("IMAGE", "--image", "vm1"),
    "restore": ("vm1", "TARGET"),
    "show": ("vm1",),
    "diff": ("vm1", "vm1"),
    "cat": ("vm1",),
    "pin": ("vm1",),
    "unpin": ("vm1",),
    "tag": ("add", "vm1", "weekly"),
    "flatten": ("vm1",),
    "forget": ("--keep-last", "1"),
    "parity": ("show",),
    "key": ("list",),
    "inspect": ("vm1",),
    "mount": ("mnt",),
    "sync": ("sftp:host:/repo", "offsite"),
}
WITHOUT_REPOSITORY = {"signature", "delta", "patch", "version", "help", "cache", "mirror"}


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_looks_like_an_address_becomes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for act in (deltaimg_api.create_repository, deltaimg_api.open_repository):
        with pytest.raises(UsageError) as caught:
            act(address)
        assert str(caught.value).startswith(f"{address}: ")
        assert f"./{address}" in str(caught.value.hint)
    assert os.listdir(tmp_path) == []


def run_in(folder: Path, *arguments: object) -> Run:
    done = subprocess.run(
        command(*arguments), capture_output=True, cwd=folder, env=environment(None), check=False, timeout=60
    )
    return Run(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT_REPOSITORY))
def test_every_command_refuses_an_address(tmp_path: Path, name: str) -> None:
    (tmp_path / "image").write_bytes(b"x" * 5000)
    places = {"IMAGE": tmp_path / "image", "TARGET": tmp_path / "target"}
    arguments = [places.get(each, each) for each in ARGUMENTS.get(name, ())]
    run = deltaimg(name, *arguments, *(() if name == "sync" else ("-r", "sftp:host:/repo")))
    # doctor says what is wrong with a repository, and looks at the rest.
    assert run.code == (0 if name == "doctor" else 2), run.err
    assert "looks like an address" in run.err
    assert os.listdir(tmp_path) == ["image"]


def test_a_folder_with_a_colon_in_its_name_can_be_given(tmp_path: Path) -> None:
    assert run_in(tmp_path, "init", "-r", "./s3:bucket").code == 0
    assert run_in(tmp_path, "snapshots", "-r", tmp_path / "s3:bucket").code == 0


def test_an_empty_place_asks_whether_its_disk_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    for repo in (tmp_path / "usb" / "repo", tmp_path / "usb"):
        run = deltaimg("snapshots", repo=repo)
        assert run.code == 31
        assert f"is the disk at {tmp_path / 'usb'} mounted?" in run.err
        assert "init -r" in run.err
    (tmp_path / "usb" / "other").touch()
    assert "mounted" not in deltaimg("snapshots", repo=tmp_path / "usb" / "repo").err


def test_a_mount_point_of_fstab_without_its_disk_is_named(tmp_path: Path) -> None:
    requires_root()
    disk = tmp_path / "my disk"
    (disk / "folder").mkdir(parents=True)
    table = tmp_path / "fstab"
    table.write_text(
        f"# {disk}\nUUID=1 / ext4 defaults 0 1\nUUID=2 {str(disk).replace(' ', chr(92) + '040')} ext4 noauto\n"
    )
    run = run_with_fstab(table, *command("snapshots", "-r", disk / "folder" / "repo"))
    assert run.code == 31
    assert f"{disk} is in /etc/fstab and is not mounted" in run.err
    run = run_with_fstab(table, *command("init", "-r", disk / "folder" / "repo"))
    assert run.code == 0
    assert f"{disk} is not mounted: the repository is made on the disk below it" in run.err


def run_with_fstab(table: Path, *arguments: str) -> Run:
    """Run something in a mount namespace of its own, in which `table` is the table of file systems."""
    requires_program("unshare")
    Path("/etc/fstab").touch()
    script = 'mount --bind "$0" /etc/fstab && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(table), *arguments],
        capture_output=True,
        env=environment(None),
        check=False,
        timeout=60,
    )
    return Run(done.returncode, done.stdout, done.stderr.decode())


def test_a_link_to_a_disk_that_is_not_there_is_no_place_for_a_new_repository(tmp_path: Path) -> None:
    (tmp_path / "repo").symlink_to(tmp_path / "unplugged" / "repo")
    for verb in ("snapshots", "init"):
        said = fail(54, verb, "-r", tmp_path / "repo")
        assert "is a link to" in said
        assert "which is not there" in said
    assert not (tmp_path / "unplugged").exists()


def test_a_read_only_mount_is_named_as_such(backups: Backups, make_tmpfs: Callable[[int], Path]) -> None:
    folder = make_tmpfs(64 << 20)
    subprocess.run(["cp", "-a", str(backups.repo), str(folder / "repo")], check=True)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    repo = folder / "repo"
    assert fail(55, "backup", backups.image, "-i", "vm1", "-r", repo) == (
        f"deltaimg: {repo}: its file system is mounted read-only"
    )
    assert "mounted read-only" in fail(55, "init", "-r", folder / "new")
    for verb in (("snapshots",), ("verify",), ("restore", "vm1", backups.repo.parent / "out"), ("check",)):
        succeed(*verb, "-r", repo)


def test_a_group_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert "no group 'nosuchgroup'" in fail(2, "init", "--group", "nosuchgroup", "-r", tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def test_init_shares_a_repository(tmp_path: Path) -> None:
    requires_root()
    succeed("init", "--group", "20001", "-r", tmp_path / "repo")
    found = (tmp_path / "repo").stat()
    assert (found.st_gid, found.st_mode & 0o7777) == (20001, 0o2770)
    assert (tmp_path / "repo" / "config").stat().st_mode & 0o777 == 0o660
    assert "there is a repository already" in fail(32, "init", "--group", "20002", "-r", tmp_path / "repo")
    assert (tmp_path / "repo").stat().st_gid == 20001


def test_init_makes_a_member_of_a_family(tmp_path: Path) -> None:
    first = succeed("init", "--json", "-r", tmp_path / "first").json
    second = succeed("init", "--json", "--like", tmp_path / "first", "-r", tmp_path / "second").json
    assert first["family"] == second["family"] == first["id"] != second["id"]
    assert "nothing" in fail(31, "init", "--like", tmp_path / "nothing", "-r", tmp_path / "third")
    assert not (tmp_path / "third").exists()
