# SPDX-License-Identifier: Apache-2.0
"""What is on an image, or was on it when a snapshot was taken: `deltaimg.guest` over either of them.

Reads  the structures of partition tables and file systems: of a snapshot some records, never the whole of it.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from deltaimg.engine.content.reader import SnapshotReader
from deltaimg.errors import UnsupportedImage
from deltaimg.guest.examine import GuestLayout, examine
from deltaimg.guest.free_space import count_skippable
from deltaimg.guest.source_bytes import SourceBytes
from deltaimg.image.extents import Extents
from deltaimg.image.source import ImageSource


class SnapshotBytes(Struct, frozen=True):
    """A snapshot, read at any offset."""

    reader: SnapshotReader

    def read_at(self, offset: int, length: int) -> bytes:
        """Return what is there; raises IntegrityError or StoreError."""
        return self.reader.read(offset, length)


def examine_source(source: ImageSource) -> GuestLayout:
    """Return what is on an image; raises ImageError, and UnsupportedImage for a stream."""
    if source.is_sequential:
        raise UnsupportedImage(source.path, "is a stream, and only a file or a device can be read in places")
    content, extents = SourceBytes(source), source.extents()
    return count_skippable(content, extents, examine(content, extents))


def examine_snapshot(reader: SnapshotReader) -> GuestLayout:
    """Return what was on an image; raises IntegrityError or StoreError."""
    found = [(each.start, int(each.status)) for each in reader.extents()]
    starts, statuses = zip(*found, strict=True) if found else ((), ())
    extents = Extents(np.array(starts, np.int64), np.array(statuses, np.uint8), reader.size_bytes)
    content = SnapshotBytes(reader)
    return count_skippable(content, extents, examine(content, extents))
