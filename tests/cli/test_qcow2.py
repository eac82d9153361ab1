# SPDX-License-Identifier: Apache-2.0
"""Images in qcow2 files and other formats that qemu reads: the same content and holes as `qemu-img convert`, and no trace."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from deltaimg.model import KIB, MIB
from tests.cli.conftest import Backups
from tests.support.components import loop_file_system, requires_program
from tests.support.nbd import find_servers, make_qcow2, qemu_io, serving
from tests.support.program import command, deltaimg, environment, fail, succeed

FORMATS = {"qcow2": ".qcow2", "vmdk": ".vmdk", "vhdx": ".vhdx", "vdi": ".vdi", "vpc": ".vhd"}


def fill(path: Path, kind: str = "qcow2", size_mib: int = 32) -> None:
    """Write, clear and discard at random, never twice in the same place."""
    chance = random.Random(5)
    acts = ("write -P 1", "write -P 2", "write -z")
    commands = [
        f"{chance.choice(acts)} {start}M {chance.choice((4, 64, 700))}k"
        for start in chance.sample(range(size_mib - 1), 12)
    ]
    qemu_io(path, *commands, kind=kind)


def convert(path: Path, kind: str = "qcow2") -> Path:
    """Return the flat image that qemu-img makes of a file."""
    flat = path.with_name("converted.raw")
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", path, flat], check=True)
    return flat


@pytest.mark.parametrize("kind", FORMATS)
def test_content_and_holes_are_those_of_qemu_img_convert(backups: Backups, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"vm{FORMATS[kind]}"
    requires_program("qemu-img")
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, "32M"], check=True)
    fill(path, kind)
    before = path.read_bytes()
    made = succeed("backup", path, "--image", kind, "--json", repo=backups.repo).json
    assert path.read_bytes() == before
    assert find_servers(path) == []
    flat = convert(path, kind)
    assert succeed("restore", kind, "-", repo=backups.repo).out == flat.read_bytes()
    assert made["apparent_bytes"] == flat.stat().st_size
    found = subprocess.run(["qemu-img", "map", "-f", kind, "--output=json", path], check=True, capture_output=True)
    data_bytes = sum(each["length"] for each in json.loads(found.stdout) if each["data"] and not each["zero"])
    assert made["read_bytes"] <= max(data_bytes, 32 * MIB if kind == "vpc" else 0) + 20 * MIB  # small gaps as well
    succeed("verify", kind, "--against", path, repo=backups.repo)
    assert succeed("inspect", path, "--json").json["size_bytes"] == flat.stat().st_size


def test_backing_files_are_read_with_the_formats_that_are_named(backups: Backups, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    base = tmp_path / "base" / "golden.img"
    base.write_bytes(os.urandom(3 * MIB))
    middle = make_qcow2(tmp_path / "base" / "middle.qcow2", "8M", "-b", "golden.img", "-F", "raw")
    qemu_io(middle, "write -P 3 1M 64k")
    top = make_qcow2(tmp_path / "vm, 1.qcow2", "12M", "-b", "base/middle.qcow2", "-F", "qcow2")
    qemu_io(top, "write -P 4 9M 4k")
    succeed("backup", top, "--image", "vm2", "-q", repo=backups.repo)
    assert succeed("restore", "vm2", "-", repo=backups.repo).out == convert(top).read_bytes()
    base.rename(tmp_path / "gone")
    said = fail(10, "backup", top, "--image", "vm2", "-q", repo=backups.repo)
    assert f"{base} cannot be read: No such file or directory" in said


def set_backing(path: Path, name: bytes, kind: bytes = b"") -> Path:
    """Write the name of a backing file into a header, as a program could that is no qemu."""
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[100:104], "big")
    extension = b"\xe2\x79\x2a\xca" + len(kind).to_bytes(4, "big") + kind.ljust(-(-len(kind) // 8) * 8, b"\0")
    content[start : start + 512] = ((extension if kind else b"") + bytes(8)).ljust(512, b"\0")
    content[4096 : 4096 + len(name)] = name
    content[8:20] = (4096).to_bytes(8, "big") + len(name).to_bytes(4, "big")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        (b"secret", b"", "format of backing file secret is not named"),
        (b"secret", b"luks", "format of backing file secret is 'luks'"),
        (b'json:{"driver":"file","filename":"secret"}', b"raw", "which is no path on this host"),
        (b"nbd://host/x", b"raw", "which is no path on this host"),
        (b"/dev/null", b"raw", "neither a file nor a block device"),
    ],
)
def test_backing_files_that_are_not_opened(
    backups: Backups, tmp_path: Path, name: bytes, kind: bytes, said: str
) -> None:
    (tmp_path / "secret").write_bytes(os.urandom(MIB))
    path = set_backing(make_qcow2(tmp_path / "vm.qcow2", "8M"), name, kind)
    run = deltaimg("backup", path, "--image", "vm2", "-q", repo=backups.repo)
    assert run.code in (10, 11)
    assert said in run.err


def test_a_header_that_the_guest_wrote_into_a_flat_image_opens_nothing(backups: Backups, tmp_path: Path) -> None:
    """The oldest attack on hosts that guess formats: a backing file that the guest may not see."""
    (tmp_path / "secret").write_bytes(b"secret of the host".ljust(MIB))
    evil = set_backing(make_qcow2(tmp_path / "evil.qcow2", "8M"), bytes(tmp_path / "secret"), b"raw")
    flat = evil.rename(tmp_path / "vm.raw")
    run = deltaimg("backup", flat, "--image", "vm2", "-q", repo=backups.repo)
    assert run.code == 11
    assert "a guest can write such headers" in run.err
    succeed("backup", flat, "--image", "vm2", "--raw", "-q", repo=backups.repo)
    assert succeed("restore", "vm2", "-", repo=backups.repo).out == flat.read_bytes()
    # A flat image under the name of another format is read as it is.
    shutil.copy(backups.image, tmp_path / "flat.qcow2")
    succeed("backup", tmp_path / "flat.qcow2", "--image", "vm1", "-q", repo=backups.repo)
    assert succeed("restore", "vm1", "-", repo=backups.repo).out == backups.second


def test_a_file_that_a_running_qemu_has_open_is_refused(backups: Backups, tmp_path: Path) -> None:
    path, where = make_qcow2(tmp_path / "vm.qcow2", "8M"), tmp_path / "rw.sock"
    with serving(where, "qemu-nbd", "-t", "-f", "qcow2", "-k", where, path):
        run = deltaimg("backup", path, "--image", "vm2", "-q", repo=backups.repo)
    assert run.code == 17
    said = run.err
    assert "is open in another process of qemu" in said
    assert "qmp+unix:///DEVICE?socket=PATH" in said
    succeed("backup", path, "--image", "vm2", "-q", repo=backups.repo)


def test_a_clone_of_a_file_that_a_running_qemu_has_open_is_read(backups: Backups, tmp_path: Path) -> None:
    with loop_file_system("xfs", tmp_path / "mnt", 320 * MIB) as made:
        base = make_qcow2(made.folder / "base.qcow2", "8M")
        qemu_io(base, "write -P 5 1M 64k")
        path, where = (
            make_qcow2(made.folder / "vm.qcow2", "8M", "-b", "base.qcow2", "-F", "qcow2"),
            tmp_path / "rw.sock",
        )
        qemu_io(path, "write -P 6 2M 64k")
        with serving(where, "qemu-nbd", "-t", "-f", "qcow2", "-k", where, path):
            succeed("backup", path, "--image", "vm2", "--freeze", "reflink", "-q", repo=backups.repo)
        assert succeed("restore", "vm2", "-", repo=backups.repo).out == convert(path).read_bytes()
        # What two clones of the file share says nothing of the image in it.
        for _ in range(2):
            arguments = ("backup", path, "--image", "vm2", "--track", "reflink", "--json")
            made_by = succeed(*arguments, repo=backups.repo).json
            assert made_by["tracking"]["method"] == "scan"
            assert "say nothing of the image" in made_by["tracking"]["reason"]


def test_formats_that_do_not_fit(backups: Backups, tmp_path: Path) -> None:
    path = make_qcow2(tmp_path / "vm.qcow2", "8M")
    fail(2, "backup", path, "--image", "vm2", "--format", "raw", repo=backups.repo)
    fail(2, "backup", path, "--image", "vm2", "--format", "qcow2", "--raw", repo=backups.repo)
    said = fail(11, "backup", path, "--image", "vm2", "--format", "vmdk", repo=backups.repo)
    assert "is in qcow2 format, not in that of --format vmdk" in said
    assert "is a flat image" in fail(
        11, "backup", backups.image, "--image", "vm2", "--format", "vdi", repo=backups.repo
    )
    run = deltaimg("backup", "-", "--image", "vm2", "--format", "qcow2", repo=backups.repo, stdin=path.read_bytes())
    assert run.code == 11
    (tmp_path / "cut.qcow2").write_bytes(path.read_bytes()[:100])
    said = fail(11, "backup", tmp_path / "cut.qcow2", "--image", "vm2", "-q", repo=backups.repo)
    assert "cut.qcow2 has no valid qcow2 header" in said
    broken = bytearray(path.read_bytes())
    broken[20:24] = b"\0\0\0\x40"  # clusters of 2^64 bytes
    path.write_bytes(broken)
    said = fail(10, "backup", path, "--image", "vm2", "-q", repo=backups.repo)
    assert "cannot be opened by qemu-nbd: " in said
    assert "luster size" in said


def test_without_qemu_utils_the_package_is_named(
    backups: Backups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_qcow2(tmp_path / "vm.qcow2", "8M")
    monkeypatch.setenv("PATH", str(tmp_path))
    run = deltaimg("backup", path, "--image", "vm2", "-q", repo=backups.repo)
    assert run.code == 10
    assert "qemu-nbd, which is not installed" in run.err
    assert "apt install qemu-utils" in run.err


@pytest.mark.parametrize("victim", ["deltaimg", "qemu-nbd"])
def test_kill_9_leaves_no_server_no_file_and_no_snapshot(backups: Backups, tmp_path: Path, victim: str) -> None:
    path = make_qcow2(tmp_path / "vm.qcow2", "256M")
    qemu_io(path, "write -P 1 0 250M")
    (tmp_path / "tmp").mkdir()
    variables = environment(backups.repo) | {"TMPDIR": str(tmp_path / "tmp")}
    arguments = command("backup", path, "--image", "vm1", "-q")
    with subprocess.Popen(arguments, env=variables, stderr=subprocess.PIPE, text=True) as process:
        deadline_s = time.monotonic() + 20
        while not (servers := find_servers(path)) and time.monotonic() < deadline_s:
            time.sleep(0.005)
        os.kill(servers[0], signal.SIGSTOP)  # in the middle of the image
        if victim == "deltaimg":
            process.kill()
        else:
            os.kill(servers[0], signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
    if victim == "qemu-nbd":
        assert process.returncode == 10
        assert len([line for line in said.splitlines() if "hint:" not in line]) == 1, said
    while find_servers(path) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert find_servers(path) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert len(succeed("snapshots", "vm1", "--json", repo=backups.repo).json) == 2


def test_small_clusters_and_other_options_of_qcow2(backups: Backups, tmp_path: Path) -> None:
    for number, options in enumerate(
        ("compat=0.10", "cluster_size=512", "cluster_size=2M", "extended_l2=on", f"data_file={tmp_path}/data.raw")
    ):
        path = make_qcow2(tmp_path / f"vm{number}.qcow2", "8M", "-o", options)
        qemu_io(path, "write -P 1 1M 5k", f"write -P 2 {3 * MIB + 512} {70 * KIB}")
        succeed("backup", path, "--image", "vm2", "-q", repo=backups.repo)
        assert succeed("restore", "vm2", "-", repo=backups.repo).out == convert(path).read_bytes(), options
