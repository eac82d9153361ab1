# SPDX-License-Identifier: Apache-2.0
"""A failing disk, and files that are no flat image: what backup, snapshots and show say."""

from __future__ import annotations

import os
from pathlib import Path

from deltaimg.model import MIB
from tests.cli.conftest import Backups
from tests.support.components import loop_device, requires_program, run_or_skip
from tests.support.devices import failing_file
from tests.support.program import deltaimg, fail, succeed


def test_the_rest_of_a_failing_disk_is_backed_up_and_what_is_lost_is_listed(backups: Backups, tmp_path: Path) -> None:
    content = os.urandom(2 * MIB)
    (tmp_path / "content").write_bytes(content)
    bad = [(512 * 1000, 512 * 1001), (MIB, MIB + 8192)]
    with failing_file(tmp_path / "content", tmp_path / "fuse", bad) as file, loop_device(file) as disk:
        run = deltaimg("backup", disk, "--image", "disk", "-q", repo=backups.repo)
        assert run.code == 10
        assert "cannot be read at byte" in run.err
        assert "--on-read-error zero" in run.err
        for options in ((), ("--direct",)):
            run = deltaimg(
                "backup", disk, "--image", "disk", "--on-read-error", "zero", "--json", *options, repo=backups.repo
            )
            assert run.code == 19
            assert "could not be read" in run.err
            assert f"bytes {bad[1][0]} to {bad[1][1]} cannot be read, and are zeros in the snapshot" in run.err
    shown = succeed("show", "disk", "--json", repo=backups.repo).json
    lost = [(each["start"], each["end"]) for each in shown["unreadable"]]
    assert all(any(start <= first and last <= end for start, end in lost) for first, last in bad)
    expected = bytearray(content)
    for start, end in lost:
        expected[start:end] = bytes(end - start)
    assert succeed("restore", "disk", "-", repo=backups.repo).out == expected
    assert "could not be read, and are zeros in it" in succeed("show", "disk", repo=backups.repo).text
    assert "unreadable" in succeed("snapshots", "disk", repo=backups.repo).text
    # A good disk, later.
    succeed("backup", tmp_path / "content", "--image", "disk", "--on-read-error", "zero", "-q", repo=backups.repo)
    assert succeed("restore", "disk", "-", repo=backups.repo).out == content
    assert succeed("show", "disk", "--json", repo=backups.repo).json["unreadable"] == []


def test_other_commands_name_the_one_that_goes_on(tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(os.urandom(MIB))
    with failing_file(content, tmp_path / "fuse", [(512 * 1000, 512 * 1001)]) as file, loop_device(file) as disk:
        for words in (("mirror", disk, tmp_path / "copy"), ("signature", disk, tmp_path / "signature")):
            run = deltaimg(*words)
            assert run.code == 10
            assert "hint: 'deltaimg backup --on-read-error zero' stores the rest; ddrescue may get more" in run.err


def test_what_to_do_on_read_errors_is_one_of_two(backups: Backups) -> None:
    fail(2, "backup", backups.image, "--image", "x", "--on-read-error", "skip", repo=backups.repo)


def test_a_qcow2_file_of_another_name_is_refused_unless_that_is_meant(backups: Backups, tmp_path: Path) -> None:
    path = tmp_path / "vm.img"
    run_or_skip("qemu-img", requires_program("qemu-img"), "create", "-q", "-f", "qcow2", str(path), "8M")
    run = deltaimg("backup", path, "--image", "vm2", "-q", repo=backups.repo)
    assert run.code == 11
    assert "is in qcow2 format, not a flat image" in run.err
    assert (
        "'--format qcow2' backs up the image in it, if it is used so; a guest can write such headers into flat images"
        in run.err
    )
    assert "--raw stores the file as it is" in run.err
    run = deltaimg("backup", "-", "--image", "vm2", "-q", repo=backups.repo, stdin=path.read_bytes())
    assert run.code == 11
    succeed("backup", path, "--image", "vm2", "--raw", "-q", repo=backups.repo)
    assert succeed("restore", "vm2", "-", repo=backups.repo).out == path.read_bytes()
    assert "qcow2" in succeed("snapshots", "vm2", repo=backups.repo).text
    for name in ("vm.img", "vm.qcow2"):  # goes on as it was begun
        path = path.rename(tmp_path / name)
        succeed("backup", path, "--image", "vm2", "-q", repo=backups.repo)
        succeed("verify", "vm2", "--against", path, repo=backups.repo)
    (tmp_path / "archive").write_bytes(b"\x1f\x8b\x08" + os.urandom(path.stat().st_size))
    said = fail(11, "backup", tmp_path / "archive", "--image", "vm2", "-q", repo=backups.repo)
    assert "is in gzip format" in said


def test_a_compressed_image_is_refused_with_the_way_to_back_it_up(backups: Backups, tmp_path: Path) -> None:
    import gzip

    packed = gzip.compress(backups.second, 1)
    (tmp_path / "vm1.raw.gz").write_bytes(packed)
    run = deltaimg("backup", tmp_path / "vm1.raw.gz", "--image", "vm1", "--allow-shrink", repo=backups.repo)
    assert run.code == 11
    assert "gzip -dc FILE | deltaimg backup - --image NAME" in run.err
