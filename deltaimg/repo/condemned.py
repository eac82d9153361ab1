# SPDX-License-Identifier: Apache-2.0
"""What prune has condemned: still there for those who may be reading it, used by nobody who begins now.

A list that is damaged or went away meanwhile says nothing; what it named is then merely not deleted.
"""

from __future__ import annotations

from contextlib import suppress

from deltaimg.errors import IntegrityError, ObjectNotFound
from deltaimg.format.condemned import CONDEMNED, Condemned, build_condemned, parse_condemned
from deltaimg.repo.repository import Repository


def load_condemned(repository: Repository) -> list[Condemned]:
    """Return every list of condemned objects, in order of id; damaged ones are left out."""
    lists = []
    for found in repository.store.list(CONDEMNED):
        with suppress(ObjectNotFound, IntegrityError):
            lists.append(parse_condemned(repository.store.get(found.name), found.name))
    return lists


def note_condemned(repository: Repository) -> None:
    """Learn which names no new object may get; to be done when a lock has been taken, before anything is stored."""
    lists = load_condemned(repository)
    repository.condemned_names = frozenset(
        name for each in lists for names in (each.packs, each.indexes, each.signatures, each.maps) for name in names
    )


def put_condemned(repository: Repository, condemned: Condemned) -> int:
    """Condemn: once this returns it is durable, and no run that begins now uses what is listed. Return the list's size."""
    return repository.store.put(condemned.object_name, [build_condemned(condemned)])


def replace_condemned(repository: Repository, condemned: Condemned) -> int:
    """Put a list in the place of the one with its id."""
    return repository.store.replace(condemned.object_name, [build_condemned(condemned)])


def remove_condemned(repository: Repository, condemned: Condemned) -> None:
    """Forget a list, all that it named being deleted or pardoned."""
    repository.store.delete(condemned.object_name)
