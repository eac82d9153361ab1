# SPDX-License-Identifier: Apache-2.0
"""Locks and their holders."""

from __future__ import annotations

from deltaimg.describe.parts import describe_time
from deltaimg.format.manifest import is_time, parse_time
from deltaimg.repo.lock_holder import FoundLock


def name_lock_state(found: FoundLock) -> str:
    """Return what is known about the holder of a lock, in a word or two."""
    if found.lock is None:
        return "damaged" if found.is_damaged else "unreadable"
    if found.is_dead:
        return "dead"
    return "at work" if found.is_local else "elsewhere"


def describe_lock(found: FoundLock) -> dict[str, object]:
    """Return a lock for programs."""
    lock = found.lock
    return {
        "name": found.label,
        "owner": lock.owner if lock else None,
        "host": lock.host if lock else None,
        "pid": lock.pid if lock else None,
        **describe_time("since", parse_time(lock.created) if lock and is_time(lock.created) else None),
        "purpose": lock.purpose if lock else None,
        "state": name_lock_state(found),
        "error": str(found.error) if found.error else None,
    }
