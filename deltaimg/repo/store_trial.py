# SPDX-License-Identifier: Apache-2.0
"""Find out what a store does, where it cannot be known: whether it creates exclusively, and lists what it has just stored.

Servers accept the condition that an object must not exist yet, and ignore it; software between a host and a server lists what
was there a while ago. So each host tries both, with an object of a kind of its own, the first time that it takes a lock in a
repository, and keeps the result beside what else it remembers of that repository.

Locks need the second, and nothing needs the first: see `lock`. Where it is missing, `Objects.put` looks before it writes.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from deltaimg.errors import ObjectExists, StoreError
from deltaimg.repo import host_memory
from deltaimg.repo.object_kinds import PROBES
from deltaimg.repo.objects import Objects
from deltaimg.repo.repository import Repository

_TRIES = 2
"""A prune may remove what seems to be left behind by another host."""


def try_store(repository: Repository) -> None:
    """Find out what is not known about the store yet; raises StoreError where it cannot hold a repository."""
    objects = repository.objects
    if objects.creates_exclusively is not None:
        return
    repository_id, now = repository.config.repository_id, datetime.now(UTC)
    known = host_memory.recall_trial(repository_id, objects.location, now)
    if known is None:
        known = _try_out(objects)
        host_memory.note_trial(repository_id, objects.location, known, now)
    objects.creates_exclusively = known


def _try_out(objects: Objects) -> bool:
    """Return whether the store creates exclusively; raises StoreError if it does not list what it has just stored."""
    for _ in range(_TRIES):
        name = PROBES + secrets.token_hex(8)
        objects.put_bytes(name, [b"first"])
        try:
            if any(found.name == name for found in objects.list(PROBES)):
                return _refuses_second(objects, name)
        finally:
            objects.delete(name)
    raise StoreError(
        objects.location,
        "does not list what was stored just before, so that two hosts would work on the same thing",
        hint="leave out what is between this host and the store, such as a cache of listings",
    )


def _refuses_second(objects: Objects, name: str) -> bool:
    try:
        objects.put_bytes(name, [b"second"])
    except ObjectExists:
        return True
    return False
