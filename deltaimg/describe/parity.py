# SPDX-License-Identifier: Apache-2.0
"""Parity that was added, and what it protects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import to_builtins

if TYPE_CHECKING:
    from deltaimg.engine.parity.add import ParityAdded
    from deltaimg.engine.parity.protection import ParityProtection


def describe_protection(protection: ParityProtection) -> dict[str, object]:
    """Return which packs have parity, and what loss it survives."""
    return {
        "protected_packs": protection.protected_packs,
        "protected_bytes": protection.protected_bytes,
        "unprotected_packs": protection.unprotected_packs,
        "unprotected_bytes": protection.unprotected_bytes,
        "parity_bytes": protection.parity_bytes,
        "lost": list(protection.lost),
        "damaged_parity": [str(error) for error in protection.damage],
        "groups": [to_builtins(group) for group in protection.groups],
    }


def describe_parity_added(added: ParityAdded) -> dict[str, object]:
    """Return what an addition of parity stored."""
    return {
        "groups": added.groups,
        "packs": added.packs,
        "read_bytes": added.read_bytes,
        "stored_bytes": added.stored_bytes,
        "removed_groups": added.removed_groups,
        "removed_bytes": added.removed_bytes,
        "damaged": list(added.damaged),
        "protection": describe_protection(added.protection),
    }
