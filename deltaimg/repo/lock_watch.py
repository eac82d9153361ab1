# SPDX-License-Identifier: Apache-2.0
"""Distinguish locks whose holder is dead from those whose holder is active, and remove the former.

A holder of this host, boot and PID namespace is dead when the process table shows it. Where other hosts reach the store as
well, its heartbeat must also stand still for a short time: a copy of this virtual machine has the same identity. Any other
holder must show a heartbeat: its lock is removed by a run that has itself seen no change for `patience_s`.
Clocks are never compared, and time counts by the looks that were taken: a watcher that is frozen meanwhile gains no evidence.
"""

from __future__ import annotations

from contextlib import ExitStack
from enum import Enum

from msgspec import Struct

from deltaimg.format.lock import HEARTBEATS
from deltaimg.repo.lock_holder import FoundLock, read_heartbeat, read_lock
from deltaimg.repo.lock_waiting import POLL_S, RENEW_S, LockWaiting
from deltaimg.repo.objects import Objects

_QUIET_S = 2 * RENEW_S + POLL_S


class Verdict(Enum):
    """What is known about a lock's holder."""

    HELD = "held"
    GONE = "gone"
    UNDECIDED = "undecided"


class _Watched(Struct):
    signs: bytes
    still_s: float = 0.0
    has_moved: bool = False


class HolderWatch:
    """Polls locks, every `POLL_S` seconds, until it is known whether their holders are alive."""

    def __init__(self, objects: Objects, waiting: LockWaiting) -> None:
        self._objects, self._waiting = objects, waiting
        self._watched: dict[str, _Watched] = {}

    def look(self, found: FoundLock) -> Verdict:
        """Check the signs of life of a lock's holder once."""
        if found.is_dead and not self._objects.properties.is_shared:
            return Verdict.GONE
        patience_s = min(_QUIET_S, self._waiting.patience_s) if found.is_dead else self._waiting.patience_s
        can_be_gone = found.is_dead or found.is_damaged or (found.lock is not None and not found.is_local)
        if not can_be_gone or patience_s <= 0:
            return Verdict.HELD
        signs = read_heartbeat(self._objects, found.token)
        watched = self._watched.setdefault(found.token, _Watched(signs, -POLL_S))
        watched.still_s += POLL_S
        if signs != watched.signs:
            self._watched[found.token] = _Watched(signs, has_moved=True)
            return Verdict.HELD
        if watched.still_s >= patience_s:
            return Verdict.GONE
        return Verdict.HELD if watched.has_moved else Verdict.UNDECIDED


def remove_stale_locks(objects: Objects, locks: list[FoundLock], waiting: LockWaiting) -> list[FoundLock]:
    """Remove those of `locks` whose holders are dead, and return those that are held. All are watched at once."""
    with ExitStack() as shown:
        return _watch_all(objects, locks, waiting, shown)


def _watch_all(objects: Objects, locks: list[FoundLock], waiting: LockWaiting, shown: ExitStack) -> list[FoundLock]:
    watch = HolderWatch(objects, waiting)
    held: list[FoundLock] = []
    undecided, is_told = locks, False
    while undecided:
        verdicts = [(each, watch.look(each)) for each in undecided]
        held += [each for each, verdict in verdicts if verdict is Verdict.HELD]
        for each in (each for each, verdict in verdicts if verdict is Verdict.GONE):
            remove_lock(objects, each)
        undecided = [each for each, verdict in verdicts if verdict is Verdict.UNDECIDED]
        if undecided and not is_told:
            shown.enter_context(waiting.show(f"watching for a sign of life of {undecided[0].describe()}"))
            is_told = True
        if undecided:
            waiting.sleep(POLL_S)
            found = [read_lock(objects, each.name) for each in undecided]
            undecided = [each for each in found if each is not None]
    return held


def remove_lock(objects: Objects, found: FoundLock) -> None:
    """Remove exactly this lock, whose name no other ever has, and its heartbeat. Its holder will notice before it commits."""
    objects.delete(found.name)
    objects.delete(HEARTBEATS + found.token)
