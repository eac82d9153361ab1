# SPDX-License-Identifier: Apache-2.0
"""Reserved room for verbs that free room: on a full disk, forget and prune still have to store a lock and what they replace.

`reserve` is an object of random bytes, which no file system can compress or share. A verb that frees room deletes it when the
store is full, and stores it again at its end. Backups store it where it is missing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from deltaimg.errors import ObjectNotFound, StoreError, StoreFull
from deltaimg.model import KIB, MIB
from deltaimg.repo.object_kinds import RESERVE, RESERVE_NAME
from deltaimg.repo.repository import Repository

RESERVE_BYTES = MIB
"""Enough for locks, lists of ten thousand objects, and the index of 256 MiB of packs."""
_SMALLEST_BYTES = 64 * KIB


def make_reserve(repository: Repository) -> None:
    """Store the reserve, as much of `RESERVE_BYTES` as fits; a failure is ignored."""
    with suppress(StoreError):
        there, size_bytes = _measure(repository), RESERVE_BYTES
        while size_bytes >= max(_SMALLEST_BYTES, there + 1):
            with suppress(StoreFull):
                repository.objects.replace(RESERVE, RESERVE_NAME, secrets.token_bytes(size_bytes))
                return
            size_bytes //= 2


def _measure(repository: Repository) -> int:
    try:
        # Its last byte says that it is whole; to read all of it would cost a line more than many a backup.
        if repository.objects.get_range(RESERVE_NAME, RESERVE_BYTES - 1, 1):
            return RESERVE_BYTES
        return len(repository.objects.get(RESERVE, RESERVE_NAME))
    except ObjectNotFound:
        return 0


@contextmanager
def spending_reserve(repository: Repository) -> Iterator[None]:
    """Inside, the reserve is deleted when the store is full."""
    repository.objects.spends_reserve = True
    try:
        yield
    finally:
        repository.objects.spends_reserve = False
        make_reserve(repository)
