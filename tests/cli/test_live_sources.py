# SPDX-License-Identifier: Apache-2.0
"""Sources that are in use, written to meanwhile, or smaller than they were."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.model import MIB
from tests.cli.conftest import Backups
from tests.support.components import loop_file_system
from tests.support.devices import make_ext4, mounted
from tests.support.program import command, deltaimg, environment, fail, succeed


def snapshots_of(image: str, repo: Path) -> list[dict[str, object]]:
    return [each for each in succeed("snapshots", "--json", repo=repo).json if each["image"] == image]


# -- in use ------------------------------------------------------------------------------------------------------------


def test_what_is_mounted_read_write_is_refused_unless_that_is_allowed(
    backups: Backups, tmp_path: Path, make_loop: Callable[[Path], str]
) -> None:
    file = tmp_path / "guest.raw"
    make_ext4(file, 8 * MIB)
    device = make_loop(file)
    with mounted(device, tmp_path / "mnt") as folder:
        for path in (device, file):
            said = fail(17, "backup", path, "--image", "guest", "-q", repo=backups.repo)
            assert f"mounted read-write at {folder}" in said
            assert "no snapshot was made" in said
        assert snapshots_of("guest", backups.repo) == []
        succeed("backup", device, "--image", "guest", "--allow-live", "-q", repo=backups.repo)
        assert [each["is_live"] for each in snapshots_of("guest", backups.repo)] == [True]
    succeed("backup", device, "--image", "guest", "-q", repo=backups.repo)
    assert [each["is_live"] for each in snapshots_of("guest", backups.repo)] == [True, False]


def test_what_is_mounted_read_only_is_backed_up(
    backups: Backups, tmp_path: Path, make_loop: Callable[[Path], str]
) -> None:
    file = tmp_path / "guest.raw"
    make_ext4(file, 8 * MIB)
    device = make_loop(file)
    with mounted(device, tmp_path / "mnt", "-r"):
        for path in (device, file):
            succeed("backup", path, "--image", "guest", "-q", repo=backups.repo)
    assert [each["is_live"] for each in snapshots_of("guest", backups.repo)] == [False, False]


def test_other_commands_warn_of_what_is_in_use(backups: Backups, tmp_path: Path) -> None:
    with loop_file_system("ext4", tmp_path / "mnt", 8 * MIB) as made:
        run = succeed("signature", made.backing, tmp_path / "signature", "-q")
        assert "mounted read-write" in run.err
        assert "may be inconsistent" in run.err


# -- written to meanwhile ----------------------------------------------------------------------------------------------


def test_a_device_that_is_written_to_meanwhile_is_refused(
    backups: Backups, tmp_path: Path, make_loop: Callable[[Path], str]
) -> None:
    file = tmp_path / "disk"
    file.write_bytes(os.urandom(64 * MIB))
    device = make_loop(file)
    arguments = ["backup", device, "--image", "disk", "-c", "12", "--delta", "none"]
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, env=environment(backups.repo), text=True)
    assert process.stderr
    for line in process.stderr:
        if "backing up" in line:
            break
    with open(device, "r+b") as written:
        written.write(b"NEW")
    said = process.stderr.read()
    assert process.wait(timeout=120) == 12, said
    assert "was written to while it was read" in said
    assert snapshots_of("disk", backups.repo) == []


@pytest.mark.parametrize("format_name", ["deltaimg", "rdiff", "vcdiff"])
def test_a_patch_of_a_file_that_is_written_to_meanwhile_is_refused(tmp_path: Path, format_name: str) -> None:
    """What rdiff makes of it is verified by nothing else."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(os.urandom(MIB))
    new.write_bytes(old.read_bytes() + b"more")
    first = old
    if format_name != "vcdiff":
        first = tmp_path / "signature"
        succeed("signature", "--format", format_name, old, first, "-q")
    succeed("delta", "--format", format_name, first, new, tmp_path / "delta", "-q")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        command("patch", "--format", format_name, old, pipe, tmp_path / "made"), stderr=subprocess.PIPE, text=True
    )
    with open(pipe, "wb") as delta:  # opened for reading once the old file is open
        old.touch()
        delta.write((tmp_path / "delta").read_bytes())
    _, said = process.communicate(timeout=60)
    assert process.returncode == 12, said
    assert not (tmp_path / "made").exists()


# -- smaller than it was -----------------------------------------------------------------------------------------------


def test_a_stream_that_was_cut_short_is_refused(backups: Backups) -> None:
    whole = backups.second
    succeed("backup", "-", "--image", "piped", "-q", repo=backups.repo, stdin=whole)
    for cut in (whole[:-1], whole[: len(whole) // 2], whole[:1]):
        run = deltaimg("backup", "-", "--image", "piped", "-q", repo=backups.repo, stdin=cut)
        assert run.code == 18
        assert f"has {len(cut)} bytes, fewer than the {len(whole)} of snapshot piped@" in run.err
        assert "--allow-shrink" in run.err
    assert len(snapshots_of("piped", backups.repo)) == 1
    succeed("backup", "-", "--image", "piped", "-q", repo=backups.repo, stdin=whole + b"more")
    succeed("backup", "-", "--image", "piped", "--allow-shrink", "-q", repo=backups.repo, stdin=whole[:-1])
    succeed("backup", "-", "--image", "piped", "-q", repo=backups.repo, stdin=whole[:-1])


def test_a_stream_that_is_shorter_than_a_base_that_was_a_file_is_refused(backups: Backups) -> None:
    fail(18, "backup", "-", "--image", "vm1", "-q", repo=backups.repo, stdin=backups.second[:-1])


def test_a_file_that_shrank_is_backed_up_with_a_warning(backups: Backups) -> None:
    backups.image.write_bytes(backups.second[:MIB])
    run = succeed("backup", backups.image, "--image", "vm1", "-q", repo=backups.repo)
    assert run.err.count(f"has {MIB} bytes, fewer than the {len(backups.second)} of snapshot vm1@") == 1
    again = succeed("backup", backups.image, "--image", "vm1", "-q", repo=backups.repo)
    assert "fewer" not in again.err


def test_a_file_of_which_nearly_nothing_is_left_is_refused(backups: Backups, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.txt"
    wrong.write_text("not an image\n")
    said = fail(18, "backup", wrong, "--image", "vm1", "-q", repo=backups.repo)
    assert "it may be the wrong one" in said
    assert len(snapshots_of("vm1", backups.repo)) == 2
    run = succeed("backup", wrong, "--image", "vm1", "--allow-shrink", "-q", repo=backups.repo)
    assert "warning" not in run.err
