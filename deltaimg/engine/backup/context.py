# SPDX-License-Identifier: Apache-2.0
"""What all stages of one backup work with."""

from __future__ import annotations

from msgspec import Struct

from deltaimg.engine.backup.base import Base, choose_block_bytes
from deltaimg.engine.backup.change_tracking import TRACKED_GAP_BYTES, ChangeTracking, track_changes
from deltaimg.engine.backup.free_space import leave_out_free
from deltaimg.engine.backup.new_map import NewMap
from deltaimg.engine.backup.request import BackupRequest
from deltaimg.engine.progress import Progress
from deltaimg.engine.scan import MAX_GAP_BYTES
from deltaimg.format.manifest import FreeSpaceSkipped
from deltaimg.image.extents import DATA, UNCHANGED, Bounds, Extents
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository


class BackupContext(Struct, frozen=True):
    """The request, what it is compared with, and the map that is being made."""

    request: BackupRequest
    base: Base
    block_bytes: int
    extents: Extents
    """What the image source reports and a tracker claims, in whole blocks."""
    new_map: NewMap
    tracking: ChangeTracking | None
    """None where it was not asked for."""
    free_space: FreeSpaceSkipped | None
    """What was left out as free; None where that was not asked for."""

    @property
    def to_read(self) -> Bounds:
        """What is to be read, in whole blocks; of a stream everything."""
        return self.extents.find(DATA)

    @property
    def content(self) -> Bounds:
        """What the image holds, read or not."""
        return self.extents.find(DATA, UNCHANGED)

    @property
    def max_gap_bytes(self) -> int:
        """The largest gap in what is to be read that is read with what is beside it."""
        return TRACKED_GAP_BYTES if self.is_tracked else MAX_GAP_BYTES

    @property
    def is_tracked(self) -> bool:
        """Whether some of the image is not read because a tracker claims it to be unchanged."""
        return self.tracking is not None and self.tracking.is_claimed

    @property
    def repository(self) -> Repository:
        """Where the snapshot is stored."""
        return self.request.repository

    @property
    def source(self) -> ImageSource:
        """The image source."""
        return self.request.source

    @property
    def options(self) -> BackupOptions:
        """The options of the backup."""
        return self.request.options

    @property
    def progress(self) -> Progress:
        """Where stages are reported."""
        return self.request.progress


def make_context(request: BackupRequest, base: Base) -> BackupContext:
    """Ask the image source and the tracker what there is to read, and start the new map."""
    block_bytes = choose_block_bytes(base.newest, request.image, request.options.block_bytes)
    extents, free_space = leave_out_free(request, request.source.extents())
    extents, tracking = track_changes(request, base, block_bytes, extents)
    return BackupContext(request, base, block_bytes, extents, NewMap(extents, block_bytes), tracking, free_space)
