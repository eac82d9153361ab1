# SPDX-License-Identifier: Apache-2.0
"""Backups of exports of NBD servers: content, holes, bad sectors, servers that die."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from deltaimg.model import KIB, MIB
from tests.cli.conftest import Backups
from tests.support.components import requires_program
from tests.support.nbd import make_qcow2, nbdkit, qemu_io, qemu_nbd, serving
from tests.support.program import command, deltaimg, environment, fail, succeed


def test_an_export_is_backed_up_compared_and_inspected_as_a_file_is(backups: Backups, tmp_path: Path) -> None:
    with nbdkit(tmp_path, "file", backups.image) as address:
        made = succeed("backup", address, "--image", "vm1", "--json", repo=backups.repo).json
        assert made["base"] is not None
        succeed("verify", "vm1", "--against", address, repo=backups.repo)
        succeed("mirror", address, tmp_path / "mirror.raw", "-q")
        assert (tmp_path / "mirror.raw").read_bytes() == backups.second
        assert succeed("inspect", address, "--json").json["size_bytes"] == len(backups.second)
    assert succeed("restore", "vm1", "-", repo=backups.repo).out == backups.second


def test_holes_are_not_read(backups: Backups, tmp_path: Path) -> None:
    image = make_qcow2(tmp_path / "vm2.qcow2", "8G")
    qemu_io(image, "write -P 7 4G 1M", "write -z 5G 1M")
    with qemu_nbd(tmp_path, image, kind="qcow2") as address:
        made = succeed("backup", address, "--image", "vm2", "--json", repo=backups.repo).json
    assert made["apparent_bytes"] == 8 << 30
    assert made["read_bytes"] <= 2 * MIB
    assert succeed("cat", "vm2", "--offset", "4G", "--length", "1M", repo=backups.repo).out == bytes([7]) * MIB


def test_the_rest_of_an_export_with_bad_sectors_is_backed_up(backups: Backups, tmp_path: Path) -> None:
    content = bytearray(os.urandom(2 * MIB))
    (tmp_path / "disk").write_bytes(content)
    bad = f"[ $4 -lt {MIB + 4 * KIB} ] && [ $(($3 + $4)) -gt {MIB} ] && echo EIO bad >&2 && exit 1"
    script = f"pread={bad}; dd if={tmp_path}/disk skip=$4 count=$3 iflag=skip_bytes,count_bytes status=none"
    with nbdkit(tmp_path, "eval", "get_size=echo 2M", script) as address:
        said = fail(10, "backup", address, "--image", "bad", repo=backups.repo)
        assert "the server says: Input/output error" in said
        run = deltaimg("backup", address, "--image", "bad", "--on-read-error", "zero", "--json", repo=backups.repo)
    assert run.code == 19
    content[MIB : MIB + 4 * KIB] = bytes(4 * KIB)
    assert succeed("restore", "bad", "-", repo=backups.repo).out == content
    assert succeed("show", "bad", "--json", repo=backups.repo).json["unreadable"] == [
        {"start": MIB, "end": MIB + 4 * KIB}
    ]


def test_a_server_that_fails_now_and_then_makes_no_snapshot(backups: Backups, tmp_path: Path) -> None:
    options = ("--filter=error", "error-pread=EIO", "error-pread-rate=50%")
    with nbdkit(tmp_path, "file", backups.image, *options) as address:
        fail(10, "backup", address, "--image", "vm1", repo=backups.repo)
    assert len(succeed("snapshots", "vm1", "--json", repo=backups.repo).json) == 2
    succeed("check", "-q", repo=backups.repo)


def test_a_server_that_is_killed_meanwhile_makes_no_snapshot(backups: Backups, tmp_path: Path) -> None:
    requires_program("nbdkit")
    where = tmp_path / "killed.sock"
    options = ("-f", "-r", "-U", where, "--filter=delay", "file", backups.image, "rdelay=2")
    with serving(where, "nbdkit", *options) as server:
        program = command("backup", f"nbd+unix:///?socket={where}", "--image", "vm1", "-q")
        with subprocess.Popen(program, env=environment(backups.repo), stderr=subprocess.PIPE, text=True) as process:
            time.sleep(1)
            server.kill()
            said = process.communicate()[1]
    assert process.returncode == 10
    assert [line for line in said.splitlines() if "hint:" not in line] == [said.splitlines()[0]]
    assert len(succeed("snapshots", "vm1", "--json", repo=backups.repo).json) == 2


def test_addresses_and_options_that_do_not_fit(backups: Backups, tmp_path: Path) -> None:
    fail(2, "backup", "nbds://host/x", "--image", "vm1", repo=backups.repo)
    fail(2, "backup", "nbd:unix:/run/x", "--image", "vm1", repo=backups.repo)
    said = fail(10, "backup", "nbd+unix:///x?socket=/none", "--image", "vm1", repo=backups.repo)
    assert "cannot be connected to /none: No such file or directory" in said
    with qemu_nbd(tmp_path, backups.image) as address:
        assert "--direct" in fail(10, "backup", address, "--image", "vm1", "--direct", repo=backups.repo)
        wrong = address.replace("disk", "other")
        assert "has no export 'other'" in fail(10, "backup", wrong, "--image", "vm1", repo=backups.repo)
        said = fail(60, "backup", address, "--image", "vm1", "--freeze", "lvm", repo=backups.repo)
        assert "--freeze lvm cannot be used" in said
        made = succeed("backup", address, "--image", "vm1", "--track", "auto", "--json", repo=backups.repo).json
        assert made["tracking"]["method"] == "scan"
