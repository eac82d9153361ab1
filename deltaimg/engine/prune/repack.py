# SPDX-License-Identifier: Apache-2.0
"""Write again what is kept of signatures and index objects that are deleted. Records are copied by `engine/record_copies.py`.

Always  digests are verified by the ids of their records before they are stored again.
Memory  the index entries that are written again; a signature.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, group_by
from deltaimg.engine.prune.plan import MAX_INDEXES
from deltaimg.format.index import IndexObject
from deltaimg.format.signature import SignatureObject
from deltaimg.ids import EntryNumbers
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.object_kinds import INDEX, SIGNATURE, Content, ObjectKind
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

_SIGNATURE_RECORDS = 1 << 16


class IndexRewriter:
    """Writes index objects for entries whose index objects are deleted, and signatures for digests that are moved."""

    def __init__(self, repository: Repository, index: LoadedIndex) -> None:
        self._repository, self._index, self._objects = repository, index, repository.objects
        self.stored_bytes = 0

    def write(self, entries: EntryNumbers, resigned: EntryNumbers, kept_objects: int) -> None:
        """Write index objects for `entries`, from oldest to newest.

        Args:
            resigned: those of them whose digests are written to new signatures.
            kept_objects: number of index objects that are kept beside the new ones.
        """
        index = self._index
        per_object = 1
        object_count = len(np.unique(index.object_of[entries]))
        if kept_objects + object_count > MAX_INDEXES:
            per_object = -(-object_count // (MAX_INDEXES // 2))
        # What a write-only host has an index of, it shall have one of afterwards.
        for host in sorted(set(index.hosts)):
            self._objects = self._repository.objects.sealing_for(host)
            places_of_digests = self._sign(EntryNumbers(np.sort(index.choose_of(host, resigned))))
            of_host = index.choose_of(host, entries)
            groups = list(group_by(index.object_of[of_host]))
            for first in range(0, len(groups), per_object):
                merged = groups[first : first + per_object]
                chosen = np.concatenate([of_host[places] for _, places in merged])
                self._write_object(EntryNumbers(np.sort(chosen)), places_of_digests, index.created_us[merged[-1][0]])

    def _write_object(self, entries: EntryNumbers, places: dict[int, tuple[str, int]], created_us: int) -> None:
        index = self._index
        copied = index.entries[entries].copy()
        packs, copied["pack"] = _renumber([index.packs[number] for number in copied["pack"].tolist()])
        names = [index.signatures[number] for number in copied["signature"].tolist()]
        for number, entry in enumerate(entries.tolist()):
            if entry in places:
                names[number], copied["first_digest"][number] = places[entry]
        signatures, copied["signature"] = _renumber(names)
        links, cuts = index.links.extract(entries), index.cuts.extract(entries)
        self._put(INDEX, IndexObject(created_us, packs, signatures, copied, links, cuts))

    def _sign(self, entries: EntryNumbers) -> dict[int, tuple[str, int]]:
        """Write the digests of records to new signatures; return for each entry the signature, and the place in it."""
        places: dict[int, tuple[str, int]] = {}
        for first in range(0, len(entries), _SIGNATURE_RECORDS):
            piece = entries[first : first + _SIGNATURE_RECORDS]
            table = SlotTable(self._repository, self._index)
            records = table.add_entries(piece)
            table.load_digests(records)
            firsts, counts = table.first_slots[records], table.slot_counts[records]
            digests = table.digests[int(firsts[0]) : int(firsts[-1] + counts[-1])].reshape(-1, DIGEST_BYTES)
            content = SignatureObject(table.record_ids[records], counts.astype(np.uint16), digests)
            name = self._put(SIGNATURE, content)
            for entry, place in zip(piece.tolist(), (firsts - firsts[0]).tolist(), strict=True):
                places[entry] = name, place
        return places

    def _put(self, kind: ObjectKind[Content], content: Content) -> str:
        digest, size_bytes = self._objects.put_new(kind, content)
        self.stored_bytes += size_bytes
        return digest


def _renumber(names: list[str]) -> tuple[tuple[str, ...], npt.NDArray[np.uint32]]:
    """Return each name once, in order of appearance, and which of these each of `names` is."""
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(name, len(numbers)) for name in names]
    return tuple(numbers), np.array(places, np.uint32)
