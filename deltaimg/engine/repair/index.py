# SPDX-License-Identifier: Apache-2.0
"""New index objects: for packs that no index names, and in place of those that name what is missing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from deltaimg.arrays import group_by
from deltaimg.engine.check.run import Checker
from deltaimg.engine.repair.known_digests import KnownDigests
from deltaimg.engine.repair.plan import RepairPlan, is_restored, read_index
from deltaimg.format.index import IndexObject
from deltaimg.format.signature import SignatureObject
from deltaimg.repo.index_edit import select_entries
from deltaimg.repo.object_kinds import INDEX, SIGNATURE
from deltaimg.repo.quarantine import move_to_quarantine
from deltaimg.repo.repository import Repository


class IndexRepair:
    """Writes index objects."""

    def __init__(
        self,
        repository: Repository,
        plan: RepairPlan,
        find_digests: Callable[[bytes], KnownDigests | None],
    ) -> None:
        self.new_indexes = 0
        self._repository, self._plan, self._find_digests = repository, plan, find_digests
        self._indexed: set[bytes] = set()

    def index_packs(self, now_us: int) -> int:
        """Index all packs that were scanned; return how many."""
        for content in self._plan.scanned:
            repaired = self._give_digests(content, np.ones(len(content.entries), np.bool_))
            if repaired is not None and len(repaired.entries):
                self._put(replace(repaired, created_us=now_us))
                self._indexed |= {row.tobytes() for row in repaired.entries["id"]}
        return len(self._plan.scanned)

    def rewrite_indexes(self, checker: Checker, made: set[bytes]) -> list[str]:
        """Replace index objects some of whose records were moved, lost their digests, or are lost and not needed.

        Returns:
            the names of those that were replaced.

        Args:
            made: records that this repair has stored again.
        """
        catalog, plan = checker.catalog, self._plan
        is_dead = ~catalog.has_place
        is_gone = np.array([each in plan.damaged or each not in checker.sizes for each in catalog.packs], np.bool_)
        suspects = np.flatnonzero(is_gone[catalog.entries["pack"]]) if len(is_gone) else np.empty(0, np.int64)
        for number, places in group_by(catalog.entries["pack"][suspects]):
            is_dead[suspects[places]] = not is_restored(self._repository, catalog.packs[number])
        is_useless = self._find_useless(checker, is_dead | ~catalog.has_digests)
        superseded = []
        for number, name in enumerate(catalog.index_names):
            part = catalog.entries_of(number)
            dead = is_dead[part] | is_useless[part]
            blank = ~dead & ~catalog.has_digests[part]
            if not dead.any() and not blank.any():
                continue
            content = read_index(self._repository, name)
            is_elsewhere = is_useless[part] | (dead & self._lies_elsewhere(content.entries["id"], made))
            repaired = self._give_digests(content, blank) if blank.any() else content
            if repaired is None or (repaired is content and not is_elsewhere.any()):
                continue
            rest = select_entries(repaired, ~is_elsewhere)
            if len(rest.entries):
                self._put(rest)
            move_to_quarantine(self._repository.objects, name)
            superseded.append(name)
        return superseded

    def _find_useless(self, checker: Checker, is_bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which of the bad entries no snapshot needs: none of them while any manifest cannot be read."""
        refs = {ref.id for ref in (*self._repository.list_snapshots(), *self._repository.list_quarantined())}
        if refs - checker.manifests.keys():
            return np.zeros(len(is_bad), np.bool_)
        useless: npt.NDArray[np.bool_] = is_bad & ~checker.is_used
        return useless

    def _lies_elsewhere(self, ids: npt.NDArray[np.uint8], made: set[bytes]) -> npt.NDArray[np.bool_]:
        """Return which records are in an undamaged pack, or were stored again."""
        index = self._plan.index
        found = index.find(ids)
        is_made = np.array([row.tobytes() in made or row.tobytes() in self._indexed for row in ids], np.bool_)
        if not len(index):
            return is_made
        lies_there: npt.NDArray[np.bool_] = is_made | ((found >= 0) & ~index.is_pending[np.maximum(found, 0)])
        return lies_there

    def _give_digests(self, content: IndexObject, is_blank: npt.NDArray[np.bool_]) -> IndexObject | None:
        """Return an index object whose entries all have digests, by a signature that is left or by a new one.

        Entries without digests stay as they are; where the object's other records are all found, these are left out.
        None where nothing could be repaired.
        """
        known = {
            int(place): self._find_digests(content.entries["id"][place].tobytes()) for place in np.flatnonzero(is_blank)
        }
        entries, signatures = content.entries.copy(), list(content.signatures)
        new = [(place, found) for place, found in known.items() if found is not None and not found.signature]
        old = [(place, found) for place, found in known.items() if found is not None and found.signature]
        if not new and not old:
            return None
        for place, found in old:
            if found.signature not in signatures:
                signatures.append(found.signature)
            entries["signature"][place], entries["first_digest"][place] = signatures.index(found.signature), found.first
        if new:
            first = 0
            signature = self._put_signature(entries, new)
            for place, found in new:
                entries["signature"][place], entries["first_digest"][place] = len(signatures), first
                first += len(found.digests)
            signatures.append(signature)
        is_kept = np.ones(len(entries), np.bool_)
        if is_blank.all():
            is_kept[[place for place, found in known.items() if found is None]] = False
        return select_entries(replace(content, entries=entries, signatures=tuple(signatures)), is_kept)

    def _put_signature(self, entries: npt.NDArray[np.void], new: list[tuple[int, KnownDigests]]) -> str:
        places = [place for place, _ in new]
        digests = np.concatenate([found.digests for _, found in new])
        content = SignatureObject(entries["id"][places], entries["slots"][places], digests)
        return self._repository.objects.put_new(SIGNATURE, content)[0]

    def _put(self, content: IndexObject) -> None:
        self.new_indexes += 1
        self._repository.objects.put_new(INDEX, content)
