# SPDX-License-Identifier: Apache-2.0
"""Change tracking by dirty bitmaps: those that backups begin in a qcow2 file or a running qemu, and one of an NBD server.

    deltaimg-<key>-<snapshot id>[-<backing>]

The key stands for the repository and the image's name in it, the id for the snapshot that was read while the bitmap recorded.
A bitmap is begun before the image is read, under the id that the snapshot will have, and those of other snapshots are removed
once that one is committed. So after a crash at any moment there is a bitmap of the newest snapshot, whichever that is; it
began no later than the reading, and may list too much, never too little. What a file lies over is not recorded: its bitmap
has in its name how those files were, and is of no use once they are others.

Invariant  a bitmap is used only for the snapshot in its name, or in the option that names it, and only if qemu stored it well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress

from deltaimg.errors import ImageError
from deltaimg.format.manifest import Manifest
from deltaimg.image.extents import Bounds
from deltaimg.image.qemu.bitmaps import FileBitmap, add_bitmap, list_bitmaps, remove_bitmap
from deltaimg.image.qemu.chain import identify_backing
from deltaimg.image.qemu.qemu_img import QemuImgFailure
from deltaimg.tracking.interface import ChangeClaim

METHOD = "bitmap"
FindDirty = Callable[[str], Bounds | None]
"""Returns what a bitmap of the open source calls changed; None where the source has no such bitmap."""


class KeptBitmaps:
    """The bitmaps that backups of one image keep of one disk: the one that is to begin, and earlier ones."""

    def __init__(self, key: str, snapshot: str | None, backing: str = "") -> None:
        """Remember what to look for.

        Args:
            key: of `reflink.make_key`. snapshot: id that the snapshot will have; None for a dry run, which begins none.
            backing: of `identify_backing`.
        """
        self._prefix, self._suffix = f"deltaimg-{key}-", f"-{backing}" if backing else ""
        self._found: list[FileBitmap] = []
        self._is_settled = False
        self.new = "" if snapshot is None else self.name(snapshot)
        """The name of the bitmap that is to begin; empty if none is to."""
        self.problem = ""
        """Why there is no new bitmap, in words."""

    def name(self, snapshot: str) -> str:
        """Return the name of the bitmap that began with a snapshot, over what the disk lies over now."""
        return self._prefix + snapshot + self._suffix

    def take_found(self, found: Sequence[FileBitmap]) -> None:
        """Take note of the bitmaps that the disk has: those of other programs, and of other images, are left alone."""
        pattern = re.compile(re.escape(self._prefix) + r"[0-9a-f]{16}(-[0-9a-f]{8})?")
        self._found = [each for each in found if pattern.fullmatch(each.name)]

    @property
    def usable(self) -> tuple[str, ...]:
        """The names of the earlier bitmaps that say something: the source is to be opened with them."""
        return tuple(each.name for each in self._found if not each.problem)

    @property
    def stale(self) -> tuple[str, ...]:
        """The names of those that are to be removed; none before the new one has a snapshot."""
        return tuple(each.name for each in self._found) if self._is_settled and not self.problem else ()

    def explain_absence(self, base: Manifest) -> ChangeClaim:
        """Return why there is no bitmap of the base that says something."""
        for each in self._found:
            if each.name == self.name(base.id):
                problem = each.problem or "cannot be read"
                return ChangeClaim(None, f"the dirty bitmap of snapshot {base.label} {problem}", is_surprising=True)
            if each.name.startswith(self._prefix + base.id):
                problem = f"the files that it lies over were exchanged or written to since snapshot {base.label}"
                return ChangeClaim(None, problem, is_surprising=True)
        if not self._found and self.problem:
            return ChangeClaim(None, self.problem)
        others = "; the disk has one of another snapshot" if self._found else ""
        return ChangeClaim(None, f"no dirty bitmap was begun for snapshot {base.label}{others}")

    def note_commit(self) -> None:
        """Note that the snapshot is committed."""
        self._is_settled = True


class FileBitmaps(KeptBitmaps):
    """Those in a qcow2 file, from before it is opened until after it is closed."""

    def __init__(self, path: str, key: str, snapshot: str | None) -> None:
        """Args: path: of the file; for the others see `KeptBitmaps`."""
        backing = ""
        with suppress(ImageError):  # which is raised when it is opened
            backing = identify_backing(path)
        super().__init__(key, snapshot, backing)
        self._path = path

    def begin(self) -> None:
        """Begin the bitmap of the snapshot that is about to be made. Nothing is raised: see `problem`."""
        try:
            self.take_found(list_bitmaps(self._path))
            if self.new:
                add_bitmap(self._path, self.new)
        except QemuImgFailure as failure:
            self.problem = str(failure)

    def end(self) -> None:
        """Remove the bitmaps of other snapshots, if this one was committed; the file is closed by now. Nothing is raised."""
        for name in self.stale:
            with suppress(QemuImgFailure):
                remove_bitmap(self._path, name)


class KeptBitmap:
    """Asks the bitmap that an earlier backup has begun."""

    method = METHOD

    def __init__(self, kept: KeptBitmaps, find_dirty: FindDirty) -> None:
        self._kept, self._find_dirty = kept, find_dirty

    def find_changes(self, base: Manifest) -> ChangeClaim:
        """Return what was written since the bitmap of the base began."""
        name = self._kept.name(base.id)
        changed = self._find_dirty(name) if name in self._kept.usable else None
        return self._kept.explain_absence(base) if changed is None else ChangeClaim(changed)

    def keep(self, snapshot: str) -> str | None:  # noqa: ARG002  it has had its bitmap since before it was read
        """Return why the next backup reads everything, if it does."""
        problem = self._kept.problem
        return f"no dirty bitmap was begun, so that the next backup reads everything: {problem}" if problem else None

    def settle(self, snapshot: str) -> None:  # noqa: ARG002
        """Have the other bitmaps removed once the disk is closed."""
        self._kept.note_commit()


class NamedBitmap:
    """Asks a bitmap of an NBD server, which another program has begun with a snapshot that the operator names."""

    method = METHOD

    def __init__(self, bitmap: str, snapshot: str, find_dirty: FindDirty) -> None:
        """Args: snapshot: id, or its first 8 digits or more."""
        self._bitmap, self._snapshot, self._find_dirty = bitmap, snapshot, find_dirty

    def find_changes(self, base: Manifest) -> ChangeClaim:
        """Return what was written since the bitmap began, if that was with the base."""
        if not base.id.startswith(self._snapshot):
            reason = f"bitmap '{self._bitmap}' is of changes since snapshot {self._snapshot}, and the base is {base.id}"
            return ChangeClaim(None, reason, is_surprising=True)
        changed = self._find_dirty(self._bitmap)
        if changed is None:
            return ChangeClaim(None, f"the server has no bitmap '{self._bitmap}'", is_surprising=True)
        return ChangeClaim(changed)

    def keep(self, snapshot: str) -> str | None:  # noqa: ARG002
        """Keep nothing: another program tracks."""
        return None

    def settle(self, snapshot: str) -> None:
        """Do nothing."""
