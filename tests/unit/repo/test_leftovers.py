# SPDX-License-Identifier: Apache-2.0
"""Whose unfinished files are removed: those of the dead, and of nobody who may be alive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from deltaimg.errors import LockLost
from deltaimg.format.lock import HEARTBEATS, build_lock
from deltaimg.processes import name_own_process
from deltaimg.repo.leftovers import MAX_AGE, remove_all_leftovers, remove_leftovers
from deltaimg.repo.lock_holder import FoundLock, describe_process
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.object_kinds import BENCHMARKS
from deltaimg.repo.repository import Repository
from deltaimg.store.file_port import FilePort
from deltaimg.store.local import LocalStore
from tests.support.components import requires_program, requires_root
from tests.support.locks import claim_of, list_claims, remove_claims
from tests.support.repositories import make_repository

NOW = datetime.now(UTC)
ELSEWHERE = "0123456789abcdef-4711-12345"
NO_SUCH_PROCESS = 2**22 + 1
"""Above what Linux numbers processes with."""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(LocalStore(str(tmp_path / "repo"), writer=name_own_process))


def leave(repository: Repository, writer: str, *, age: timedelta = timedelta(0), folder: str = "packs/ab") -> Path:
    """Leave an unfinished file as `writer` would."""
    repository.objects.store.make_folder(folder)
    path = Path(repository.objects.store.location) / folder / f".put-{writer}-0123456789ab"
    path.write_bytes(b"half of it")
    moment = (NOW - age).timestamp()
    os.utime(path, (moment, moment))
    return path


def writer_of(pid: int, start: int) -> str:
    return f"{name_own_process().partition('-')[0]}-{pid}-{start}"


def start_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])


def test_what_a_dead_process_left_is_removed_wherever_it_is(repository: Repository) -> None:
    dead = writer_of(NO_SUCH_PROCESS, 1)
    left = [leave(repository, dead, folder=folder) for folder in ("packs/ab", "snapshots/vm1", "locks", "index")]
    assert remove_leftovers(repository) == 40
    assert not any(path.exists() for path in left)


def test_what_a_living_process_writes_stays(repository: Repository) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        kept = leave(repository, writer_of(process.pid, start_of(process.pid)), age=10 * MAX_AGE)
        reused = leave(repository, writer_of(process.pid, start_of(process.pid) - 1), folder="packs/cd")
        own = leave(repository, name_own_process(), age=10 * MAX_AGE, folder="packs/ef")
        assert remove_all_leftovers(repository, NOW) == 10
        assert kept.exists()
        assert own.exists()
        assert not reused.exists()
        process.kill()
    assert remove_all_leftovers(repository, NOW) == 10
    assert not kept.exists()


@pytest.mark.parametrize("writer", [ELSEWHERE, "", "host-17", "0123456789abcdef-x-1"])
def test_what_may_be_alive_elsewhere_stays_for_an_hour(repository: Repository, writer: str) -> None:
    young = leave(repository, writer, age=MAX_AGE - timedelta(minutes=1))
    old = leave(repository, writer, age=MAX_AGE + timedelta(minutes=1), folder="packs/cd")
    assert remove_leftovers(repository) == 0
    assert remove_all_leftovers(repository, NOW) == 10
    assert young.exists()
    assert not old.exists()


def test_what_a_host_left_stays_as_long_as_a_lock_of_that_host_stands(repository: Repository) -> None:
    here = describe_process("0123456789abcdef", "backup", NOW)
    lock = msgspec.structs.replace(here, host="elsewhere", pid=5, process_start=6)
    repository.objects.store.put(claim_of("vm1"), [build_lock(lock)])
    left = leave(repository, FoundLock("", b"", msgspec.structs.replace(lock, pid=7)).holder, age=10 * MAX_AGE)
    assert remove_all_leftovers(repository, NOW) == 0
    remove_claims(repository.objects.store)
    assert remove_all_leftovers(repository, NOW) == 10
    assert not left.exists()


@pytest.mark.parametrize("is_alive", [False, True])
def test_what_a_host_that_died_left_goes_with_its_lock(repository: Repository, is_alive: bool) -> None:
    """The lock is watched; its holder shows a sign of life, or the lock and what it left are removed at once."""
    here = describe_process("0123456789abcdef", "backup", NOW)
    lock = msgspec.structs.replace(here, host="elsewhere", pid=5, process_start=6)
    repository.objects.store.put(claim_of("vm1"), [build_lock(lock)])
    left = leave(repository, FoundLock("", b"", lock).holder)
    beats = 0

    def sleep(_seconds: float) -> None:
        nonlocal beats
        beats += 1
        if is_alive:
            repository.objects.store.replace(f"{HEARTBEATS}{lock.token}", [b"%d" % beats])

    repository.lock_waiting = LockWaiting(patience_s=10, sleep=sleep)
    assert remove_all_leftovers(repository, NOW) == (0 if is_alive else 10)
    assert left.exists() is is_alive
    assert bool(list_claims(repository.objects.store)) is is_alive
    assert beats > 0


def test_a_run_whose_file_was_taken_away_is_told_that_it_was_considered_dead(repository: Repository) -> None:
    class Frozen(FilePort):
        def link(self, source: str, target: str) -> None:
            os.unlink(source)
            super().link(source, target)

    store = LocalStore(repository.objects.store.location, Frozen(), writer=name_own_process)
    with pytest.raises(LockLost, match=r"another process considered this run dead"):
        store.put("maps/" + "ab" * 32, [b"whole"])
    assert [each.name for each in repository.objects.store.list("")] == ["config"]


def test_what_a_killed_benchmark_left_goes_with_the_next_prune(repository: Repository) -> None:
    repository.objects.store.put(f"{BENCHMARKS}0123456789abcdef", [b"sample"])
    assert remove_leftovers(repository) == 0
    remove_all_leftovers(repository, NOW)
    assert [each.name for each in repository.objects.store.list("")] == ["config"]


def test_what_is_left_is_no_object_and_check_notes_it(repository: Repository) -> None:
    from deltaimg.engine.check.findings import Severity
    from deltaimg.engine.check.run import check

    left = leave(repository, writer_of(NO_SUCH_PROCESS, 1))
    assert [each.name for each in repository.objects.store.list("")] == ["config"]
    report = check(repository)
    assert [each.severity for each in report.findings] == [Severity.NOTE]
    assert report.findings[0].object_name.endswith(left.name)


_STUCK = """
import sys
from deltaimg.processes import name_own_process
from deltaimg.store.file_port import FilePort
from deltaimg.store.file_port import FilePort
from deltaimg.store.local import LocalStore
from tests.support.locks import claim_of, list_claims, remove_claims

