# SPDX-License-Identifier: Apache-2.0
"""`deltaimg mount`: snapshots as files, read by programs that know nothing of deltaimg."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from ctypes.util import find_library
from pathlib import Path

import pytest

from deltaimg.engine.mount.tree import FRESH_S
from deltaimg.errors import ReaderGone, UsageError
from tests.cli.conftest import Backups
from tests.cli.test_json import DOCUMENTED
from tests.support.components import requires_program, requires_root
from tests.support.flips import flip_file
from tests.support.mounted import mounted, requires_fuse, wait_until_there
from tests.support.program import command, environment, fail, succeed

pytestmark = pytest.mark.native_speed


def flip_a_bit_of_each_pack(repo: Path) -> None:
    for pack in (repo / "packs").rglob("*"):
        if pack.is_file():
            flip_file(pack)


def change_fuse(folder: Path, lines: str) -> None:
    """Have these lines run before libfuse is called, by a process whose modules are looked for in `folder` first."""
    before, after = (
        "import os, signal, time, mfusepy as m\nreal = m.FUSE\ndef f(*a, **k):\n",
        "    real(*a, **k)\nm.FUSE = f\n",
    )
    (folder / "sitecustomize.py").write_text(before + lines + after)


def mount_changed(repo: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Mount in `folder / "mnt"` with the `sitecustomize.py` of `folder`, and wait until that ends."""
    return subprocess.run(
        command("mount", folder / "mnt"),
        capture_output=True,
        text=True,
        env=environment(repo) | {"PYTHONPATH": f"{folder}:{os.getcwd()}"},
        check=False,
        timeout=60,
    )


def test_every_snapshot_is_a_file_named_by_its_time(backups: Backups, tmp_path: Path) -> None:
    with mounted(backups.repo, tmp_path / "mnt") as run:
        assert run.printed == f"snapshots are in {run.folder}; CTRL-C or 'umount {run.folder}' ends this\n"
        assert os.listdir(run.folder) == ["vm1"]
        listed = succeed("snapshots", "--json", repo=backups.repo).json
        names = [f"{each['time'].replace(':', '-')}-{each['snapshot'][:8]}.raw" for each in listed]
        assert os.listdir(run.folder / "vm1") == [*names, "latest.raw"]
        for name, content in zip(names, (backups.first, backups.second), strict=True):
            path = run.folder / "vm1" / name
            assert path.read_bytes() == content
            status = path.stat()
            assert status.st_size == len(content)
            assert status.st_blocks * 512 < len(content) + 4096
            assert time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime(status.st_mtime)) in name
        link = run.folder / "vm1" / "latest.raw"
        assert (os.readlink(link), link.lstat().st_mtime) == (names[-1], link.stat().st_mtime)
        assert run.end() == (0, "")
    assert os.listdir(run.folder) == []


def test_any_part_can_be_read_by_many_at_once_and_nothing_written(backups: Backups, tmp_path: Path) -> None:
    with mounted(backups.repo, tmp_path / "mnt") as run:
        path = run.folder / "vm1" / "latest.raw"
        parts = [(0, 1), (4095, 2), (1_000_003, 300_000), (1_999_999, 10), (2_000_001, 10), (3_000_000, 1)]
        readers = [
            subprocess.Popen(
                ["dd", f"if={path}", "iflag=skip_bytes,count_bytes", f"skip={start}", f"count={length}", "status=none"],
                stdout=subprocess.PIPE,
            )
            for start, length in parts
        ]
        for (start, length), reader in zip(parts, readers, strict=True):
            assert reader.communicate()[0] == backups.second[start : start + length]
        for write in (lambda: path.open("r+b"), lambda: (run.folder / "new").mkdir(), path.unlink):
            with pytest.raises(OSError, match="Errno") as refused:
                write()
            assert refused.value.errno == errno.EROFS
        for missing in ("vm2", "vm1/other.raw", "vm1/latest.raw/x"):
            assert not (run.folder / missing).exists()


