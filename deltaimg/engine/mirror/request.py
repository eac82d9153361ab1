# SPDX-License-Identifier: Apache-2.0
"""What a mirror is asked for, and what it did."""

from __future__ import annotations

from msgspec import Struct, field

from deltaimg.engine.mirror.connect import Connection
from deltaimg.engine.mirror.protocol import Pace
from deltaimg.engine.progress import NoProgress, Progress


class MirrorRequest(Struct, frozen=True):
    """What to mirror, and how."""

    image: str
    connection: Connection
    is_forced: bool = False
    is_in_place: bool = False
    is_verified: bool = False
    allow_live: bool = False
    is_dry: bool = False
    pace: Pace | None = None
    cache_folder: str | None = None
    """Where this host keeps the digests of what copies hold; None for nowhere."""
    progress: Progress = field(default_factory=NoProgress)


class MirrorResult(Struct, frozen=True):
    """What a mirror did, or, of a dry run, would do."""

    image_bytes: int
    mode: str
    """How the copy was changed: new, clone or in-place."""
    recovered: str
    """What was done about a run before that was cut; empty if none was."""
    changed_blocks: int
    zeroed_blocks: int
    """Of those, which are zero now."""
    moved_blocks: int
    """Of those, which the copy had elsewhere."""
    literal_bytes: int
    """What was new, before it was compressed."""
    copy_read_bytes: int
    """Of the copy, read because what it held was not known."""
    verified_bytes: int
    """Of the copy, read back from the disk and compared."""
    sent_bytes: int
    received_bytes: int
    duration_s: float
    is_dry: bool = False
