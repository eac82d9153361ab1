# SPDX-License-Identifier: Apache-2.0
"""What people expect of any command line: options in any position, help by any usual way, suggestions, clear last messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deltaimg.cli.app import COMMAND_GROUPS, COMMANDS, find_function
from deltaimg.cli.habits import SYNONYMS
from deltaimg.cli.help_text import summarise
from deltaimg.cli.options import move_common_options
from deltaimg.errors import UsageError
from tests.cli.conftest import Backups
from tests.support.program import command, deltaimg, environment, fail, succeed


@pytest.mark.parametrize(
    ("given", "moved"),
    [
        ("-r x snapshots", "snapshots -r x"),
        ("-qr x -v snapshots vm1", "snapshots -qr x -v vm1"),
        ("-rx --json stats", "stats -rx --json"),
        ("--repo=x --threads 2 backup a -i b", "backup --repo=x --threads 2 a -i b"),
        ("snapshots -r x", "snapshots -r x"),
        ("-q --help", "--help"),
        ("-r x -V", "-V"),
        ("-r x", ""),
        ("-r", ""),
        ("", ""),
        ("--frobnicate snapshots", "--frobnicate snapshots"),
    ],
)
def test_common_options_may_stand_before_the_command(given: str, moved: str) -> None:
    assert move_common_options(given.split()) == moved.split()


def test_a_repository_named_before_the_command_counts_more_than_the_environment(
    backups: Backups, tmp_path: Path
) -> None:
    succeed("init", "-r", tmp_path / "empty")
    assert succeed("-r", backups.repo, "-q", "snapshots", repo=tmp_path / "empty").text.count("vm1@") == 2
    assert succeed("--json", "snapshots", repo=tmp_path / "empty").json == []


@pytest.mark.parametrize(
    ("typed", "meant"), [("snapshot", "snapshots"), ("bakcup", "backup"), ("Restore", "restore"), ("ls", "snapshots")]
)
def test_a_misspelt_command_gets_the_nearest_right_one(typed: str, meant: str) -> None:
    for words in ((typed,), ("help", typed)):
        run = deltaimg(*words)
        assert run.code == UsageError.exit_code
        assert f"did you mean 'deltaimg {meant}'?" in run.err


def test_what_resembles_nothing_gets_the_way_to_the_list() -> None:
    assert "'deltaimg help' lists the commands" in deltaimg("frobnicate").err
    assert set(SYNONYMS.values()) <= set(COMMANDS)
    assert not set(SYNONYMS) & set(COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        ("backup", "a.raw", "--image"),
        ("backup", "--json=1"),
        ("backup", "-q=", "--colour"),
        ("-r", "x", "backup", "-t"),
    ],
)
def test_a_misused_option_gets_the_way_to_the_help_of_its_command(words: tuple[str, ...]) -> None:
    run = deltaimg(*words)
    assert run.code == UsageError.exit_code
    assert "'deltaimg help backup' lists its options" in run.err


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("find fstab", "'deltaimg mount FOLDER' shows snapshots as files"),
        ("compact", "did you mean 'deltaimg prune'?"),
        ("backup vm1.raw --image vm1 --exclude /tmp", "--free-space skip"),
        ("check --read-data-subset 5%", "deltaimg verify --percent 5"),
        ("check --repair", "deltaimg repair --dry-run"),
        ("forget --keep-daily 7 --group-by host", "applied to each image by itself"),
        ("init -e none -r x", "use --encryption"),
        ("init /backup/repo", "deltaimg init -r /backup/repo"),
        ("key passwd", "use 'add', 'change'"),
        ("prune --keep-daily 7", "deltaimg forget --keep-daily 7 --prune"),
        ("restore vm1 --target out.raw", "the target is the second argument"),
        ("snapshots --image vm1", "deltaimg snapshots vm1"),
        ("snapshots --password-file x", "use --passphrase-file"),
        ("sync a b --limit-upload 100", "use --bwlimit"),
        ("tag --add x vm1", "deltaimg tag add SNAPSHOT TAG"),
    ],
)
def test_habits_of_other_programs_are_answered(typed: str, hint: str) -> None:
    run = deltaimg(*typed.split())
    assert run.code == UsageError.exit_code
    assert hint in run.err


def test_an_option_gets_a_suggestion_only_where_it_is_written_alike() -> None:
    assert (
        "did you mean --latest? 'deltaimg help snapshots' lists its options" in deltaimg("snapshots", "--last", "1").err
    )
    assert "did you mean --read-limit?" in deltaimg("backup", "vm1.raw", "--limit-read", "5M").err
    err = deltaimg("restore", "vm1", "--host", "x").err
    assert "did you mean" not in err
    assert "ossible" not in err


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("cache", "deltaimg cache [OPTIONS] ACTION; ACTION: 'show' or 'clean'"),
        ("sync a", "deltaimg sync [OPTIONS] SRC DST; DST: The repository to copy to"),
    ],
)
def test_a_missing_argument_gets_the_synopsis(typed: str, hint: str) -> None:
    assert hint in deltaimg(*typed.split()).err


def test_an_option_before_its_command_gets_the_order() -> None:
    assert "stand behind it" in deltaimg("--dry-run", "backup").err


def test_help_and_version_are_found_by_every_usual_way(backups: Backups) -> None:
    assert succeed("help").text == succeed("--help").text == succeed("-h").text == succeed().text
    assert succeed("help", "backup").text == succeed("backup", "--help").text == succeed("backup", "-h").text
    assert succeed("-V").text == succeed("--version").text == succeed("version").text
    assert set(succeed("help", "--json").json["commands"]) == set(COMMANDS)
    assert "--image, -i" in str(succeed("help", "backup", "--json").json["options"]).replace(
        "-i, --image", "--image, -i"
    )


def test_a_machine_without_the_native_core_says_so_in_one_line(backups: Backups, tmp_path: Path) -> None:
    """The core is hidden as where no compiler was: its module is not found."""
    hide = tmp_path / "sitecustomize.py"
    hide.write_text("import sys; sys.modules['deltaimg.kernels._native'] = None\n")
    variables = environment(backups.repo) | {"PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    for words in (("show", "vm1"), ("restore", "vm1", tmp_path / "out", "-q"), ("verify", "-q")):
        done = subprocess.run(command(*words), capture_output=True, text=True, env=variables, check=False)
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.splitlines() if "native core" in line]
        assert len(lines) == 1
        assert lines[0].startswith("deltaimg: warning: deltaimg runs without its native core")
        assert "RuntimeWarning" not in done.stderr
    quiet = variables | {"DELTAIMG_KERNELS": "reference"}
    done = subprocess.run(command("show", "vm1"), capture_output=True, text=True, env=quiet, check=False)
    assert done.stderr == ""


def interrupt(backups: Backups, *words: object, stdin: bytes) -> str:
    """Start a command that waits for more of its standard input, interrupt it and return what it said."""
    run = subprocess.Popen(
        command(*words),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(backups.repo),
    )
    assert run.stdin is not None
    assert run.stderr is not None
    run.stdin.write(stdin)
    run.stdin.flush()
    time.sleep(1.5)
    run.send_signal(signal.SIGINT)
    said = run.stderr.read().decode()
    run.stdin.close()
    assert run.wait(60) == 128 + signal.SIGINT, said
    return said


def test_an_interrupted_command_says_what_it_leaves_behind(backups: Backups, tmp_path: Path) -> None:
    """A restore said that the next run would go on where it starts over."""
    said = interrupt(backups, "backup", "-", "-i", "slow", stdin=os.urandom(1 << 20))
    assert "interrupted; no snapshot was made; the next run uses what this one has stored" in said
    said = interrupt(backups, "signature", "-", tmp_path / "sig", stdin=b"x" * 5000)
    assert "interrupted; no file was written" in said
    assert not list(tmp_path.glob("sig*"))


def test_a_command_that_is_interrupted_while_it_is_loaded_says_nothing() -> None:
    """It printed the traceback of what was being imported."""
    words = [sys.executable, "-X", "importtime", *command("version")[1:]]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if line.endswith("deltaimg.errors\n"):
                run.send_signal(signal.SIGINT)
                break
        said = [line for line in run.stderr if not line.startswith("import time:")]
    assert "Traceback" not in "".join(said)


_INTERRUPTED_AT_THE_END = """
import os, signal, sys
from deltaimg.cli import app, main
class Slow:
    def flush(self):
        os.kill(os.getpid(), signal.SIGTERM)