def test_new_snapshots_appear_and_forgotten_ones_go(backups: Backups, tmp_path: Path) -> None:
    with mounted(backups.repo, tmp_path / "mnt") as run:
        assert len(os.listdir(run.folder / "vm1")) == 3
        succeed("backup", backups.image, "-i", "other", "-q", repo=backups.repo)
        wait_until_there(run.folder / "other" / "latest.raw")
        assert (run.folder / "other" / "latest.raw").read_bytes() == backups.second
        succeed("forget", "vm1@latest~1", repo=backups.repo)
        deadline = time.monotonic() + 30
        while len(os.listdir(run.folder / "vm1")) > 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_prune_waits_for_what_is_open_and_not_for_the_mount(backups: Backups, tmp_path: Path) -> None:
    with mounted(backups.repo, tmp_path / "mnt") as run:
        path = run.folder / "vm1" / "latest.raw"
        assert succeed("unlock", "--json", repo=backups.repo).json == []
        with path.open("rb") as file, path.open("rb") as again:
            assert file.read(10) == again.read(10) == backups.second[:10]
            (lock,) = succeed("unlock", "--json", repo=backups.repo).json
            assert re.fullmatch(r"reading vm1@[0-9a-f]{8}", lock["purpose"])
        deadline = time.monotonic() + 30
        while succeed("unlock", "--json", repo=backups.repo).json:  # closing is not waited for
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts(backups: Backups, tmp_path: Path, number: int) -> None:
    with mounted(backups.repo, tmp_path / "mnt") as run:
        assert run.end(number) == (0, "")
        assert os.listdir(run.folder) == []
        assert succeed("unlock", "--json", repo=backups.repo).json == []


def test_a_signal_lets_what_is_open_be_read_to_its_end(backups: Backups, tmp_path: Path) -> None:
    with mounted(backups.repo, tmp_path / "mnt") as run:
        with (run.folder / "vm1" / "latest.raw").open("rb") as file:
            run.process.send_signal(signal.SIGINT)
            assert run.process.stderr is not None
            assert run.process.stderr.readline() == (
                f"deltaimg: warning: {run.folder} is in use; this ends once it is not, or is interrupted again\n"
            )
            assert os.listdir(run.folder) == [], "no other program finds it any more"
            assert file.read() == backups.second
        assert run.process.wait(60) == 0


