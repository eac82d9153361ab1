# SPDX-License-Identifier: Apache-2.0
"""What prune has condemned: still there for those who may be reading it, used by nobody who begins now.

A list that went away meanwhile says nothing any more. One that is damaged keeps prune and backups from going on: `repair` puts
it aside, and what it named is then merely not deleted.
"""

from __future__ import annotations

from contextlib import suppress

from deltaimg.errors import IntegrityError, ObjectNotFound
from deltaimg.format.condemned import CONDEMNED, Condemned, build_condemned, parse_condemned
from deltaimg.format.index import INDEXES
from deltaimg.format.map import MAPS
from deltaimg.format.pack import pack_name
from deltaimg.format.signature import SIGNATURES
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Confirm


def load_condemned(repository: Repository, *, is_strict: bool = False) -> list[Condemned]:
    """Return every list of condemned objects, in order of id.

    Args:
        is_strict: a damaged one is an error; otherwise it is left out.
    """
    lists = []
    for found in repository.store.list(CONDEMNED):
        with suppress(ObjectNotFound, *(() if is_strict else (IntegrityError,))):
            lists.append(_read(repository, found.name))
    return lists


def _read(repository: Repository, name: str) -> Condemned:
    """Read a list, once more if it seems damaged: a disk may have read it wrongly."""
    with suppress(IntegrityError):
        return parse_condemned(repository.store.get(name), name)
    return parse_condemned(repository.store.get(name), name)


def note_condemned(repository: Repository) -> None:
    """Learn which names no new object may get; to be done when a lock has been taken, before anything is stored.

    Raises:
        IntegrityError: a list is damaged, so that a run could come to rely on what is about to be deleted.
    """
    lists = load_condemned(repository, is_strict=True)
    repository.condemned_names |= frozenset(
        name for each in lists for names in (each.packs, each.indexes, each.signatures, each.maps) for name in names
    )


def object_names(condemned: Condemned) -> list[str]:
    """Return names in the order in which they are deleted: what names goes before what is named."""
    return [
        *(INDEXES + name for name in condemned.indexes),
        *(SIGNATURES + name for name in condemned.signatures),
        *(MAPS + name for name in condemned.maps),
        *(pack_name(name) for name in condemned.packs),
    ]


def put_condemned(repository: Repository, condemned: Condemned) -> int:
    """Condemn: once this returns it is durable, and no run that begins now uses what is listed. Return the list's size."""
    return repository.store.put(condemned.object_name, [build_condemned(condemned)])


def replace_condemned(repository: Repository, condemned: Condemned, confirm: Confirm) -> int:
    """Put a list in the place of the one with its id, unless the lock is lost, which `confirm` tells at the last moment."""
    return repository.store.replace(condemned.object_name, [build_condemned(condemned)], confirm)


def remove_condemned(repository: Repository, condemned: Condemned) -> None:
    """Forget a list, all that it named being deleted or pardoned."""
    repository.store.delete(condemned.object_name)
