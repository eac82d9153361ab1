# SPDX-License-Identifier: Apache-2.0
"""Where administrators restore to: devices by any name, larger devices, pipes by name, disks with room for one copy."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.model import MIB
from tests.cli.conftest import Backups
from tests.support.components import loop_file_system, requires_root, small_ext4, small_tmpfs
from tests.support.live_qemu import live_qemu
from tests.support.program import command, deltaimg, environment, fail, read_tree, succeed


def run_in_bash(line: str, repo: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `deltaimg` is the program."""
    program = " ".join(command())
    return subprocess.run(
        ["bash", "-c", f"deltaimg() {{ {program} \"$@\"; }}; set -o pipefail; {line}"],
        capture_output=True, env=environment(repo), check=False, timeout=60,
    )  # fmt: skip


# -- devices -----------------------------------------------------------------------------------------------------------


def test_a_device_has_many_names(backups: Backups, tmp_path: Path, make_loop: Callable[[Path], str]) -> None:
    """/dev/VG/LV, /dev/disk/by-id and /dev/mapper/NAME are links, some of them to links."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xaa" * (len(backups.second) // 512 + 1) * 512)
    device = make_loop(backing)
    folder = tmp_path / "dev" / "vg0"
    folder.mkdir(parents=True)
    (folder / "dm-0").symlink_to(device)
    (folder / "vm1").symlink_to("dm-0")
    name = folder / "vm1"
    assert "is a block device" in fail(13, "restore", "vm1", name, repo=backups.repo)
    succeed("restore", "vm1", name, "--force", "-q", repo=backups.repo)
    assert Path(device).read_bytes()[: len(backups.second)] == backups.second
    succeed("verify", "vm1", "--against", name, "-q", repo=backups.repo)
    succeed("backup", name, "--image", "again", "-q", repo=backups.repo)
    succeed("signature", name, tmp_path / "signature", "-q")
    backups.image.write_bytes(backups.first)
    succeed("delta", tmp_path / "signature", backups.image, tmp_path / "delta", "-q")
    succeed("patch", name, tmp_path / "delta", tmp_path / "patched", "-q")
    assert (tmp_path / "patched").read_bytes() == backups.first
    other = make_loop(Path(shutil.copy(backing, tmp_path / "other")))
    (folder / "other").symlink_to(other)
    succeed("patch", name, tmp_path / "delta", folder / "other", "--force", "-q")
    assert Path(other).read_bytes()[: len(backups.first)] == backups.first


def test_a_link_to_a_file_is_not_followed_and_the_hint_names_the_file(backups: Backups, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"old")
    (tmp_path / "link").symlink_to("precious")
    run = deltaimg("restore", "vm1", tmp_path / "link", "--force", repo=backups.repo)
    assert run.code == 13
    assert f"name what it points to: {tmp_path}/precious" in run.err
    assert (tmp_path / "precious").read_bytes() == b"old"


def test_a_larger_device_keeps_its_tail_and_the_user_is_told(
    backups: Backups, tmp_path: Path, make_loop: Callable[[Path], str]
) -> None:
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xaa" * 4 * MIB)
    device = make_loop(backing)
    run = succeed("restore", "vm1", device, "--force", repo=backups.repo)
    tail_bytes = 4 * MIB - len(backups.second)
    assert f"the last 2.1 MiB of {device} are no part of it" in run.text
    assert Path(device).read_bytes() == backups.second + b"\xaa" * tail_bytes
    compared = succeed("verify", "vm1", "--against", device, repo=backups.repo)
    assert "byte for byte" in compared.text
    assert "2.1 MiB more follow" in compared.text
    assert succeed("verify", "vm1", "--against", device, "--json", repo=backups.repo).json["tail_bytes"] == tail_bytes
    again = succeed("restore", "vm1", device, "--force", "--json", repo=backups.repo)
    assert again.json["tail_bytes"] == tail_bytes
    assert succeed("restore", "vm1", tmp_path / "file", "--json", repo=backups.repo).json["tail_bytes"] == 0


def test_a_stream_is_compared_as_a_device_is(backups: Backups) -> None:
    whole = backups.second
    assert "byte for byte" in succeed("verify", "vm1", "--against", "-", repo=backups.repo, stdin=whole).text
    longer = succeed("verify", "vm1", "--against", "-", "--json", repo=backups.repo, stdin=whole + bytes(3 * MIB))
    assert longer.json["tail_bytes"] == 3 * MIB
    fail(15, "verify", "vm1", "--against", "-", repo=backups.repo, stdin=whole[:-1])
    fail(45, "verify", "vm1", "--against", "-", repo=backups.repo, stdin=whole[:-1] + b"?" + bytes(MIB))


def test_a_smaller_device_is_not_the_image(backups: Backups, tmp_path: Path, make_loop: Callable[[Path], str]) -> None:
    backing = tmp_path / "backing"
    backing.write_bytes(backups.second[: MIB + 512])
    said = fail(15, "verify", "vm1", "--against", make_loop(backing), repo=backups.repo)
    assert f"has {MIB + 512} bytes; snapshot vm1@" in said


def test_a_device_that_is_mounted_or_held_is_refused_and_named(backups: Backups, tmp_path: Path) -> None:
    with small_ext4(tmp_path / "ext4", 8 * MIB) as folder:
        lines = Path("/proc/mounts").read_text().splitlines()
        device = next(line.split()[0] for line in lines if str(folder) in line)
        (folder / "file").write_bytes(b"precious")
        said = fail(17, "restore", "vm1", device, "--force", repo=backups.repo)
        assert f"is mounted read-write at {folder}" in said
        assert (folder / "file").read_bytes() == b"precious"


def test_a_device_that_another_program_holds_is_refused(
    backups: Backups, tmp_path: Path, make_loop: Callable[[Path], str]
) -> None:
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xaa" * 4 * MIB)
    device = make_loop(backing)
    holder = os.open(device, os.O_RDONLY | os.O_EXCL)
    said = fail(17, "restore", "vm1", device, "--force", repo=backups.repo)
    os.close(holder)
    assert "is held by another program" in said
    assert backing.read_bytes() == b"\xaa" * 4 * MIB


# -- pipes by name -----------------------------------------------------------------------------------------------------

READ_FROM_PIPE = (
    "cat IMAGE | deltaimg backup /dev/stdin --image p -q",
    "cat IMAGE | deltaimg backup /proc/self/fd/0 --image p -q",
    "cat IMAGE | deltaimg backup /dev/fd/0 --image p -q",
    "deltaimg backup <(cat IMAGE) --image p -q",
    "mkfifo FIFO && { cat IMAGE >FIFO & } && deltaimg backup FIFO --image p -q",
    "deltaimg backup /dev/stdin --image p -q <IMAGE",
)


def test_a_folder_as_a_target_gets_the_way_to_name_the_file(backups: Backups, tmp_path: Path) -> None:
    run = deltaimg("restore", "vm1", tmp_path, repo=backups.repo)
    assert run.code == 11
    assert f"name the file in it: {tmp_path}/NAME" in run.err


def test_a_file_that_is_mounted_is_not_replaced_under_its_mount(backups: Backups, tmp_path: Path) -> None:
    with loop_file_system("ext4", tmp_path / "mounted", 8 * MIB) as made:
        before = made.backing.stat().st_ino
        said = fail(17, "restore", "vm1", made.backing, "--force", repo=backups.repo)
        assert f"mounted read-write at {made.folder}" in said
        assert made.backing.stat().st_ino == before
    succeed("restore", "vm1", made.backing, "--force", repo=backups.repo)


def test_a_file_that_a_running_guest_has_open_is_not_replaced_under_it(backups: Backups, tmp_path: Path) -> None:
    """It would write to a file without a name until it ends."""
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(MIB))
    with live_qemu(tmp_path, image, kind="raw"):
        assert "locked by another program" in fail(17, "restore", "vm1", image, "--force", repo=backups.repo)
        assert image.read_bytes() == bytes(MIB)
    succeed("restore", "vm1", image, "--force", repo=backups.repo)


@pytest.mark.parametrize("line", READ_FROM_PIPE)
def test_a_pipe_may_be_read_by_its_name(backups: Backups, tmp_path: Path, line: str) -> None:
    done = run_in_bash(line.replace("IMAGE", str(backups.image)).replace("FIFO", str(tmp_path / "fifo")), backups.repo)
    assert done.returncode == 0, done.stderr
    assert succeed("restore", "p", "-", repo=backups.repo).out == backups.second


WRITE_TO_PIPE = (
    "deltaimg restore vm1 /dev/stdout | cat",
    "deltaimg restore vm1 /proc/self/fd/1 -q | cat",
    "deltaimg restore vm1 >(cat >OUT) -q; for n in $(seq 100); do [ -s OUT ] && break; sleep .05; done; sleep .1; cat OUT",
    "mkfifo FIFO && { deltaimg restore vm1 FIFO -q & } && cat FIFO",
)


@pytest.mark.parametrize("line", WRITE_TO_PIPE)
def test_a_pipe_may_be_written_by_its_name(backups: Backups, tmp_path: Path, line: str) -> None:
    done = run_in_bash(line.replace("OUT", str(tmp_path / "out")).replace("FIFO", str(tmp_path / "fifo")), backups.repo)
    assert done.returncode == 0, done.stderr
    assert done.stdout == backups.second


def test_the_standard_output_by_name_is_no_way_to_overwrite_a_file(backups: Backups, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"precious")
    done = run_in_bash(f"deltaimg restore vm1 /dev/stdout --force >>{tmp_path}/out", backups.repo)
    assert done.returncode == 13
    assert b"'-' is the standard output" in done.stderr
    assert (tmp_path / "out").read_bytes() == b"precious"


def test_signatures_and_deltas_come_through_pipes_by_name(backups: Backups, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(backups.first)
    line = (
        f"deltaimg delta <(deltaimg signature {old} /dev/stdout -q) <(cat {backups.image}) {tmp_path}/delta -q && "
        f"deltaimg patch {old} <(cat {tmp_path}/delta) {tmp_path}/new -q"
    )
    done = run_in_bash(line, backups.repo)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new").read_bytes() == backups.second


def test_what_comes_in_by_redirection_is_not_overwritten(backups: Backups) -> None:
    for line in ("deltaimg signature - IMAGE --force <IMAGE", "deltaimg signature IMAGE - >>IMAGE"):
        done = run_in_bash(line.replace("IMAGE", str(backups.image)), backups.repo)
        assert done.returncode == 2, done.stderr
    assert backups.image.read_bytes() == backups.second


# -- room and places ---------------------------------------------------------------------------------------------------


def test_where_only_one_copy_fits_the_old_one_stays_and_why_is_said(backups: Backups, tmp_path: Path) -> None:
    with small_tmpfs(tmp_path / "disk", 2_500_000) as folder:
        (folder / "vm1.raw").write_bytes(backups.first)
        run = deltaimg("restore", "vm1", folder / "vm1.raw", "--force", repo=backups.repo)
        assert run.code == 14
        assert "the old file is only replaced once the new one is whole, so both must fit" in run.err
        assert "remove the old file first" in run.err
        assert "are free there" in run.err, "a warning comes before the work"
        assert (folder / "vm1.raw").read_bytes() == backups.first
        assert os.listdir(folder) == ["vm1.raw"]
        (folder / "vm1.raw").unlink()
        succeed("restore", "vm1", folder / "vm1.raw", repo=backups.repo)
        assert (folder / "vm1.raw").read_bytes() == backups.second


def test_nothing_is_restored_into_the_repository(backups: Backups, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(backups.repo / "snapshots")
    for target in (
        backups.repo / "config",
        backups.repo / "new",
        tmp_path / "link" / "new",
        backups.repo / "packs" / "new",
    ):
        said = fail(2, "restore", "vm1", target, "--force", repo=backups.repo)
        assert f"is in the repository {backups.repo}" in said
    succeed("restore", "vm1", tmp_path / "beside", repo=backups.repo)


def test_nothing_is_written_into_any_repository_even_with_force(backups: Backups, tmp_path: Path) -> None:
    other, without_config, image = tmp_path / "other", tmp_path / "without-config", tmp_path / "image"
    shutil.copytree(backups.repo, other)
    shutil.copytree(backups.repo, without_config)
    (without_config / "config").unlink()
    image.write_bytes(backups.first)
    succeed("signature", image, tmp_path / "signature", "-q")
    backups.image.write_bytes(backups.second)
    succeed("delta", tmp_path / "signature", backups.image, tmp_path / "delta", "-q")
    before = read_tree(other), read_tree(without_config)
    pack = next(each for each in other.glob("packs/*/*") if each.is_file()).relative_to(other)
    for target in (other / "config", other / pack, other / "new", without_config / pack):
        for arguments in (
            ("restore", "vm1", target, "-r", backups.repo),
            ("mirror", image, target),
            ("mirror", image, target, "--dry-run"),
            ("patch", image, tmp_path / "delta", target),
            ("signature", image, target),
        ):
            said = fail(2, *arguments, "--force")
            assert f"is in the repository {tmp_path / target.relative_to(tmp_path).parts[0]}" in said
    assert (read_tree(other), read_tree(without_config)) == before


def test_an_ordinary_user_restores_with_an_ordinary_mode(backups: Backups, tmp_path: Path) -> None:
    requires_root()
    target = tmp_path / "image.raw"
    done = run_in_bash(f"umask 022; deltaimg restore vm1 {target} -q", backups.repo)
    assert done.returncode == 0, done.stderr
    assert target.stat().st_mode & 0o777 == 0o644
    os.chown(target, 1234, 2345)
    target.chmod(0o640)
    succeed("restore", "vm1", target, "--force", "-q", repo=backups.repo)
    found = target.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 2345, 0o640)
