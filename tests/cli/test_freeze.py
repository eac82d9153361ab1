# SPDX-License-Identifier: Apache-2.0
"""Images in use, frozen for the time of a backup: what is stored is one moment, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deltaimg.model import MIB
from tests.support.components import loop_file_system
from tests.support.program import command, environment, fail, succeed
from tests.support.writers import assert_one_moment, writing_to

SIZES = {"xfs": 320 * MIB, "btrfs": 256 * MIB}


@pytest.fixture(params=SIZES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on each file system that has reflinks."""
    with loop_file_system(request.param, tmp_path / "mnt", SIZES[request.param]) as made:
        yield made.folder


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    with loop_file_system("btrfs", tmp_path / "mnt", SIZES["btrfs"]) as made:
        yield made.folder


def make_image(folder: Path) -> Path:
    path = folder / "vm1.raw"
    path.write_bytes(os.urandom(4 * MIB))
    return path


def restored(repo: Path, tmp_path: Path) -> bytes:
    succeed("restore", "vm1", tmp_path / "restored", "-q", repo=repo)
    content = (tmp_path / "restored").read_bytes()
    (tmp_path / "restored").unlink()
    return content


# -- clones and snapshots ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["reflink", "auto"])
def test_a_clone_of_an_image_that_is_written_to_is_one_moment(
    repo: Path, folder: Path, tmp_path: Path, method: str
) -> None:
    image = make_image(folder)
    numbers = []
    with writing_to(image):
        assert "was written to while it was read" in fail(12, "backup", image, "-i", "vm1", "-q", repo=repo)
        for _ in range(3):
            run = succeed("backup", image, "-i", "vm1", "--freeze", method, "--json", repo=repo)
            assert run.json["freeze"]["method"] == "reflink"
            assert 0 < run.json["freeze"]["frozen_s"] < 10
            numbers.append(assert_one_moment(restored(repo, tmp_path)))
    assert 0 < numbers[0] < numbers[1] < numbers[2]
    assert [each.name for each in folder.iterdir()] == [image.name]
    shown = succeed("show", "vm1", "--json", repo=repo).json
    assert shown["source"] == str(image)
    assert not shown["is_live"]
    assert "frozen by reflink" in succeed("show", "vm1", repo=repo).text


def test_a_snapshot_of_a_subvolume_is_one_moment(repo: Path, btrfs: Path, tmp_path: Path) -> None:
    subprocess.run(["btrfs", "-q", "subvolume", "create", btrfs / "guests"], check=True)
    (btrfs / "guests" / "deep").mkdir()
    image = make_image(btrfs / "guests" / "deep")
    with writing_to(image):
        run = succeed("backup", image, "-i", "vm1", "--freeze", "btrfs", "--json", repo=repo)
        assert run.json["freeze"]["method"] == "btrfs"
        assert assert_one_moment(restored(repo, tmp_path)) > 0
    assert [each.name for each in (btrfs / "guests").iterdir()] == ["deep"]


def test_an_image_without_copy_on_write_is_cloned(repo: Path, btrfs: Path, tmp_path: Path) -> None:
    image = btrfs / "vm1.raw"
    image.touch()
    subprocess.run(["chattr", "+C", image], check=True)
    image.write_bytes(os.urandom(4 * MIB))
    with writing_to(image):
        succeed("backup", image, "-i", "vm1", "--freeze", "reflink", "-q", repo=repo)
    assert assert_one_moment(restored(repo, tmp_path)) > 0


def test_auto_reads_the_image_as_it_is_where_nothing_better_works(repo: Path, tmp_path: Path) -> None:
    with loop_file_system("ext4", tmp_path / "mnt", 32 * MIB) as made:
        image = make_image(made.folder)
        run = succeed("backup", image, "-i", "vm1", "--freeze", "auto", repo=repo)
        assert "not frozen: reflink: cannot be cloned: its file system has no reflinks" in run.text
        shown = succeed("show", "vm1", "--json", repo=repo).json["freeze"]
        assert shown["method"] == "none"
        assert "btrfs: is not a file on btrfs" in shown["reason"]
        said = fail(60, "backup", image, "-i", "vm1", "--freeze", "reflink", "-q", repo=repo)
        assert "has no reflinks" in said
        with writing_to(image):
            fail(12, "backup", image, "-i", "vm1", "--freeze", "auto", "-q", repo=repo)


def test_what_a_method_is_not_for_is_refused(repo: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path)
    for method, problem in (("lvm", "is not a logical volume"), ("btrfs", "is not a file on btrfs")):
        assert problem in fail(60, "backup", image, "-i", "vm1", "--freeze", method, "-q", repo=repo)
    assert "cannot be read" in fail(60, "backup", tmp_path / "x", "-i", "vm1", "--freeze", "reflink", "-q", repo=repo)
    fail(2, "backup", image, "-i", "vm1", "--freeze", "zfs", "-q", repo=repo)
    fail(2, "backup", image, "-i", "vm1", "--freeze", "hook", "-q", repo=repo)
    fail(2, "backup", image, "-i", "vm1", "--post-freeze", "true", "-q", repo=repo)
    fail(2, "backup", image, "-i", "vm1", "--freeze", "hook", "--post-freeze", " ", "-q", repo=repo)
    fail(2, "backup", image, "-i", "vm1", "--snapshot-size", "1G", "-q", repo=repo)
    fail(2, "backup", image, "-i", "vm1", "--freeze", "auto", "--hook-timeout", "0", "-q", repo=repo)
    assert succeed("snapshots", "--json", repo=repo).json == []


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def hooks(log: Path, *, pre: str = "true", post: str = "true") -> list[str]:
    """Options whose commands write to a log what they are and what they were given, then do something."""
    line = 'echo {0} "$DELTAIMG_IMAGE" "$DELTAIMG_SOURCE" >> {1}; '
    return [
        "--freeze", "hook", "--pre-freeze", line.format("pre", log) + pre, "--post-freeze", line.format("post", log) + post,
    ]  # fmt: skip


