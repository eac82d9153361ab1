# SPDX-License-Identifier: Apache-2.0
"""What a backup may be told about its source: a command, a size, a time; and a dry run of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deltaimg.errors import CommandFailed, SizeMismatch, UnsupportedImage, UsageError
from tests.cli.conftest import Backups
from tests.support.program import command, deltaimg, environment, fail, read_tree, succeed


def count(backups: Backups, image: str) -> int:
    return sum(each["image"] == image for each in succeed("snapshots", "--json", repo=backups.repo).json)


def back_up(backups: Backups, *words: object) -> tuple[object, ...]:
    return ("backup", "--image", "c", *words)


def test_the_output_of_a_command_is_backed_up(backups: Backups) -> None:
    succeed(*back_up(backups, "--stdin-from-command", f"cat '{backups.image}' | cat", "-q"), repo=backups.repo)
    assert succeed("restore", "c", "-", repo=backups.repo).out == backups.second
    source = succeed("show", "c", "--json", repo=backups.repo).json["source"]
    assert source == "command 'cat'", "the rest of a command may hold passwords"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cat {image}; exit 3", "command 'cat': ended with exit status 3"),
        ("head -c 1M {image}; kill -9 $$", "command 'head': was ended by signal 9"),
        ("cat {image} | (cat; exit 7) | cat", "ended with exit status 7"),
        ("exit 5", "ended with exit status 5"),
        ("no-such-program-here x", "ended with exit status 127"),
        ("cat 'x", "its quotes do not match"),
        ("", "is empty"),
        ("PASSWORD=secret false", "command 'false': ended with exit status 1"),
    ],
)
def test_a_command_that_fails_makes_no_snapshot_whatever_it_printed(backups: Backups, line: str, said: str) -> None:
    words = back_up(backups, "--stdin-from-command", line.format(image=backups.image))
    assert said in fail(CommandFailed.exit_code, *words, repo=backups.repo)
    assert count(backups, "c") == 0


def test_a_command_that_prints_nothing_is_an_empty_image(backups: Backups) -> None:
    fail(UnsupportedImage.exit_code, *back_up(backups, "--stdin-from-command", "true"), repo=backups.repo)


def test_an_interrupted_backup_takes_its_command_with_it(backups: Backups, tmp_path: Path) -> None:
    line = f"echo $$ > {tmp_path}/pid; head -c 1M /dev/urandom; exec sleep 300"
    run = subprocess.Popen(
        command(*back_up(backups, "--stdin-from-command", line)), stderr=subprocess.PIPE, env=environment(backups.repo)
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, said
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_stream_of_another_size_than_announced_is_refused(backups: Backups) -> None:
    size = len(backups.second)
    for wrong, said in ((size - 1, "has more than"), (size + 1, f"has {size} bytes, not {size + 1}")):
        words = back_up(backups, "-", "--size", wrong)
        assert said in fail(SizeMismatch.exit_code, *words, repo=backups.repo, stdin=backups.second)
        assert said.partition(" more")[0] in fail(
            SizeMismatch.exit_code, *back_up(backups, backups.image, "--size", wrong), repo=backups.repo
        )
    assert count(backups, "c") == 0
    succeed(*back_up(backups, "-", "--size", size, "-q"), repo=backups.repo, stdin=backups.second)
    shorter = backups.second[:1_000_000]
    succeed(*back_up(backups, "-", "--size", len(shorter), "-q"), repo=backups.repo, stdin=shorter)
    assert count(backups, "c") == 2


def test_a_stream_without_an_end_is_refused_once_it_is_too_long(backups: Backups) -> None:
    words = back_up(backups, "--stdin-from-command", "yes", "--size", "1M")
    assert "has more than 1048576 bytes" in fail(SizeMismatch.exit_code, *words, repo=backups.repo)


def test_snapshots_can_be_imported_under_the_times_they_are_of(backups: Backups) -> None:
    for moment in ("2024-05-01T02:30Z", "2024-06-01T02:30+02:00"):
        succeed(*back_up(backups, backups.image, "--time", moment, "-q"), repo=backups.repo)
    times = [each["time"] for each in succeed("snapshots", "c", "--json", repo=backups.repo).json]
    assert times == ["2024-05-01T02:30:00Z", "2024-06-01T00:30:00Z"]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for moment, said in (
        ("2024-05-15", "is not after snapshot c@"),
        ("2024-06-01T00:30Z", "is not after snapshot c@"),
        (tomorrow, "is not a time between 1970 and now"),
        ("1969-01-01", "is not a time between 1970 and now"),
        ("0001-01-01", "1970 and now"),
        ("9999-12-31", "1970 and now"),
        ("2024-02-30", "is not a valid date or time"),
        ("yesterday", "is not a valid date or time"),
    ):
        run = deltaimg(*back_up(backups, backups.image, "--time", moment), repo=backups.repo)
        assert run.code == UsageError.exit_code, (moment, run.err)
        assert said in run.err or "is not a valid date" in run.err, run.err
    succeed(*back_up(backups, backups.image, "-q"), repo=backups.repo)
    assert count(backups, "c") == 3
    kept = succeed("forget", "c", "--keep-monthly", "9", "--dry-run", "--json", repo=backups.repo).json["images"][0]
    assert kept["kept"] == 3


def test_a_dry_run_says_what_a_backup_stores_and_changes_nothing(backups: Backups) -> None:
    with backups.image.open("r+b") as file:
        file.seek(500_000)
        file.write(b"new content" * 5000)
    before = read_tree(backups.repo)
    for image in ("vm1", "copy"):
        words = ("backup", backups.image, "--image", image)
        planned = succeed(*words, "--dry-run", "--json", repo=backups.repo).json
        assert "would store a snapshot" in succeed(*words, "--dry-run", repo=backups.repo).text
        assert read_tree(backups.repo) == before
        done = succeed(*words, "--json", repo=backups.repo).json
        for field in ("base", "apparent_bytes", "allocated_bytes", "changed_bytes", "referenced_bytes", "new_bytes"):
            assert planned[field] == done[field], (image, field)
        before = read_tree(backups.repo)
    piped = succeed(
        "backup", "-", "-i", "p", "--dry-run", "--json", repo=backups.repo, stdin=backups.image.read_bytes()
    ).json
    assert piped["new_bytes"] == 0


def test_there_must_be_one_source(backups: Backups) -> None:
    assert "no image to back up" in fail(UsageError.exit_code, *back_up(backups), repo=backups.repo)
    words = back_up(backups, backups.image, "--stdin-from-command", "true")
    assert "cannot both be given" in fail(UsageError.exit_code, *words, repo=backups.repo)


def test_a_limited_backup_of_low_priority_is_as_any_other(tmp_path: Path) -> None:
    image, repo = tmp_path / "vm1.raw", tmp_path / "repo"
    image.write_bytes(os.urandom(3_000_001))
    succeed("init", "-r", repo)
    started = time.monotonic()
    succeed("backup", image, "--image", "vm1", "--read-limit", "2M", "--ionice", "idle", "-r", repo)
    assert time.monotonic() - started > 1.2
    succeed("restore", "vm1", tmp_path / "restored", "-r", repo)
    assert (tmp_path / "restored").read_bytes() == image.read_bytes()
    assert "is no rate" in fail(2, "backup", image, "--image", "vm1", "--read-limit", "fast", "-r", repo)
