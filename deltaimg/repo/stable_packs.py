# SPDX-License-Identifier: Apache-2.0
"""Packs whose names follow from their content, so that a run that makes one again finds that it is there.

Elsewhere the salt of a pack is random, and a name never comes back after it was deleted. Here it may: what makes that safe is
in docs/decisions/0017-families-and-sync.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from deltaimg.format.framing import SALT_BYTES, digest_bytes, name_object, salt_object
from deltaimg.repo.object_kinds import PACK
from deltaimg.repo.pack_writer import StorePack
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Parts


class StablePacks:
    """Stores packs for a `PackWriter`."""

    def __init__(self, repository: Repository, pack_bytes: Mapping[str, int], pending: Collection[str]) -> None:
        """Args: pack_bytes: packs that are there, by digest. pending: those that are pending deletion."""
        self._repository = repository
        self._pack_bytes, self._pending = pack_bytes, pending

    def __call__(self, parts: Parts) -> StorePack:
        """Take a pack without salt, as `finish_pack` lays it out; return what stores it."""
        # Of all but the payloads, whose digests are in the headers of their records.
        salt = digest_bytes(parts[0], *parts[1::2], length=SALT_BYTES)
        salted = salt_object(parts, salt)
        return partial(self._store, parts, salted, name_object(salted))

    def _store(self, parts: Parts, salted: Parts, name: str) -> tuple[str, int]:
        objects = self._repository.objects
        if name in self._pending:
            return objects.put_named(PACK, parts)
        if self._pack_bytes.get(name) == sum(len(part) for part in parts):
            return name, 0
        return name, objects.put_bytes(PACK.name_of(name), salted)
