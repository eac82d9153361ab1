# SPDX-License-Identifier: Apache-2.0
"""A snapshot as an image source, so that it can be backed up again. Every block that is read of it is verified."""

from __future__ import annotations

import numpy as np

from deltaimg.arrays import Ranges
from deltaimg.engine.content.reader import SnapshotReader
from deltaimg.engine.sync.sides import locating
from deltaimg.format.manifest import Manifest
from deltaimg.image.extents import Extents
from deltaimg.model import Extent
from deltaimg.repo.repository import Repository


class SnapshotSource:
    """An `ImageSource` over a reader, which whoever made it closes."""

    is_sequential = False
    is_device = False

    def __init__(self, repository: Repository, manifest: Manifest, reader: SnapshotReader) -> None:
        """Args: repository: that of the snapshot, which errors name."""
        self._repository, self._manifest, self._reader = repository, manifest, reader
        self.path = manifest.source or manifest.label
        self.size_bytes: int | None = manifest.size_bytes
        self.unreadable: tuple[Extent, ...] = manifest.unreadable

    def extents(self) -> Extents:
        """Return what the snapshot's map says: data, holes and zeroes."""
        found = [(each.start, int(each.status)) for each in self._reader.extents()]
        starts, statuses = zip(*found, strict=True) if found else ((), ())
        return Extents(np.array(starts, np.int64), np.array(statuses, np.uint8), self._manifest.size_bytes)

    def find_writer(self) -> str | None:
        """Return what was known of the image when it was backed up."""
        return "was in use when it was backed up" if self._manifest.is_live else None

    def find_change(self) -> str | None:
        """Return None: a snapshot does not change."""
        return None

    def find_new_size(self) -> int | None:
        """Return None: nor does its size."""
        return None

    def peek(self, length: int) -> bytes:
        """Return the first bytes."""
        with locating(self._repository):
            return self._reader.read(0, length)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer`; raises IntegrityError or StoreError where it cannot be read."""
        with locating(self._repository):
            return self._reader.read_into(offset, buffer)

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Read parts again."""
        for offset, length, start in ranges.tolist():
            self.read_into(offset, out[start : start + length])

    def close(self) -> None:
        """Leave the reader open."""
