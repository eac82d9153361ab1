# SPDX-License-Identifier: Apache-2.0
"""Digests of the records that a repair handles, from the signatures that can still be read."""

from __future__ import annotations

from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.errors import IntegrityError, StoreError, UnsupportedFormat
from deltaimg.format.signature import SIGNATURES
from deltaimg.kernels import digest_buffer
from deltaimg.repo.keys import digest_of
from deltaimg.repo.object_kinds import SIGNATURE
from deltaimg.repo.repository import Repository


class KnownDigests(Struct, frozen=True):
    """A record's digests, and where they are: from place `first` in a signature."""

    signature: str
    first: int
    digests: Digests


def find_digests(repository: Repository, wanted: set[bytes]) -> dict[bytes, KnownDigests]:
    """Return the digests of those of the records `wanted` that a signature has, verified by the records' ids."""
    found: dict[bytes, KnownDigests] = {}
    for listed in list(repository.objects.list(SIGNATURES)):
        name = digest_of(listed.name)
        try:
            content = repository.objects.get(SIGNATURE, listed.name)
        except (IntegrityError, StoreError, UnsupportedFormat):
            continue
        first = 0
        for row, slots in zip(content.record_ids, content.record_slots.tolist(), strict=True):
            record_id = row.tobytes()
            digests = content.digests[first : first + slots]
            is_new = record_id in wanted and record_id not in found
            if is_new and digest_buffer(digests.data, repository.keys.record, DIGEST_BYTES) == record_id:
                found[record_id] = KnownDigests(name, first, digests.copy())
            first += slots
    return found
