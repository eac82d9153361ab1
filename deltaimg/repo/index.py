# SPDX-License-Identifier: Apache-2.0
"""All index objects of a repository as one: from a record's id to where it and its digests lie.

Memory  40 bytes a record and 4 for the order, about 44 MB for a TiB of content in records of 1 MiB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Digests
from deltaimg.errors import DeltaimgError, IntegrityError, ObjectNotFound
from deltaimg.format.index import ENTRY, INDEXES, IndexObject, parse_index
from deltaimg.repo.repository import Repository


class Index:
    """Entries number from 0, oldest index object first; their pack and signature numbers count in `packs`, `signatures`.

    `damage` tells which index objects could not be read.
    """

    def __init__(self, objects: list[IndexObject], damage: tuple[DeltaimgError, ...] = ()) -> None:
        self.damage = damage
        ordered = sorted(objects, key=lambda each: each.created_us)
        self.packs: list[str] = []
        self.signatures: list[str] = []
        parts: list[npt.NDArray[Any]] = []
        for each in ordered:
            entries = each.entries.copy()
            entries["pack"] += len(self.packs)
            entries["signature"] += len(self.signatures)
            self.packs += each.packs
            self.signatures += each.signatures
            parts.append(entries)
        self.entries: npt.NDArray[Any] = np.concatenate(parts) if parts else np.empty(0, ENTRY)
        self._ids = _as_keys(self.entries["id"])
        self._order = np.argsort(self._ids, kind="stable").astype(np.uint32)

    def __len__(self) -> int:
        return len(self.entries)

    def find(self, record_ids: Digests) -> npt.NDArray[np.int64]:
        """Return the entry number of each id, -1 for one that no index object has."""
        if not len(self.entries):
            return np.full(len(record_ids), -1, np.int64)
        keys = _as_keys(record_ids)
        places = np.minimum(np.searchsorted(self._ids, keys, sorter=self._order), len(self._order) - 1)
        numbers = self._order[places].astype(np.int64)
        return np.where(self._ids[numbers] == keys, numbers, -1)


def load_index(repository: Repository) -> Index:
    """Read every index object of `repository`; damaged ones are left out and listed in `damage`.

    A snapshot that needs none of their records is as good as ever; one that does fails when it is resolved.
    """
    objects = []
    damage: list[DeltaimgError] = []
    for found in repository.store.list(INDEXES):
        try:
            objects.append(parse_index(repository.get_object(INDEXES, found.name.removeprefix(INDEXES)), found.name))
        except (IntegrityError, ObjectNotFound) as error:
            damage.append(error)
    return Index(objects, tuple(damage))


def _as_keys(ids: Digests) -> npt.NDArray[np.bytes_]:
    """View 16-byte ids as strings of fixed width, which numpy can sort and compare; padding makes no two ids equal."""
    return np.ascontiguousarray(ids).view("S16").reshape(len(ids))
