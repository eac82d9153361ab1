# SPDX-License-Identifier: Apache-2.0
"""Locks as other runs leave and remove them."""

from __future__ import annotations

from deltaimg.format.lock import HEARTBEATS, name_claim, name_claims
from deltaimg.format.manifest import format_time
from deltaimg.store.interface import Store
from tests.support.clock import START

TOKEN = "0123456789abcdef"


def claim_of(scope: str, token: str = TOKEN) -> str:
    """Return the name of a claim that was made before any test began."""
    return name_claim(scope, format_time(START).replace("2026", "2025"), token)


def list_claims(store: Store, scope: str = "vm1") -> list[str]:
    """Return the names of the claims to a lock."""
    return [found.name for found in store.list(name_claims(scope))]


def remove_claims(store: Store, scope: str = "vm1") -> None:
    """Do what others do who consider the holder of a lock dead."""
    for name in list_claims(store, scope):
        store.delete(name)


def remove_locks(store: Store) -> None:
    """Remove all locks; heartbeats stay."""
    for found in list(store.list("locks/")):
        if not found.name.startswith(HEARTBEATS):
            store.delete(found.name)
