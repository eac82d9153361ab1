# SPDX-License-Identifier: Apache-2.0
"""What every kind of change tracking promises.

A tracker claims which extents may have changed since a snapshot. All else is taken from the base's map without being read, so a
claim that omits a change would store old content. The engine therefore audits every claim, and never needs one: without a claim
it reads everything, and the snapshot is still an incremental one.
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from deltaimg.arrays import Ranges
from deltaimg.format.manifest import Manifest
from deltaimg.image.extents import Bounds

THIN: Final = "thin"
"""The name of tracking by snapshots that stay in a thin pool."""


class ChangeClaim(Struct, frozen=True, eq=False):
    """What may have changed since a snapshot."""

    changed: Bounds | None
    """What may have changed; it may reach past the image's end. None: nothing is known."""
    reason: str = ""
    """Why nothing is known, for people."""
    is_surprising: bool = False
    """Whether something is wrong where nothing is known, so that a warning is due."""


class Tracker(Protocol):
    """One kind of change tracking, for one image."""

    @property
    def method(self) -> str:
        """Its name in results and manifests."""
        ...

    def find_changes(self, base: Manifest) -> ChangeClaim:
        """Return what may have changed between the point in time of `base` and the one that is read; may raise ImageError."""
        ...

    def keep(self, snapshot: str) -> str | None:
        """Keep what the next backup needs in order to find what changed since the one that is about to be committed.

        What was kept before stays. Nothing is raised: returns what went wrong, for people, or None.

        Args:
            snapshot: id of the snapshot that is about to be committed.
        """
        ...

    def settle(self, snapshot: str) -> None:
        """Remove what was kept of other snapshots, now that this one is committed. Nothing is raised."""
        ...


class KeptImage(Protocol):
    """An image as it was in the base, or so it is hoped: what is read is verified by whoever reads it. Any thread."""

    @property
    def size_bytes(self) -> int:
        """Its size."""
        ...

    def read(self, ranges: Ranges, out: memoryview) -> bool:
        """Fill the parts of `out` that `ranges` name; return whether all of them could be read."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


@runtime_checkable
class KeepsImages(Protocol):
    """A tracker that keeps the whole image of the base."""

    def open_image(self, base: Manifest) -> KeptImage | None:
        """Return the image as it was in `base`, which the caller closes; None if it is not there."""
        ...
