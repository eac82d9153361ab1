# SPDX-License-Identifier: Apache-2.0
"""How large things may be. A reader refuses what passes these before it allocates or expands anything."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deltaimg import text
from deltaimg.format.padding import MARK_BYTES
from deltaimg.model import MAX_BLOCK_BYTES, MAX_IMAGE_BYTES, MIN_BLOCK_BYTES
from deltaimg.model import MAX_DELTA_DEPTH as MAX_DELTA_DEPTH  # noqa: PLC0414  what readers refuse to go beyond

MAX_OBJECT_BYTES: Final = 2**32 - 1
MAX_DOCUMENT_BYTES: Final = 1 << 20
MAX_LOCK_BYTES: Final = 1 << 16
MAX_KEY_SLOTS: Final = 16
"""Of a repository: what a wrong passphrase may cost is bounded."""
MAX_ARGON2_KIB: Final = 1 << 20
MAX_ARGON2_ITERATIONS: Final = 64
MAX_ARGON2_LANES: Final = 16
MAX_ARGON2_WORK_KIB: Final = 1 << 23
"""Memory by iterations."""

MAX_LIST_BYTES: Final = 1 << 26
"""Of a document that names other objects, 67 bytes each: a million of them."""
MAX_PACK_BYTES: Final = 1 << 28
"""A pack is full at 32 MiB of payload. Headers and footer of tiny records take up to three times as much as that."""
MAX_TABLE_BYTES: Final = 1 << 30
"""Of a map, an index, a signature or `verified`."""
MAX_PARITY_OBJECT_BYTES: Final = 1 << 29
"""Shards of up to 128 MiB, more where a single pack needs them, and two copies of the tables."""

MAX_TEXT_CHARACTERS: Final = text.MAX_CHARACTERS
"""Of each text in a document."""

MAX_TAGS: Final = 64
MAX_TAG_CHARACTERS: Final = 100
MAX_REASON_CHARACTERS = 2000
MAX_REMARK_CHARACTERS: Final = 500
"""Of a comment, or the reason of a pin."""

MIN_BLOCK_SHIFT: Final = MIN_BLOCK_BYTES.bit_length() - 1
MAX_BLOCK_SHIFT: Final = MAX_BLOCK_BYTES.bit_length() - 1
MAX_RECORD_BYTES: Final = 16 << 20
MAX_RECORD_SLOTS: Final = MAX_RECORD_BYTES >> MIN_BLOCK_SHIFT

RECORD_SEAL_BYTES: Final = 52
"""By how much the payload of a sealed record is longer."""
HOST_RECORD_SEAL_BYTES: Final = 60
"""By how much it is longer where a write-only host sealed it."""
LARGEST_RECORD_SEAL_BYTES: Final = HOST_RECORD_SEAL_BYTES + MARK_BYTES
"""By how much a payload may be longer than the content of all slots: with any seal, and padded."""

MAX_SOURCE_RECORDS: Final = 4096
MAX_SOURCE_BYTES: Final = 16 << 20
"""What a delta record may be encoded against: a decoder holds this much, the content, and no more."""

MAX_LAYERS: Final = 64
"""Maps that a manifest lists: a full one, and those that lie over it."""

MAX_ROSTER_TRAIL: Final = 64
"""Rosters before it that a roster names."""

MAX_GROUP_MEMBERS: Final = 256
"""Images of a group, in each of their manifests."""

MAX_UNREADABLE_EXTENTS: Final = 4096
"""Places of an image that a backup could not read, in its manifest."""

MAX_BLOCKS: Final = MAX_IMAGE_BYTES // MIN_BLOCK_BYTES
MAX_RUNS: Final = 2**28
MAX_SLOT: Final = 2**32
"""One past the largest slot that a run can name."""

MIN_SHARD_BYTES: Final = 1 << 12
MAX_SHARD_BYTES: Final = 1 << 20
MAX_PARITY_COLUMNS: Final = 256
"""Of data and parity together: as many numbers as a byte has."""

MAX_COLUMN_EXPANSION: Final = 64
"""What packed columns expand to, by the bytes that they take."""


def find_record_problem(entries: npt.NDArray[Any]) -> str | None:
    """Return what is wrong with the records that `entries` describe, or None.

    Args:
        entries: with fields slots, block_shift and payload_bytes, as an index and the footer of a pack have.
    """
    if not len(entries):
        return None
    shifts, slots = entries["block_shift"], entries["slots"]
    if int(shifts.min()) < MIN_BLOCK_SHIFT or int(shifts.max()) > MAX_BLOCK_SHIFT:
        return "a record has an absurd block size"
    if int(slots.min()) == 0:
        return "a record has no slots"
    content_bytes = slots.astype(np.uint64) << shifts.astype(np.uint64)
    if int(content_bytes.max()) > MAX_RECORD_BYTES:
        return f"a record is larger than {MAX_RECORD_BYTES} bytes"
    if bool(np.any(entries["payload_bytes"] > content_bytes + LARGEST_RECORD_SEAL_BYTES)):
        return "a record's payload is longer than its content"
    return None


def find_slots_problem(slots: npt.NDArray[np.uint16]) -> str | None:
    """Return what is wrong with the numbers of slots of some records, or None."""
    if len(slots) and not 1 <= int(slots.min()) <= int(slots.max()) <= MAX_RECORD_SLOTS:
        return f"a record has no slots, or more than {MAX_RECORD_SLOTS}"
    return None
