# SPDX-License-Identifier: Apache-2.0
"""Write the map of a new snapshot, and make its manifest."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct

from deltaimg.arrays import Runs
from deltaimg.delta.signature import root_digest
from deltaimg.engine.backup.context import BackupContext
from deltaimg.format.manifest import Freezing, Manifest, Statistics, format_time
from deltaimg.model import count_blocks
from deltaimg.repo.layers import store_layers
from deltaimg.repo.object_kinds import MANIFEST
from deltaimg.repo.repository import Repository
from deltaimg.text import as_text


class RunStart(Struct, frozen=True):
    """When a backup began."""

    clock_s: float
    """By the monotonic clock."""
    time: datetime

    @classmethod
    def now(cls, clock: Callable[[], datetime]) -> RunStart:
        """Return the present moment."""
        return cls(time.monotonic(), clock())


def write_map(
    context: BackupContext, start: RunStart, runs: Runs, stored_bytes: int, *, is_live: bool, container: str
) -> Manifest:
    """Store a map layer and return the manifest that lists it, which is still to be stored.

    Args:
        runs: the whole map of the snapshot. stored_bytes: what the backup has stored so far.
    """
    request, base, source, options = context.request, context.base, context.source, context.options
    size_bytes = source.size_bytes or 0
    layers = store_layers(
        context.repository,
        base.table,
        runs,
        base.resolved.map if base.resolved else None,
        count_blocks(size_bytes, context.block_bytes),
    )
    statistics = context.new_map.summarise(runs, base.runs, size_bytes, time.monotonic() - start.clock_s)
    ended_at, point = request.clock(), request.point_in_time
    manifest = Manifest(
        id=request.snapshot,
        image=request.image,
        time=_choose_time(base.newest_at, options.taken_at or (point and point.taken_at) or ended_at),
        base=base.manifest.id if base.manifest else None,
        base_time=base.manifest.time if base.manifest else None,
        size_bytes=size_bytes,
        block_bytes=context.block_bytes,
        maps=layers.maps,
        root_digest=_find_root(context, runs, statistics, size_bytes),
        statistics=statistics,
        started=format_time(start.time),
        ended=format_time(ended_at),
        tags=options.tags,
        comment=options.comment,
        is_live=is_live,
        container=container,
        unreadable=source.unreadable,
        freeze=point.describe() if point else None,
        free_space=context.free_space,
        tracking=context.tracking.describe() if context.tracking else None,
        group=request.group,
        source=as_text(source.path),
        host=as_text(socket.gethostname()),
        software=options.software,
    )
    return _settle_stored_bytes(context.repository, manifest, stored_bytes + layers.stored_bytes)


def revise(repository: Repository, manifest: Manifest, *, time: str, ended: str, freeze: Freezing | None) -> Manifest:
    """Return a manifest that is still to be stored with another time, end and freezing."""
    other_bytes = manifest.statistics.stored_bytes - repository.objects.count_bytes(MANIFEST, manifest)
    revised = msgspec.structs.replace(manifest, time=time, ended=ended, freeze=freeze)
    return _settle_stored_bytes(repository, revised, other_bytes)


def _choose_time(newest_at: datetime | None, moment: datetime) -> str:
    """Return `moment`, or just after the newest snapshot where the clock has gone back: the order is never lost."""
    if newest_at is not None:
        moment = max(moment, newest_at + timedelta(microseconds=1))
    return format_time(moment)


def _find_root(context: BackupContext, runs: Runs, statistics: Statistics, size_bytes: int) -> str:
    """Return the root digest of the image: the base's, where not a block of it changed."""
    base = context.base.manifest
    if base is not None and not statistics.changed_bytes and size_bytes == base.size_bytes:
        return base.root_digest
    return root_digest(
        context.repository.keys.root,
        runs,
        context.base.table.digests,
        size_bytes=size_bytes,
        block_bytes=context.block_bytes,
    ).hex()


def _settle_stored_bytes(repository: Repository, manifest: Manifest, other_bytes: int) -> Manifest:
    """Write the growth of the repository, the manifest's own size included, into the manifest."""
    stored = other_bytes
    while True:
        statistics = msgspec.structs.replace(manifest.statistics, stored_bytes=stored)
        manifest = msgspec.structs.replace(manifest, statistics=statistics)
        size = repository.objects.count_bytes(MANIFEST, manifest)
        if stored == other_bytes + size:
            return manifest
        stored = other_bytes + size
