# SPDX-License-Identifier: Apache-2.0
"""Parity travels with the packs that it protects: an object whose packs are all in the destination is copied as it is.

Packs that are gathered are none of the source's; `parity add` in the destination protects them.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from deltaimg.engine.sync.losses import LOSSES, note_loss
from deltaimg.engine.sync.plan import Amount, Destination, Source
from deltaimg.errors import ObjectExists
from deltaimg.repo.object_kinds import PARITY
from deltaimg.repo.parity import list_protected
from deltaimg.repo.repository import Repository


class ParityCopier:
    """Copies parity after each batch; reads the list of packs of each parity object once a run."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._packs: dict[str, tuple[str, ...]] = {}

    def copy(self, repository: Repository, destination: Destination, stored: list[str]) -> int:
        """Copy parity objects whose packs are all there; return how many bytes that stored. What is damaged is left out.

        Args:
            stored: gets the names of what was stored.
        """
        stored_bytes = 0
        for digest in self._choose(destination, frozenset(destination.content.pack_bytes)):
            name = PARITY.name_of(digest)
            try:
                data = self._source.repository.objects.get_verified(name)
            except LOSSES as error:
                note_loss(self._source.repository, error)
                self._packs[digest] = ()
                continue
            with suppress(ObjectExists):
                stored_bytes += repository.objects.put_bytes(name, [data])
                stored.append(name)
            destination.content.parity_bytes[digest] = len(data)
        return stored_bytes

    def measure(self, destination: Destination, coming: Collection[str]) -> Amount:
        """Return how much is copied once the destination has these packs, too."""
        chosen = self._choose(destination, frozenset((*destination.content.pack_bytes, *coming)))
        return Amount(sum(self._source.content.parity_bytes[digest] for digest in chosen), len(chosen))

    def _choose(self, destination: Destination, packs: frozenset[str]) -> list[str]:
        """Return the parity objects that the destination lacks and that protect some of `packs` and no others."""
        content = destination.content
        lacking = sorted(self._source.content.parity_bytes.keys() - content.parity_bytes.keys())
        stays = packs - content.pending_packs
        return [digest for digest in lacking if (protected := self._list_packs(digest)) and stays.issuperset(protected)]

    def _list_packs(self, digest: str) -> tuple[str, ...]:
        """Return the packs that a parity object protects, none where that cannot be read."""
        if digest not in self._packs:
            size_bytes = self._source.content.parity_bytes[digest]
            self._packs[digest] = ()
            try:
                self._packs[digest] = list_protected(self._source.repository, PARITY.name_of(digest), size_bytes)
            except LOSSES as error:
                note_loss(self._source.repository, error)
        return self._packs[digest]
