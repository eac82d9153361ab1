# SPDX-License-Identifier: Apache-2.0
"""What all stages of one backup work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from deltaimg.engine.backup.base import Base
from deltaimg.engine.backup.new_map import NewMap
from deltaimg.engine.progress import Progress
from deltaimg.image.extents import Bounds
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What to back up, and how."""

    repository: Repository
    lock: ImageLock
    """Of the image; held until the snapshot is committed."""
    source: ImageSource
    image: str
    options: BackupOptions
    progress: Progress
    clock: Callable[[], datetime]


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
