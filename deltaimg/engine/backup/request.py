# SPDX-License-Identifier: Apache-2.0
"""What a backup is asked for."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct, field

from deltaimg.engine.progress import Progress
from deltaimg.format.manifest import Group
from deltaimg.freeze.freeze import PointInTime
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository
from deltaimg.tracking.interface import Tracker


def make_snapshot_id() -> str:
    """Return an id that no snapshot has."""
    return secrets.token_hex(8)


class BackupRequest(Struct, frozen=True):
    """What to back up, and how."""

    repository: Repository
    source: ImageSource
    image: str
    options: BackupOptions
    progress: Progress
    clock: Callable[[], datetime]
    point_in_time: PointInTime | None = None
    """Of what the source is read; None where it was not to be frozen."""
    tracker: Tracker | None = None
    """What claims to know what changed; None where everything is to be read."""
    group: Group | None = None
    """Of which the snapshot is a member."""
    snapshot: str = field(default_factory=make_snapshot_id)
    """The id that the snapshot will have."""
