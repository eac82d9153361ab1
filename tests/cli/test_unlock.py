# SPDX-License-Identifier: Apache-2.0
"""`deltaimg unlock`: who holds the lock, and how it is removed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from deltaimg.format.lock import build_lock
from deltaimg.repo.lock_holder import describe_process
from tests.support.clock import START
from tests.support.locks import claim_of
from tests.support.program import fail, succeed


def leave_lock(repo: Path, name: str, **changes: object) -> Path:
    lock = msgspec.structs.replace(describe_process("f00d", "backup of /dev/vg0/vm1", START), **changes)
    path = repo / claim_of(name)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(build_lock(lock))
    return path


def test_it_lists_who_is_at_work(repo: Path) -> None:
    assert succeed("unlock", repo=repo).text == "no locks\n"
    leave_lock(repo, "vm1")
    leave_lock(repo, "vm2", pid=2**22 + 1)
    leave_lock(repo, ".maintenance", host="elsewhere.example", purpose="prune")
    found = succeed("unlock", "--json", repo=repo).json
    assert {each["name"]: each["state"] for each in found} == {
        ".maintenance": "elsewhere",
        "vm1": "at work",
        "vm2": "dead",
    }
    assert "backup of /dev/vg0/vm1" in " ".join(succeed("unlock", repo=repo).text.split())


def test_it_removes_what_is_gone_and_what_it_is_forced_to(repo: Path) -> None:
    gone, alive = leave_lock(repo, "vm2", pid=2**22 + 1), leave_lock(repo, "vm1")
    assert "removed the lock 'vm2' of process" in succeed("unlock", "vm2", repo=repo).text
    assert not gone.exists()
    assert "is locked by process" in fail(33, "unlock", "vm1", repo=repo)
    assert alive.exists()
    succeed("unlock", "vm1", "--force", repo=repo)
    assert not alive.exists()


def test_there_is_no_lock_of_that_name(repo: Path) -> None:
    assert "there is no lock 'vm9'" in fail(2, "unlock", "vm9", repo=repo)