class Slow(FilePort):
    def sync(self, descriptor):
        print("written", flush=True)
        sys.stdin.readline()
        super().sync(descriptor)

LocalStore(sys.argv[1], Slow(), writer=name_own_process).put("maps/" + "ab" * 32, [b"whole"])
print("stored", flush=True)
"""


@contextmanager
def stuck_writer(folder: str, *wrapper: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has written an object, and gives it its name when a line comes."""
    command = [*wrapper, sys.executable, "-c", _STUCK, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        yield process


@pytest.mark.parametrize("has_namespace", [False, True])
def test_a_living_writer_is_left_alone_in_a_container_as_well(repository: Repository, has_namespace: bool) -> None:
    """In a PID namespace of its own, its number was that of nobody: any command took its files away."""
    requires_root()
    unshare = (requires_program("unshare"), "--pid", "--fork", "--mount-proc") if has_namespace else ()
    with stuck_writer(repository.objects.store.location, *unshare) as process:
        assert len(list(repository.objects.store.list_unfinished())) == 1
        assert remove_leftovers(repository) == 0
        assert remove_all_leftovers(repository, NOW) == 0
        out, _ = process.communicate("\n", timeout=30)
        assert out == "stored\n"
    assert repository.objects.store.get("maps/" + "ab" * 32) == b"whole"


def test_a_killed_writer_costs_the_next_run_nothing(repository: Repository) -> None:
    with stuck_writer(repository.objects.store.location) as process:
        process.kill()
    assert len(list(repository.objects.store.list_unfinished())) == 1
    assert remove_leftovers(repository) == 5
    assert list(repository.objects.store.list_unfinished()) == []