def test_a_signal_on_the_way_to_the_mount_leaves_nothing_mounted(backups: Backups, tmp_path: Path) -> None:
    """It arrives as libfuse mounts: then nothing could be unmounted yet, and nothing would end what was mounted just after."""
    requires_fuse()
    (tmp_path / "mnt").mkdir()
    change_fuse(tmp_path, "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(1)\n")
    done = mount_changed(backups.repo, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.ismount(tmp_path / "mnt")


def test_a_repository_that_vanishes_is_an_error_and_not_an_empty_folder(backups: Backups, tmp_path: Path) -> None:
    """A copy of the mount by `rsync --delete` would be emptied otherwise."""
    away = backups.repo.with_name("away")
    with mounted(backups.repo, tmp_path / "mnt") as run:
        assert os.listdir(run.folder) == ["vm1"]
        backups.repo.rename(away)
        time.sleep(FRESH_S + 1)
        for path in (run.folder, run.folder / "vm1"):
            with pytest.raises(OSError, match="Errno") as refused:
                os.listdir(path)
            assert refused.value.errno == errno.EIO
        away.rename(backups.repo)
        time.sleep(2)  # what the kernel remembers of it
        assert (run.folder / "vm1" / "latest.raw").read_bytes() == backups.second
        assert run.end() == (0, f"deltaimg: warning: {backups.repo}: there is no repository here\n")


def test_where_its_output_cannot_be_written_nothing_stays_mounted(backups: Backups, tmp_path: Path) -> None:
    requires_fuse()
    (tmp_path / "mnt").mkdir()
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        done = subprocess.run(
            command("mount", tmp_path / "mnt", "--json"),
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(backups.repo),
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (ReaderGone.exit_code, "")
    assert os.listdir(tmp_path / "mnt") == []


def test_a_second_signal_ends_it_at_once(backups: Backups, tmp_path: Path) -> None:
    with mounted(backups.repo, tmp_path / "mnt") as run:
        file = os.open(run.folder / "vm1" / "latest.raw", os.O_RDONLY)
        run.process.send_signal(signal.SIGINT)
        assert run.process.stderr is not None
        assert "is in use" in run.process.stderr.readline()
        time.sleep(1)
        assert run.end(signal.SIGINT) == (-signal.SIGINT, "")
        with pytest.raises(OSError, match="Errno"):
            os.read(file, 1 << 20)
        with suppress(OSError):
            os.close(file)


def test_what_is_damaged_cannot_be_read_and_is_named(backups: Backups, tmp_path: Path) -> None:
    flip_a_bit_of_each_pack(backups.repo)
    with mounted(backups.repo, tmp_path / "mnt") as run:
        path = run.folder / "vm1" / "latest.raw"
        for _ in range(2):
            with pytest.raises(OSError, match="Errno") as refused:
                path.read_bytes()
            assert refused.value.errno == errno.EIO
        code, said = run.end()
        assert code == 0
        told = r"deltaimg: warning: vm1/\S+\.raw: snapshot vm1@[0-9a-f]{8}: bytes \d+ to \d+ cannot be read: packs/"
        assert re.match(told, said), said


def test_where_it_cannot_be_mounted_is_said_and_how_to_go_on(backups: Backups, tmp_path: Path) -> None:
    requires_fuse()
    (tmp_path / "full" / "old").mkdir(parents=True)
    (tmp_path / "file").touch()
    (backups.repo / "mnt").mkdir()
    for path, said in (
        (tmp_path / "full", "is not empty"),
        (tmp_path / "file", "Not a directory"),
        (tmp_path / "none", "No such file or directory"),
        (backups.repo / "mnt", f"is in the repository {backups.repo}"),
    ):
        assert said in fail(UsageError.exit_code, "mount", path, repo=backups.repo)
    with mounted(backups.repo, tmp_path / "mnt") as run:
        said = fail(UsageError.exit_code, "mount", run.folder, repo=backups.repo)
        assert "something is mounted there already" in said


def test_a_user_who_may_not_mount_is_told_what_is_missing(backups: Backups, tmp_path: Path) -> None:
    """The program of FUSE that mounts for others than root, and before that the right to open /dev/fuse."""
    requires_fuse()
    requires_root()
    (tmp_path / "mnt").mkdir()
    change_fuse(tmp_path, "    os.environ['PATH'] = ''\n    os.setuid(65534)\n")
    done = mount_changed(backups.repo, tmp_path)
    assert done.returncode == UsageError.exit_code
    may_all = os.stat("/dev/fuse").st_mode & 0o006 == 0o006
    hint = "apt install fuse3" if may_all else "this user may not open /dev/fuse"
    assert hint in done.stderr, done.stderr


def test_what_fuse_says_is_part_of_the_error(backups: Backups, tmp_path: Path) -> None:
    """As where it is not allowed: here by an option that no libfuse knows."""
    requires_fuse()
    (tmp_path / "mnt").mkdir()
    (tmp_path / "sitecustomize.py").write_text(
        "import deltaimg.engine.mount.run as run; run._choose_options = lambda **_: {'nonsense': True}\n"
    )
    done = mount_changed(backups.repo, tmp_path)
    assert done.returncode == UsageError.exit_code
    (line,) = done.stderr.splitlines()
    assert re.match(rf"deltaimg: {tmp_path}/mnt: cannot be mounted: fuse: unknown option", line), line


def test_what_a_killed_mount_leaves_is_cleaned_up_as_the_hint_says(backups: Backups, tmp_path: Path) -> None:
    with mounted(backups.repo, tmp_path / "mnt") as run:
        run.end(signal.SIGKILL)
        done = subprocess.run(
            command("mount", run.folder), capture_output=True, text=True, env=environment(backups.repo), check=False
        )
        assert done.returncode == UsageError.exit_code
        hint = re.search(r"the program that mounted it is gone: '(.*)' cleans that up", done.stderr)
        assert hint, done.stderr
        subprocess.run(hint[1].split(), check=True)
        assert os.listdir(run.folder) == []


def test_without_mfusepy_it_says_what_to_install(backups: Backups, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['mfusepy'] = None\n")
    (tmp_path / "mnt").mkdir()
    done = mount_changed(backups.repo, tmp_path)
    assert done.returncode == UsageError.exit_code
    assert "-m pip install 'deltaimg[mount]'" in done.stderr


@pytest.mark.parametrize("name", ["fuse", "fuse3"])
def test_it_works_with_both_generations_of_fuse(backups: Backups, tmp_path: Path, name: str) -> None:
    library = find_library(name)
    if library is None:
        pytest.skip(f"lib{name} is not installed")
    with mounted(backups.repo, tmp_path / "mnt", library=library) as run:
        assert (run.folder / "vm1" / "latest.raw").read_bytes() == backups.second
        with pytest.raises(OSError, match="Errno 30"):
            (run.folder / "new").mkdir()
        assert run.end(signal.SIGTERM) == (0, "")
    assert os.listdir(run.folder) == []


def test_json_says_when_it_is_mounted(backups: Backups, tmp_path: Path) -> None:
    with mounted(backups.repo, tmp_path / "mnt", "--json") as run:
        said = json.loads(run.printed)
        assert (said["folder"], said["mounted"]) == (str(run.folder), True)
        assert set(said) <= DOCUMENTED | {"traffic"}
        assert run.end() == (0, "")


def test_an_encrypted_repository_is_mounted_with_its_key(backups: Backups, tmp_path: Path) -> None:
    key = ("--key-file", tmp_path / "key")
    succeed("init", "-r", tmp_path / "sealed", "--encryption", "keyfile", *key)
    succeed("backup", backups.image, "-i", "vm1", "-q", *key, repo=tmp_path / "sealed")
    with mounted(tmp_path / "sealed", tmp_path / "mnt", *key) as run:
        assert (run.folder / "vm1" / "latest.raw").read_bytes() == backups.second


# -- as docs/mount.md has it -------------------------------------------------------------------------------------------------


@pytest.fixture
def guest(repo: Path, tmp_path: Path) -> Path:
    """A repository with a snapshot of a disk: a partition at 1 MiB with ext4, which has a file."""
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "hostname").write_text("web1\n")
    disk, part = tmp_path / "disk.raw", tmp_path / "part.raw"
    requires_program("sfdisk")
    subprocess.run(["mkfs.ext4", "-q", "-d", tmp_path / "root", part, "16M"], check=True)
    with disk.open("wb") as file:
        file.truncate(18 << 20)
        file.seek(1 << 20)
        file.write(part.read_bytes())
    subprocess.run(["sfdisk", "-q", disk], input="label: dos\nstart=2048, size=32768, type=83\n", text=True, check=True)
    succeed("backup", disk, "-i", "vm1", "-q", repo=repo)
    return repo


def test_a_file_is_taken_out_of_an_image_without_root(guest: Path, tmp_path: Path) -> None:
    with mounted(guest, tmp_path / "mnt") as run:
        latest = run.folder / "vm1" / "latest.raw"
        subprocess.run(
            ["debugfs", "-R", f"dump /etc/hostname {tmp_path}/out", f"{latest}?offset=1048576"],
            check=True,
            capture_output=True,
        )
        assert (tmp_path / "out").read_text() == "web1\n"


def test_a_file_system_of_an_image_is_mounted(guest: Path, tmp_path: Path) -> None:
    requires_root()
    with mounted(guest, tmp_path / "mnt") as run:
        (tmp_path / "vm1").mkdir()
        latest = run.folder / "vm1" / "latest.raw"
        subprocess.run(["mount", "-o", "ro,noload,loop,offset=1048576", latest, tmp_path / "vm1"], check=True)
        try:
            assert (tmp_path / "vm1" / "etc" / "hostname").read_text() == "web1\n"
        finally:
            subprocess.run(["umount", tmp_path / "vm1"], check=True)


def test_an_overlay_is_written_over_a_snapshot(guest: Path, tmp_path: Path) -> None:
    requires_program("qemu-img")
    requires_program("qemu-io")
    with mounted(guest, tmp_path / "mnt") as run:
        latest, overlay = run.folder / "vm1" / "latest.raw", tmp_path / "test.qcow2"
        before = latest.read_bytes()
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", latest, "-F", "raw", overlay], check=True)
        subprocess.run(["qemu-io", "-c", "write -P 7 2M 64K", overlay], check=True, capture_output=True)
        subprocess.run(["qemu-img", "convert", "-O", "raw", overlay, tmp_path / "flat"], check=True)
        flat = (tmp_path / "flat").read_bytes()
        assert flat == before[: 2 << 20] + b"\7" * 65536 + before[(2 << 20) + 65536 :]
        assert latest.read_bytes() == before
