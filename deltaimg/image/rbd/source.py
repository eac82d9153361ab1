# SPDX-License-Identifier: Apache-2.0
"""An image of Ceph, or a snapshot of one, as an image source."""

from __future__ import annotations

from deltaimg.arrays import Ranges
from deltaimg.errors import ImageError
from deltaimg.image.extents import DATA, HOLE, Extents
from deltaimg.image.rbd.address import RbdAddress
from deltaimg.image.rbd.image import RbdImage, open_rbd_image, opened_rbd_image
from deltaimg.image.rbd.library import RbdFailure
from deltaimg.image.reader_source import ReaderSource


class RbdReader:
    """Reads an image at any offset; librbd has the requests of all threads on their way at once."""

    def __init__(self, image: RbdImage) -> None:
        self._image = image

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`, fewer bytes only at the end; raises ReadFailure or RbdFailure."""
        return self._image.read(offset, buffer)

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` again; raises ReadFailure or RbdFailure."""
        for offset, length, start in ranges.tolist():
            self._image.read(offset, out[start : start + length])


class RbdSource(ReaderSource):
    """An image, as it is now or as one of its snapshots."""

    def __init__(
        self, path: str, address: RbdAddress, image: RbdImage, *, use_holes: bool = True, is_salvaging: bool = False
    ) -> None:
        """Args: path: as messages and the manifest have it. image: closed by `close`. Raises RbdFailure."""
        super().__init__(path, RbdReader(image), size_bytes=image.size_bytes, is_salvaging=is_salvaging)
        self._address, self._image, self._use_holes = address, image, use_holes
        self._state = self._find_state(image)

    def extents(self) -> Extents:
        """Return content where Ceph has objects, and holes; raises ImageError."""
        if not self._use_holes:
            return Extents.uniform(self.size_bytes)
        try:
            return Extents.from_bounds(self._image.find_data(), self.size_bytes, inside=DATA, outside=HOLE)
        except RbdFailure as failure:
            raise self.describe(failure) from failure

    def find_writer(self) -> str | None:
        """Return which client has the image open to write; None for a snapshot. Raises ImageError."""
        if self._address.snapshot:
            return None
        try:
            watchers = self._image.list_watchers()
        except RbdFailure as failure:
            raise self.describe(failure) from failure
        return f"open in another client of Ceph ({', '.join(watchers[:3])})" if watchers else None

    def find_change(self) -> str | None:
        """Return how the image changed since it was opened, or that the snapshot is gone; raises ImageError.

        What is read of a snapshot that was removed may be anything.
        """
        try:
            with opened_rbd_image(self._address.at("")) as now:
                state = self._find_state(now)
                is_open = not self._address.snapshot and bool(now.list_watchers())
        except RbdFailure as failure:
            raise self.describe(failure) from failure
        if state == self._state and not is_open:
            return None
        if self._address.snapshot:
            return f"snapshot {self._address.snapshot} was removed while it was read"
        return "was opened by another client of Ceph, or written to, while it was read"

    def find_new_size(self) -> int | None:
        """Return how many bytes an image has now, if it was resized since; None for a snapshot. Raises ImageError."""
        if self._address.snapshot:
            return None
        try:
            with opened_rbd_image(self._address) as now:
                return None if now.size_bytes == self.size_bytes else now.size_bytes
        except RbdFailure as failure:
            raise self.describe(failure) from failure

    def close(self) -> None:
        """Close the image, and the connection to the cluster."""
        self._image.close()

    def _find_state(self, image: RbdImage) -> object:
        """Return what differs where the image changed: for a snapshot whether it is there."""
        if self._address.snapshot:
            return [each.id for each in image.list_snapshots() if each.name == self._address.snapshot]
        return image.size_bytes, image.modified_at


def open_rbd_source(
    address: RbdAddress, *, name: str | None = None, use_holes: bool = True, is_salvaging: bool = False
) -> RbdSource:
    """Open an image or a snapshot of one; raises ImageError.

    Args:
        name: what it is called, where that is not its address. use_holes, is_salvaging: see `open_source`.
    """
    path = name or address.location
    try:
        image = open_rbd_image(address)
        try:
            return RbdSource(path, address, image, use_holes=use_holes, is_salvaging=is_salvaging)
        except BaseException:
            image.close()
            raise
    except RbdFailure as failure:
        raise ImageError(path, failure.problem, hint=failure.hint) from failure