def test_an_image_is_read_while_its_writer_is_stopped(repo: Path, tmp_path: Path, log: Path) -> None:
    image = make_image(tmp_path)
    with writing_to(image) as writer:
        options = hooks(log, pre=f"kill -STOP {writer.pid}", post=f"kill -CONT {writer.pid}")
        run = succeed("backup", image, "-i", "vm1", *options, "--json", repo=repo)
        assert run.json["freeze"]["method"] == "hook"
        assert run.json["freeze"]["frozen_s"] > 0
        before = assert_one_moment(restored(repo, tmp_path))
        deadline = time.monotonic() + 20
        while int.from_bytes(image.read_bytes()[:8], "little") <= before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert int.from_bytes(image.read_bytes()[:8], "little") > before, "the writer is still stopped"
    assert log.read_text() == f"pre vm1 {image}\npost vm1 {image}\n"


def test_writers_continue_as_soon_as_the_clone_is_there(repo: Path, folder: Path, tmp_path: Path, log: Path) -> None:
    """That is before the lock of the image is taken, and anything is read."""
    image = make_image(folder)
    options = hooks(log, post=f"ls {repo}/locks 2>/dev/null >> {log}; true")
    run = succeed("backup", image, "-i", "vm1", *options, "--freeze", "auto", "--json", repo=repo)
    assert run.json["freeze"]["method"] == "reflink"
    assert log.read_text() == f"pre vm1 {image}\npost vm1 {image}\n"


def test_the_output_of_a_command_is_no_result(repo: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path)
    options = ["--freeze", "hook", "--pre-freeze", "echo stopped", "--post-freeze", "echo continued"]
    run = succeed("backup", image, "-i", "vm1", *options, "--json", repo=repo)
    assert run.out.count(b"\n") == 1
    assert "stopped\n" in run.err
    assert "continued\n" in run.err


@pytest.mark.parametrize(
    ("pre", "post", "problem"),
    [
        ("false", "true", "--pre-freeze: the command ended with exit status 1"),
        ("kill -9 $$", "true", "--pre-freeze: the command was ended by signal 9"),
        ("sleep 20", "true", "--pre-freeze: the command took longer than 1 seconds"),
        ("true", "exit 3", "--post-freeze: the command ended with exit status 3"),
        ("true", "sleep 20", "--post-freeze: the command took longer than 1 seconds"),
    ],
)
def test_a_command_that_fails_makes_no_snapshot(
    repo: Path, tmp_path: Path, log: Path, pre: str, post: str, problem: str
) -> None:
    image = make_image(tmp_path)
    started_s = time.monotonic()
    options = [*hooks(log, pre=pre, post=post), "--hook-timeout", "1"]
    assert problem in fail(62, "backup", image, "-i", "vm1", *options, "-q", repo=repo)
    assert time.monotonic() - started_s < 15
    assert log.read_text() == f"pre vm1 {image}\npost vm1 {image}\n"
    assert succeed("snapshots", "--json", repo=repo).json == []


def test_an_error_lets_writers_continue(repo: Path, tmp_path: Path, log: Path) -> None:
    image = tmp_path / "vm1.raw"
    image.write_bytes(b"QFI\xfb" + bytes(MIB))
    fail(11, "backup", image, "-i", "vm1", *hooks(log), "-q", repo=repo)
    assert "post vm1" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["pre-freeze", "reading"])
def test_a_signal_lets_writers_continue(
    repo: Path, tmp_path: Path, log: Path, number: signal.Signals, moment: str
) -> None:
    """Also one that the program does not live to see."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pre = "sleep 30" if moment == "pre-freeze" else "true"
    arguments = command("backup", pipe, "-i", "vm1", *hooks(log, pre=pre))
    with subprocess.Popen(arguments, env=environment(repo), stderr=subprocess.PIPE) as process:
        writing = None
        with ExitStack() as stack:
            if moment == "reading":
                writing = os.open(pipe, os.O_WRONLY)  # once it reads
                stack.callback(os.close, writing)
                os.write(writing, bytes(100))
            wait_for(log, "pre")
            process.send_signal(number)
            wait_for(log, "post")
            process.communicate(timeout=20)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert log.read_text().count("post") == 1


def test_a_pre_freeze_command_that_outlives_the_program_is_ended_whenever_that_was_killed(
    repo: Path, tmp_path: Path, log: Path
) -> None:
    """Killed as soon as the command ran, the program had not told yet which process that was, and it ran on."""
    arguments = command("backup", make_image(tmp_path), "-i", "vm1", *hooks(log, pre="kill -9 $PPID; sleep 30"))
    with subprocess.Popen(arguments, env=environment(repo), stderr=subprocess.PIPE) as process:
        process.communicate(timeout=20)
    assert process.returncode == -9
    assert log.read_text().count("post") == 1


def wait_for(log: Path, word: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if log.exists() and word in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"no {word} in {log}")


def test_a_dry_run_freezes_as_well(repo: Path, tmp_path: Path, log: Path) -> None:
    image = make_image(tmp_path)
    succeed("backup", image, "-i", "vm1", *hooks(log), "--dry-run", "-q", repo=repo)
    assert log.read_text() == f"pre vm1 {image}\npost vm1 {image}\n"
