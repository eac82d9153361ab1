# SPDX-License-Identifier: Apache-2.0
"""`--lock-wait`: every command that takes a lock waits for whoever holds it, as long as it was asked to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deltaimg.cli.lock_wait import parse_wait
from deltaimg.errors import UsageError
from tests.cli.conftest import Backups
from tests.cli.test_unlock import leave_lock
from tests.support.program import command, environment, fail

VERBS = {
    "backup": "IMAGE --image vm1",
    "forget": "vm1@latest~1",
    "pin": "vm1@latest",
    "unpin": "vm1@latest",
    "tag": "add vm1@latest nightly",
    "flatten": "vm1@latest",
    "prune": "",
    "repair": "",
    "parity add": "",
    "parity repair": "",
}

ALL_AT_ONCE = """
import sys, time
slept = []
time.sleep = slept.append
from deltaimg.cli.app import run
from deltaimg.errors import RepositoryLocked
for line in sys.stdin:
    slept.clear()
    sys.argv = ["deltaimg", *line.split("\\t")[0].split(), "-q"]
    try:
        run()
        outcome = "done"
    except RepositoryLocked:
        outcome = "locked"
    print(outcome, sum(slept), flush=True)
"""
"""Run each line of the standard input as a command, in one process, and say how it ended and how long it slept."""


def run_all(lines: list[str], repo: Path) -> list[str]:
    given = "".join(f"{line}\t\n" for line in lines)
    done = subprocess.run(
        [sys.executable, "-c", ALL_AT_ONCE],
        input=given,
        capture_output=True,
        text=True,
        env=environment(repo),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_each_command_waits_as_long_as_it_was_asked_to_and_no_longer(backups: Backups) -> None:
    leave_lock(backups.repo, "vm1")
    leave_lock(backups.repo, ".maintenance")
    lines = [f"{verb} {arguments}".replace("IMAGE", str(backups.image)) for verb, arguments in VERBS.items()]
    waits = run_all([f"{line} --lock-wait 6s" for line in lines], backups.repo)
    assert dict(zip(VERBS, waits, strict=True)) == dict.fromkeys(VERBS, "locked 6.0")
    assert set(run_all(lines, backups.repo)) == {"locked 0"}, "without the option nothing waits"


def test_it_says_for_whom_it_waits_and_goes_on_once_the_lock_is_released(backups: Backups) -> None:
    lock = leave_lock(backups.repo, "vm1")
    with subprocess.Popen(
        command("pin", "vm1@latest", "--lock-wait", "1m"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(backups.repo),
    ) as waiting:
        assert waiting.stderr is not None
        said = waiting.stderr.readline()
        lock.unlink()
        text, _ = waiting.communicate(timeout=60)
    assert "waiting for process" in said
    assert "backup of /dev/vg0/vm1" in said
    assert waiting.returncode == 0
    assert "pinned" in text


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("45", 45), ("90s", 90), ("10m", 600), ("2h", 7200)])
def test_times_have_units(text: str, seconds: int) -> None:
    assert parse_wait(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1d", "1.5h", "soon", "9" * 30, "٣"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a valid time"):
        parse_wait(text)


def test_a_time_that_is_none_is_a_mistake_of_usage(tmp_path: Path) -> None:
    assert "'soon' is not a valid time" in fail(2, "prune", "--lock-wait", "soon", repo=tmp_path)
