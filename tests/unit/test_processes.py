# SPDX-License-Identifier: Apache-2.0
"""Only who is certainly dead is called dead: real processes, other users, hidden process tables and PID namespaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from deltaimg import processes
from deltaimg.processes import find_own_place, is_dead, is_named_dead, is_of_here, name_own_process, read_own_start

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root for other users and namespaces")
ASK = "from deltaimg.processes import is_dead; import sys; print(is_dead(int(sys.argv[1]), int(sys.argv[2])))"


def read_start(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


@pytest.fixture
def other() -> Iterator[tuple[int, int]]:
    """Yield number and start of a process that lives."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        yield process.pid, read_start(process.pid)
    finally:
        process.kill()
        process.wait()


def ask(prefix: list[str], pid: int, start: int) -> str:
    command = [*prefix, sys.executable, "-c", ASK, str(pid), str(start)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": os.getcwd()})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_process_that_lives_is_not_dead(other: tuple[int, int]) -> None:
    assert not is_dead(os.getpid(), read_own_start())
    assert not is_dead(*other)
    assert not is_dead(other[0], 0), "an unknown start time decides nothing"


def test_a_number_that_another_process_has_now_is_that_of_a_dead_one(other: tuple[int, int]) -> None:
    assert is_dead(other[0], other[1] + 1)
    assert is_dead(2**22 + 1, other[1])
    assert is_dead(2**31, other[1])


def test_a_process_that_ended_is_dead_before_and_after_its_parent_has_noticed() -> None:
    process = subprocess.Popen(["sleep", "60"])
    start = read_start(process.pid)
    process.kill()
    deadline = time.monotonic() + 10
    while not is_dead(process.pid, start):
        assert time.monotonic() < deadline
    process.wait()
    assert is_dead(process.pid, start)


def test_a_stopped_process_is_not_dead(other: tuple[int, int]) -> None:
    os.kill(other[0], signal.SIGSTOP)
    assert not is_dead(*other)


@needs_root
def test_processes_of_other_users_are_not_dead_though_they_are_hidden(other: tuple[int, int]) -> None:
    hide = ["unshare", "-m", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc; exec "$@"', "sh"]
    as_nobody = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    assert ask(as_nobody, *other) == "False"
    assert ask([*hide, *as_nobody], *other) == "False"
    assert ask([*hide, *as_nobody], other[0], other[1] + 1) == "False", "nothing shows that it is another process"
    assert ask([*hide, *as_nobody], 2**22 + 1, other[1]) == "True"


@needs_root
def test_a_process_table_of_another_namespace_decides_nothing() -> None:
    """There, /proc has another process under the same number."""
    script = (
        "from deltaimg.processes import *; import os; print(is_dead(os.getpid(), read_own_start() + 5), os.getpid())"
    )
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": os.getcwd()})
    assert done.stdout.split() == ["False", "1"]


@needs_root
def test_other_namespaces_are_other_places() -> None:
    script = "from deltaimg.processes import *; print(find_own_place().tag, find_own_place().is_here)"
    for prefix, is_same in ((["env"], True), (["unshare", "--pid", "--fork", "--mount-proc"], False)):
        command = [*prefix, sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": os.getcwd()})
        tag, is_here = done.stdout.split()
        assert (tag == find_own_place().tag) is is_same
        assert is_here == "True"


def test_what_is_not_fully_known_is_never_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_own_place().is_here
    monkeypatch.setattr(processes, "_read_text", lambda _: "")
    processes._find_place.cache_clear()
    try:
        assert not find_own_place().is_here
    finally:
        processes._find_place.cache_clear()


def test_writers_of_temporary_files_are_known_by_their_names() -> None:
    own = name_own_process()
    tag, pid, start = own.split("-")
    assert is_of_here(own)
    assert not is_named_dead(own)
    assert is_named_dead(f"{tag}-{2**22 + 1}-{start}")
    assert is_named_dead(f"{tag}-{pid}-{int(start) + 1}")
    for foreign in (
        "",
        tag,
        f"{tag}-{pid}",
        f"{'0' * 16}-{2**22 + 1}-{start}",
        f"{tag}--1-{start}",
        f"{tag}-x-{start}",
    ):
        assert not is_named_dead(foreign)
