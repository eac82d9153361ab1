# SPDX-License-Identifier: Apache-2.0
"""Runs from cron, systemd and ssh: descriptors that are closed, full, gone, non-blocking; odd environments."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from deltaimg.errors import ImageError, OutputError, ReaderGone
from tests.cli.conftest import Backups
from tests.support.program import Run, command, environment, succeed

REDIRECTIONS = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


def shell(script: str, backups: Backups, **variables: str) -> Run:
    """Run a line of bash in which `deltaimg` is the program, and `$image` and `$out` are paths."""
    program = " ".join(command())
    done = subprocess.run(
        ["bash", "-c", f'deltaimg() {{ {program} "$@"; }}; set -o pipefail; {script}'],
        env=environment(backups.repo) | {"image": str(backups.image), "out": f"{backups.image}.out"} | variables,
        capture_output=True,
        check=False,
        timeout=120,
    )
    run = Run(done.returncode, done.stdout, done.stderr.decode(errors="backslashreplace"))
    assert "Traceback" not in run.err, run.err
    assert "internal error" not in run.err, run.err
    return run


@pytest.mark.parametrize("redirections", REDIRECTIONS)
def test_a_run_without_some_of_the_standard_descriptors_does_its_work(backups: Backups, redirections: str) -> None:
    """A file of the repository that got number 1 or 2 was written into by messages, or the run ended at once."""
    script = f"deltaimg backup $image --image closed {redirections} && deltaimg restore closed $out {redirections}"
    assert shell(script, backups).code == 0
    assert Path(f"{backups.image}.out").read_bytes() == backups.second
    assert shell("deltaimg check -q", backups).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "version -v",
        "show --help",
        "--show-completion bash",
        "snapshots",
        "snapshots --json",
        "show vm1",
        "cat vm1",
        "restore vm1 -",
        "backup $image --image json --json",
        "signature $image",
    ],
)
def test_a_result_that_cannot_be_written_is_one_error(backups: Backups, arguments: str) -> None:
    for place, why in ((">/dev/full", "No space left on device"), (">&-", "it is closed")):
        run = shell(f"deltaimg {arguments} {place}", backups)
        assert run.code == OutputError.exit_code, run.err
        said = [line for line in run.err.splitlines() if line.startswith("deltaimg: ")]
        assert said == [f"deltaimg: standard output: cannot be written: {why}"]


@pytest.mark.parametrize("place", ["2>/dev/full", "2>&-", "2> >(exec 0<&-)"])
def test_progress_and_warnings_that_cannot_be_written_end_nothing(backups: Backups, place: str) -> None:
    for arguments in ("backup $image --image a", "restore vm1 $out", "verify"):
        assert shell(f"deltaimg {arguments} {place}", backups).code == 0, arguments
    assert shell(f"deltaimg show nobody {place}", backups).code == 21


def test_a_summary_that_cannot_be_written_fails_no_backup(backups: Backups) -> None:
    """The snapshot is there: an exit code that says otherwise would make scripts send alarms, or try again."""
    assert shell("deltaimg backup $image --image a >/dev/full", backups).code == 0


def test_a_reader_that_goes_away_ends_the_run_as_sigpipe_would(backups: Backups) -> None:
    for arguments in ("restore vm1 -", "cat vm1"):
        run = shell(f"deltaimg {arguments} | head -c 512 >/dev/null", backups)
        assert (run.code, run.err) == (ReaderGone.exit_code, ""), arguments


def test_a_closed_standard_input_is_named(backups: Backups) -> None:
    for arguments in ("backup - --image a", "patch $image - $out", "delta - $image $out"):
        run = shell(f"deltaimg {arguments} <&-", backups)
        assert run.code == ImageError.exit_code, (arguments, run.err)
        assert "standard input: cannot be read" in run.err
        assert "it is closed" in run.err


def test_a_terminal_that_hangs_up_ends_the_run_as_a_signal_does_and_progress_to_it_ends_nothing(
    backups: Backups,
) -> None:
    """Over ssh, the terminal goes away with the connection: writing to it fails with EIO, with or without SIGHUP."""
    for ignores, code in ((False, 128 + signal.SIGHUP), (True, 0)):
        leader, follower = pty.openpty()
        run = subprocess.Popen(
            command("backup", "-", "--image", "hung"),
            stdin=subprocess.PIPE,
            stdout=follower,
            stderr=follower,
            env=environment(backups.repo),
            start_new_session=True,
            preexec_fn=(lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) if ignores else None,
        )
        os.close(follower)
        assert run.stdin is not None
        run.stdin.write(backups.second[:1_500_000])
        run.stdin.flush()
        wait_for(backups.repo / "locks" / "hung")
        os.close(leader)
        if ignores:
            run.stdin.write(backups.second[1_500_000:])
        else:
            run.send_signal(signal.SIGHUP)
            run.wait(60)
        run.stdin.close()
        assert run.wait(60) == code
        assert not list((backups.repo / "locks").glob("hung/*"))


def test_descriptors_that_do_not_block_are_waited_for(backups: Backups) -> None:
    """ssh and node.js share pipes that they made non-blocking; a full one gave "Resource temporarily unavailable"."""
    content = os.urandom(3 << 20)
    (source, feed), (drain, sink) = os.pipe(), os.pipe()
    for end in (source, sink):
        fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_NONBLOCK)
    stored = subprocess.Popen(command("backup", "-", "-i", "late", "-q"), stdin=source, env=environment(backups.repo))
    time.sleep(0.6)
    with open(feed, "wb") as file:
        file.write(content)
    assert stored.wait(60) == 0
    restored = subprocess.Popen(command("restore", "late", "-"), stdout=sink, env=environment(backups.repo))
    os.close(source)
    os.close(sink)
    time.sleep(0.6)
    with open(drain, "rb") as file:
        assert file.read() == content
    assert restored.wait(60) == 0


ODD_ENVIRONMENTS = [
    {"TZ": "UTC+99", "PYTHONIOENCODING": "ascii:strict", "COLUMNS": "0", "HOME": "/nonexistent"},
    {"TZ": "A+1B-30,M3.2.0,M11.1.0", "PYTHONIOENCODING": "utf-16", "COLUMNS": "-1", "HOME": ""},
    {"TZ": "no/where", "LC_ALL": "POSIX", "COLUMNS": "60", "HOME": "/dev/null", "TERM": ""},
    {"TZ": "", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "x"},
    {"LC_ALL": "xx_YY.nonsense", "LANG": "xx", "HOME": "relative", "TMPDIR": "/nonexistent"},
    {"PYTHONIOENCODING": "cp037", "DELTAIMG_CACHE_DIR": "/proc/no", "FORCE_COLOR": "1", "TERM": "nonsense"},
    {"XDG_CACHE_HOME": "/dev/full", "COLUMNS": "99999999999999999999", "NO_COLOR": "1"},
]


@pytest.mark.parametrize("variables", ODD_ENVIRONMENTS, ids=lambda v: " ".join(f"{k}={w[:20]}" for k, w in v.items()))
def test_no_environment_makes_an_internal_error(backups: Backups, variables: dict[str, str]) -> None:
    script = (
        "deltaimg backup $image --image Büro --tag täglich && deltaimg restore Büro $out && deltaimg snapshots && "
        "deltaimg forget --keep-daily 3 --dry-run && deltaimg show --help"
    )
    run = shell(script, backups, **variables)
    assert run.code == 0, run.err
    assert Path(f"{backups.image}.out").read_bytes() == backups.second
    assert "Büro" in [each["image"] for each in succeed("snapshots", "--json", repo=backups.repo).json]


def test_an_environment_without_anything_in_it_is_enough(backups: Backups) -> None:
    done = subprocess.run(
        ["env", "-i", *command("backup", backups.image, "--image", "bare", "-r", backups.repo)],
        capture_output=True,
        check=False,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert "internal error" not in done.stderr


def test_moments_at_the_ends_of_the_calendar_are_refused(backups: Backups) -> None:
    for moment in ("0001-01-01", "9999-12-31", "9999-12-31T23:59:59-12:00"):
        run = shell(f"deltaimg show vm1@{moment}", backups, TZ="Pacific/Kiritimati")
        assert run.code in (2, 21), run.err


def wait_for(path: Path) -> None:
    """Wait until there is something at `path`."""
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()
