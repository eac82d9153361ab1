# SPDX-License-Identifier: Apache-2.0
"""What a sync is asked for, what it is going to do, and what it did."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct, field

from deltaimg.engine.cluster import Cluster
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.sync.comparison import Compared
from deltaimg.engine.sync.plan import Amount
from deltaimg.engine.sync.selection import Failure
from deltaimg.options.keep import Policy
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.repository import Repository, SnapshotRef


class SyncEstimate(Struct, frozen=True):
    """What a sync is going to send, about."""

    snapshots: tuple[SnapshotRef, ...]
    """Those that are copied, in order."""
    there_count: int
    """Snapshots that are chosen and were copied before."""
    amount: Amount
    failed: tuple[Failure, ...]
    """Those that the source cannot give."""
    forgotten: tuple[SnapshotRef, ...]
    """Those of the destination that the source has forgotten, where these are to be forgotten there."""
    is_other_family: bool = False
    """Whether the repositories are of different families, so that snapshots are read and stored again."""


class SyncResult(Struct, frozen=True):
    """What a sync did."""

    copied: tuple[SnapshotRef, ...]
    there_count: int
    failed: tuple[Failure, ...]
    stored_bytes: int
    """By how much the destination grew."""
    arrived_bytes: int
    """Records that an earlier run had sent, and that this one only indexed."""
    compared: Compared
    """What was compared at the end."""
    forgotten: tuple[SnapshotRef, ...]
    """Snapshots of the destination that the source has forgotten: to be forgotten, which the caller does."""
    duration_s: float


class SyncRequest(Struct, frozen=True):
    """What to copy from where to where."""

    source: Repository
    destination: Repository
    options: SyncOptions = field(default_factory=SyncOptions)
    policy: Policy = field(default_factory=Policy)
    progress: Progress = field(default_factory=NoProgress)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    cluster: Cluster | None = None
    """Where whole packs are copied; in this process, if not given."""
