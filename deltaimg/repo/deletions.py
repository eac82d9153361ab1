# SPDX-License-Identifier: Apache-2.0
"""Objects pending deletion: kept for runs that may be reading them; a run that begins now does not refer to them.

Only what can be read back is ever deleted: a damaged list is ignored, and the next prune or repair moves it to
`quarantine/`. What it listed is then not deleted until a prune lists it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeVar

from msgspec import Struct

from deltaimg.errors import DeltaimgError, IntegrityError, ObjectExists, ObjectNotFound, StoreError, UnsupportedFormat
from deltaimg.format.deletion import (
    DELETIONS,
    LOCKS_SUFFIX,
    Deletion,
    DeletionLocks,
)
from deltaimg.format.pack import pack_name
from deltaimg.repo.object_kinds import DELETION, DELETION_LOCKS, INDEX, MAP, SIGNATURE
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Confirm

_Document = TypeVar("_Document")
_DAMAGE = (IntegrityError, UnsupportedFormat)
_LIST_NAME = re.compile(rf"{DELETIONS}[0-9a-f]{{16}}")


class PendingDeletion(Struct, frozen=True):
    """A list in the repository, and the tokens of the locks that it waits for; None while they are not recorded."""

    objects: Deletion
    waits_for: frozenset[str] | None

    @property
    def id(self) -> str:
        """The id of the list, as in its name."""
        return self.objects.id


def load_deletions(
    repository: Repository,
    on_damage: Callable[[str, DeltaimgError], None] = lambda *_: None,
    names: Collection[str] | None = None,
) -> list[PendingDeletion]:
    """Return all lists that can be read, in order of id.

    Args:
        on_damage: called with the name of a damaged list and the error.
        names: of the objects in their folder, if it was listed just now.

    Raises:
        StoreError: the store fails, so that nothing is known about what is pending.
    """
    pending = []
    for name in _list_names(repository) if names is None else filter(_LIST_NAME.fullmatch, sorted(names)):
        try:
            objects = repository.objects.get(DELETION, name)
            pending.append(PendingDeletion(objects, _load_locks(repository, name)))
        except ObjectNotFound:
            continue  # carried out meanwhile
        except _DAMAGE as error:
            on_damage(name, error)
    return pending


def list_orphaned_locks(repository: Repository) -> list[str]:
    """Return the names of recorded locks whose list was deleted."""
    names = [found.name for found in repository.objects.list(DELETIONS)]
    return [name for name in names if name.endswith(LOCKS_SUFFIX) and name.removesuffix(LOCKS_SUFFIX) not in names]


def object_names(deletion: Deletion) -> list[str]:
    """Return names in the order in which they are deleted: an object before those that it refers to."""
    return [
        *(INDEX.name_of(name) for name in deletion.indexes),
        *(SIGNATURE.name_of(name) for name in deletion.signatures),
        *(MAP.name_of(name) for name in deletion.maps),
        *(pack_name(name) for name in deletion.packs),
    ]


def put_deletion(repository: Repository, deletion: Deletion, confirm: Confirm) -> None:
    """Store a list: once this returns it is durable, and no run that begins now refers to what is listed."""
    repository.objects.put(DELETION, deletion.object_name, deletion, confirm)


def record_locks(repository: Repository, locks: DeletionLocks, confirm: Confirm) -> frozenset[str]:
    """Store which locks a list waits for, unless another run has done so; return those that count.

    Locks that are listed once the list is durable are all that matter: a lock that was released by then is of a run whose
    manifest is there.
    """
    for _ in range(2):
        with suppress(ObjectExists):
            repository.objects.put(DELETION_LOCKS, locks.object_name, locks, confirm)
            return frozenset(locks.waits_for)
        recorded = _load_locks(repository, DELETIONS + locks.id)
        if recorded is not None:
            return recorded
        repository.objects.delete(locks.object_name)  # damaged
    raise StoreError(locks.object_name, "another run is changing it", hint="run again")


def remove_deletion(repository: Repository, deletion: Deletion) -> None:
    """Remove a list that was carried out, after its recorded locks: a list without them is carried out again."""
    repository.objects.delete(deletion.object_name + LOCKS_SUFFIX)
    repository.objects.delete(deletion.object_name)


def _list_names(repository: Repository) -> list[str]:
    found = [each.name for each in repository.objects.list(DELETIONS)]
    return [name for name in found if _LIST_NAME.fullmatch(name)]


def _load_locks(repository: Repository, name: str) -> frozenset[str] | None:
    """Return the locks that the list `name` waits for, None where they are not recorded or cannot be read back."""
    with suppress(ObjectNotFound, *_DAMAGE):
        return frozenset(repository.objects.get(DELETION_LOCKS, name + LOCKS_SUFFIX).waits_for)
    return None