def run():
    sys.stdout = Slow()
    return 0
app.run = run
import deltaimg.cli
deltaimg.cli.flush_output = deltaimg.cli.lose_output = lambda: None
main()
"""


def test_a_command_that_is_interrupted_once_it_is_done_says_nothing() -> None:
    """It printed a traceback, after its result."""
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED_AT_THE_END], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


_INTERRUPTED_WHERE_ERRORS_ARE_IGNORED = """
import os, signal, time
from deltaimg.cli import app, main
class Closed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
def run():
    Closed()
    time.sleep(30)
    return 0
app.run = run
main()
"""


def test_a_signal_is_heeded_where_python_ignores_errors() -> None:
    """It printed a traceback, and the command ran on to its end."""
    words = [sys.executable, "-c", _INTERRUPTED_WHERE_ERRORS_ARE_IGNORED]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (128 + signal.SIGTERM, 1), done.stderr
    assert "interrupted" in done.stderr


_INTERRUPTED = """
import os, signal, time
from deltaimg.cli import app, main
def run():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    except BaseException:
        raise TypeError("expected str, bytes or os.PathLike object, not BufferedReader") from None
app.run = run
main()
"""


def test_what_a_library_makes_of_a_signal_is_reported_as_the_signal() -> None:
    """numpy.fromfile made a TypeError of it, and the run ended with an internal error."""
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (128 + signal.SIGTERM, 1), done.stderr
    assert "interrupted" in done.stderr


def test_every_command_that_writes_has_last_words() -> None:
    from deltaimg.cli.interruption import _OUTCOMES

    reading = {
        "snapshots",
        "show",
        "diff",
        "inspect",
        "doctor",
        "cat",
        "mount",
        "check",
        "stats",
        "unlock",
        "benchmark",
        "version",
        "help",
    }
    assert set(_OUTCOMES) | reading >= set(COMMANDS)
    assert not set(_OUTCOMES) & reading
    assert "option" in fail(2, "snapshots", "--frobnicate")


def test_commands_are_listed_with_the_first_paragraph_of_their_help() -> None:
    for commands in COMMAND_GROUPS.values():
        assert commands == {name: summarise(find_function(name).__doc__ or "") for name in commands}
