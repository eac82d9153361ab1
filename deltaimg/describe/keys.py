# SPDX-License-Identifier: Apache-2.0
"""Keys of encrypted repositories as JSON objects."""

from __future__ import annotations

from datetime import datetime

from deltaimg.describe.parts import describe_time
from deltaimg.format.key_slot import KeySlot
from deltaimg.format.manifest import is_time, parse_time


def find_since(slot: KeySlot) -> datetime | None:
    """Return when a key was made, as its slot says; None where it says nothing of the kind."""
    return parse_time(slot.created) if is_time(slot.created) else None


def describe_key(slot: KeySlot) -> dict[str, object]:
    """Return what `key` prints of a key: nothing of it is secret."""
    return {"id": slot.id, "type": slot.type, "label": slot.label, **describe_time("created", find_since(slot))}
