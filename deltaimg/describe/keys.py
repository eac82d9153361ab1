# SPDX-License-Identifier: Apache-2.0
"""Keys of encrypted repositories as JSON objects."""

from __future__ import annotations

from deltaimg.describe.parts import describe_time
from deltaimg.format.key_slot import KeySlot
from deltaimg.format.manifest import is_time, parse_time


def describe_key(slot: KeySlot) -> dict[str, object]:
    """Return what `key` prints of a key: nothing of it is secret."""
    created = parse_time(slot.created) if is_time(slot.created) else None
    return {"id": slot.id, "type": slot.type, "label": slot.label, **describe_time("created", created)}
