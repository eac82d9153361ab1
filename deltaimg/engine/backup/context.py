# SPDX-License-Identifier: Apache-2.0
"""What all stages of one backup work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from deltaimg.engine.backup.base import Base, choose_block_bytes
from deltaimg.engine.backup.new_map import NewMap
from deltaimg.engine.progress import Progress
from deltaimg.freeze.freeze import PointInTime
from deltaimg.image.extents import DATA, Bounds
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What to back up, and how."""

    repository: Repository
    source: ImageSource
    image: str
    options: BackupOptions
    progress: Progress
    clock: Callable[[], datetime]
    point_in_time: PointInTime | None = None
    """Of what the source is read; None where it was not to be frozen."""


@dataclass(frozen=True, slots=True)
class BackupContext:
    """The request, what it is compared with, and the map that is being made."""

    request: BackupRequest
    base: Base
    block_bytes: int
    to_read: Bounds
    """What the image source reports as data, in whole blocks; of a stream everything."""
    new_map: NewMap

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
    """Ask the image source what there is to read, and start the new map."""
    block_bytes = choose_block_bytes(base.newest, request.image, request.options.block_bytes)
    extents = request.source.extents().without_base(base.manifest.size_bytes if base.manifest else 0).align(block_bytes)
    return BackupContext(request, base, block_bytes, extents.find(DATA), NewMap(extents, block_bytes))
