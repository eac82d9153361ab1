# SPDX-License-Identifier: Apache-2.0
"""Every way to be refused: one clear line, the right exit code, nothing changed."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.format.config import Config, build_config
from deltaimg.format.framing import HEADER_BYTES, digest_bytes
from tests.cli.conftest import Backups
from tests.support.components import as_ordinary_user, requires_root
from tests.support.flips import flip_file
from tests.support.program import command, deltaimg, environment, fail, read_tree, succeed


def test_places_that_are_no_repository(tmp_path: Path) -> None:
    image = tmp_path / "i.raw"
    image.write_bytes(b"x" * 5000)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("hello")
    assert "there is no repository here" in fail(31, "snapshots", "-r", tmp_path / "nowhere")
    assert "is not a repository" in fail(31, "backup", image, "-i", "a", "-r", tmp_path / "files")
    assert "the folder is not empty" in fail(32, "init", "-r", tmp_path / "files")
    assert "no repository named" in fail(2, "snapshots")
    succeed("init", "-r", tmp_path / "repo")
    assert "there is a repository already" in fail(32, "init", "-r", tmp_path / "repo")
    assert not (tmp_path / "nowhere").exists()


def test_a_repository_of_a_newer_format_or_with_unknown_features(tmp_path: Path) -> None:
    config = build_config(Config(repository_id="0" * 32, created="x", digest_key="1" * 64))
    # The first bit of the features is known: what is encrypted has it.
    for place, bit, said in ((8, 1, "format version 2"), (10, 2, "features")):
        repo = tmp_path / f"repo{place}"
        repo.mkdir()
        head = bytearray(config[:HEADER_BYTES])
        head[place] += bit
        head[56:64] = digest_bytes(bytes(head[:56]), length=8)
        (repo / "config").write_bytes(bytes(head) + config[HEADER_BYTES:])
        assert said in fail(34, "snapshots", "-r", repo)
    (repo / "config").write_bytes(config[:70])
    fail(41, "snapshots", "-r", repo)


def test_images_that_cannot_be_read(backups: Backups, tmp_path: Path) -> None:
    before = read_tree(backups.repo)
    (tmp_path / "empty").touch()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "sock"))
    for path, code, said in (
        (tmp_path / "missing", 10, "No such file"),
        (tmp_path / "empty", 11, "is empty"),
        (tmp_path, 11, "is a directory"),
        (Path("/dev/null"), 11, "is a character device"),
        (tmp_path / "sock", 11, "is a socket"),
    ):
        message = fail(code, "backup", path, "--image", "x", repo=backups.repo)
        assert said in message
        assert str(path) in message
    assert "the stream is empty" in fail(11, "backup", "-", "--image", "x", repo=backups.repo, stdin=b"")
    assert read_tree(backups.repo) == before


def test_an_unreadable_image(backups: Backups) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything; tests/unit/image covers it as an ordinary user")
    backups.image.chmod(0)
    assert "Permission denied" in fail(10, "backup", backups.image, "--image", "x", repo=backups.repo)


@pytest.mark.parametrize("name", ["a/b", "a\nb", "x" * 300, "", ".x", "a@b"])
def test_impossible_names(backups: Backups, name: str) -> None:
    before = read_tree(backups.repo)
    assert "image name" in fail(2, "backup", backups.image, "--image", name, repo=backups.repo)
    assert read_tree(backups.repo) == before


def test_impossible_options(backups: Backups, tmp_path: Path) -> None:
    backup = ("backup", backups.image, "--image", "x")
    for arguments, said in (
        ((*backup, "-c", "99"), "'99'"),
        ((*backup, "-c", "quick"), "'quick'"),
        ((*backup, "--block-size", "5K"), "power of two"),
        ((*backup, "--block-size", "2M"), "power of two"),
        ((*backup, "--block-size", "many"), "'many' is not a valid size"),
        ((*backup, "--match-memory", "-1"), "'-1' is not a valid size"),
        ((*backup, "--delta-depth", "x"), "'x' is not a valid whole number"),
        ((*backup, "--delta-depth", "65"), "1 to 64"),
        ((*backup, "--max-read-amplification", "-1"), "'-1' is not a valid number"),
        ((*backup, "--max-read-amplification", "0.5"), "--max-read-amplification 0.5: it must be at least 1"),
        ((*backup, "--tag", "a,b"), "tag"),
        (("backup", backups.image), "--image"),
        (("backup", backups.image, "--image", "vm1", "--block-size", "64K"), "has blocks of 4096 bytes"),
        (("verify", "--percent", "0"), "percent"),
        (("verify", "--percent", "x"), "x"),
        (("verify", "--against", backups.image), "exactly one"),
        (("cat", "vm1", "-o", "9G"), "is past the end"),
        (("frobnicate",), "frobnicate"),
        (("snapshots", "--frobnicate"), "--frobnicate"),
    ):
        assert said in fail(2, *arguments, repo=backups.repo), arguments


def test_unknown_and_ambiguous_snapshots(backups: Backups, tmp_path: Path) -> None:
    for selector in ("vm2", "vm1@latest~2", "vm1@2020-01-01", "ffffffffffffffff"):
        assert selector in fail(21, "restore", selector, tmp_path / "x", repo=backups.repo)
    assert not (tmp_path / "x").exists()
    ids = [each["snapshot"] for each in succeed("snapshots", "--json", repo=backups.repo).json]
    while len({each[0] for each in ids}) == len(ids):
        ids.append(succeed("backup", backups.image, "-i", "vm1", "--json", repo=backups.repo).json["snapshot"])
    twice = next(each[0] for each in ids if sum(other[0] == each[0] for other in ids) > 1)
    assert "matches 2 snapshots" in fail(22, "show", twice, repo=backups.repo)


def test_targets_that_must_not_be_overwritten_or_cannot_be_written(backups: Backups, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    before = sorted(tmp_path.iterdir())
    for name, code, said in (
        ("file", 13, "exists"),
        ("link", 13, "symbolic link"),
        ("dangling", 13, "symbolic link"),
        ("repo", 11, "is a directory"),
        ("no/such", 10, "No such file"),
    ):
        assert said in fail(code, "restore", "vm1", tmp_path / name, repo=backups.repo)
    for name in ("link", "dangling"):
        fail(13, "restore", "vm1", tmp_path / name, "--force", repo=backups.repo)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_target_on_a_full_disk(backups: Backups, make_tmpfs: Callable[[int], Path]) -> None:
    folder = make_tmpfs(512 * 1024)
    assert "no space left" in fail(14, "restore", "vm1", folder / "x", repo=backups.repo)
    assert list(folder.iterdir()) == []


def test_a_device_that_is_too_small_or_not_forced(
    backups: Backups, tmp_path: Path, make_loop: Callable[[Path], str]
) -> None:
    backing = tmp_path / "small"
    backing.write_bytes(bytes(1 << 20))
    device = make_loop(backing)
    assert stat.S_ISBLK(os.stat(device).st_mode)
    assert "is a block device" in fail(13, "restore", "vm1", device, repo=backups.repo)
    assert "the image needs 2000001" in fail(14, "restore", "vm1", device, "--force", repo=backups.repo)
    assert not any(backing.read_bytes())


def test_a_repository_of_somebody_else(backups: Backups, tmp_path: Path) -> None:
    requires_root()
    backups.repo.chmod(0o700)
    with as_ordinary_user():
        pass
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command("snapshots", "-r", backups.repo)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(None) | {"PYTHONPATH": os.getcwd()},
    )
    if "No module named" in done.stderr or "can't open" in done.stderr or "failed to execute" in done.stderr:
        pytest.skip("the interpreter is not readable by an ordinary user here")
    assert done.returncode == 55, done.stderr
    assert "Traceback" not in done.stderr


def test_errors_are_json_where_json_was_asked_for(backups: Backups) -> None:
    run = deltaimg("show", "nobody", "--json", repo=backups.repo)
    assert run.code == run.json["exit_code"] == 21
    assert run.json["error"] == "SnapshotNotFound"
    assert run.json["hint"]


def test_a_damaged_pack_names_snapshot_bytes_and_pack(backups: Backups, tmp_path: Path) -> None:
    pack = max((backups.repo / "packs").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    flip_file(pack)
    message = fail(44, "restore", "vm1~1", tmp_path / "x", repo=backups.repo)
    assert "bytes " in message
    assert pack.name in message
    assert "vm1@" in message
    assert not (tmp_path / "x").exists()
    assert deltaimg("verify", repo=backups.repo).code == 44
    run = deltaimg("restore", "vm1~1", tmp_path / "x", "--keep-going", "--json", repo=backups.repo)
    assert run.code == 44
    restored = bytearray((tmp_path / "x").read_bytes())
    for each in run.json["damage"]:
        restored[each["start"] : each["end"]] = backups.first[each["start"] : each["end"]]
    assert restored == backups.first


def test_an_image_that_differs_from_its_snapshot(backups: Backups) -> None:
    assert "differs from snapshot" in fail(45, "verify", "vm1~1", "--against", backups.image, repo=backups.repo)
    with backups.image.open("ab") as file:
        file.write(b"more")
    assert "2000005 bytes" in fail(15, "verify", "vm1", "--against", backups.image, repo=backups.repo)


def find_locks(repo: Path, image: str) -> list[Path]:
    """The claims of an image's lock, by whatever run; a pattern finds those of all."""
    return [path for path in (repo / "locks").glob(f"{image}/*") if path.is_file()]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_backup_in_order(backups: Backups, number: int, code: int) -> None:
    """The source is a pipe that stays open: the run is certainly in the middle when the signal comes."""
    run = subprocess.Popen(
        command("backup", "-", "--image", "slow"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(backups.repo),
    )
    assert run.stdin is not None
    run.stdin.write(os.urandom(9 << 20))
    run.stdin.flush()
    deadline = time.monotonic() + 30
    while not find_locks(backups.repo, "slow") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "is locked by process" in fail(33, "backup", backups.image, "--image", "slow", repo=backups.repo)
    # timeout(1) signals the process and then its group; a shell whose terminal is closed signals its jobs once more.
    run.send_signal(number)
    time.sleep(0.01)
    run.send_signal(number)
    time.sleep(0.3)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code, err
    assert b"interrupted" in err
    assert b"Traceback" not in err
    assert not find_locks(backups.repo, "*")
    assert [each["image"] for each in succeed("snapshots", "--json", repo=backups.repo).json] == ["vm1", "vm1"]
    succeed("backup", backups.image, "--image", "slow", "-q", repo=backups.repo)


_INTERRUPTED_WHILE_BUSY = """
import signal, sys, time
from deltaimg.cli import app, main
def run():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)
        print("in order", flush=True)
        time.sleep(60)
app.run = run
main()
"""


def test_a_second_signal_ends_a_command_at_once_that_takes_its_time() -> None:
    """Not one that comes with the first."""
    with subprocess.Popen([sys.executable, "-c", _INTERRUPTED_WHILE_BUSY], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"in order\n"
        time.sleep(1)
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == -signal.SIGINT


def test_a_killed_backup_leaves_a_lock_that_counts_for_nothing(backups: Backups) -> None:
    run = subprocess.Popen(
        command("backup", "-", "-i", "vm1", "-q"), stdin=subprocess.PIPE, env=environment(backups.repo)
    )
    deadline = time.monotonic() + 30
    while not find_locks(backups.repo, "vm1") and time.monotonic() < deadline:
        time.sleep(0.02)
    run.kill()
    run.wait()
    assert run.stdin is not None
    run.stdin.close()
    assert find_locks(backups.repo, "vm1")
    succeed("backup", backups.image, "--image", "vm1", "-q", repo=backups.repo)
    assert not find_locks(backups.repo, "vm1")


def test_a_reader_that_goes_away_is_no_error_of_ours(backups: Backups) -> None:
    run = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {' '.join(command('cat', 'vm1'))} | head -c 100 >/dev/null"],
        capture_output=True,
        env=environment(backups.repo),
        check=False,
    )
    assert b"Traceback" not in run.stderr
    assert run.returncode in (0, 141)
