# SPDX-License-Identifier: Apache-2.0
"""Change tracking in Ceph: the snapshot that a backup read stays, and Ceph says what differs between it and the next one.

    deltaimg-<key>-<snapshot id>-<id of the snapshot in Ceph, 16 digits>

The key stands for the repository and the image's name in it. A snapshot gets this name before the backup is committed, and the
one before it is removed afterwards: after a crash at any moment there is that of the newest backup, and perhaps another, which
the next backup removes. It takes the room of the objects that are written to until then.

Whatever becomes of what is kept costs a full scan: removed, or made again under its name, for Ceph never uses an id twice.

Invariant  a snapshot is compared only under the id of the backup that read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

from deltaimg.arrays import Ranges
from deltaimg.errors import UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.freeze.methods import RBD
from deltaimg.freeze.rbd import remove_snapshots
from deltaimg.image.rbd.address import RbdAddress, parse_rbd_address
from deltaimg.image.rbd.image import RbdImage, RbdSnapshot, open_rbd_image, opened_rbd_image
from deltaimg.image.rbd.library import RbdFailure
from deltaimg.image.reader import ReadFailure
from deltaimg.tracking.interface import ChangeClaim

_NAME = re.compile(r"deltaimg-(?P<key>[0-9a-f]{16})-(?P<snapshot>[0-9a-f]{16})-(?P<id>[0-9a-f]{16})")


class RbdTracker:
    """Compares the snapshot that is read with the one that was kept of the base, and keeps it in turn."""

    method = RBD

    def __init__(self, present: RbdAddress, key: str) -> None:
        """Args: present: the snapshot that is read. key: of `reflink.make_key`."""
        self._present, self._key = present, key

    def find_changes(self, base: Manifest) -> ChangeClaim:
        """Return what Ceph calls different between the snapshot that was kept of `base` and the one that is read."""
        try:
            with opened_rbd_image(self._present) as image:
                ours = choose_kept(image.list_snapshots(), self._key)
                kept = ours.get(base.id)
                if kept is None:
                    others = "; the kept one is of another" if ours else ""
                    return ChangeClaim(None, f"no snapshot of Ceph was kept of snapshot {base.label}{others}")
                if kept.size_bytes != base.size_bytes:
                    reason = f"the snapshot that was kept of snapshot {base.label} has another size than that had"
                    return ChangeClaim(None, reason, is_surprising=True)
                return ChangeClaim(image.find_changes(kept.name))
        except RbdFailure as failure:
            return ChangeClaim(None, f"snapshots cannot be compared: {failure.problem}", is_surprising=True)

    def open_image(self, base: Manifest) -> KeptRbdImage | None:
        """Return the snapshot that was kept of `base`, None if there is none; as `KeepsImages` has it."""
        with suppress(RbdFailure):
            with opened_rbd_image(self._present) as image:
                kept = choose_kept(image.list_snapshots(), self._key).get(base.id)
            return None if kept is None else KeptRbdImage(open_rbd_image(self._present.at(kept.name)), kept.size_bytes)
        return None

    def keep(self, snapshot: str) -> str | None:
        """Give the snapshot that was read its name, under which a backup that is about to be committed finds it."""
        name = self._present.snapshot
        try:
            with opened_rbd_image(self._present.at(""), is_writable=True) as image:
                found = next((each for each in image.list_snapshots() if each.name == name), None)
                if found is None:
                    raise RbdFailure(f"snapshot {name} is gone")
                image.rename_snapshot(name, f"deltaimg-{self._key}-{snapshot}-{found.id:016x}")
        except RbdFailure as failure:
            return f"its snapshot is not kept, so that the next backup reads everything: {failure.problem}"
        return None

    def settle(self, snapshot: str) -> None:
        """Remove all others that were kept, now that the snapshot is committed."""
        _remove(self._present, self._key, except_for=snapshot)


class KeptRbdImage:
    """A snapshot that was kept; as `interface.KeptImage` has it."""

    def __init__(self, image: RbdImage, size_bytes: int) -> None:
        """Args: image: closed by `close`."""
        self._image, self.size_bytes = image, size_bytes

    def read(self, ranges: Ranges, out: memoryview) -> bool:
        """Fill parts of `out`; return whether all of them could be read."""
        with suppress(RbdFailure, ReadFailure):
            return all(
                self._image.read(offset, out[start : start + length]) == length
                for offset, length, start in ranges.tolist()
            )
        return False

    def close(self) -> None:
        """Close it."""
        self._image.close()


def choose_kept(snapshots: Iterable[RbdSnapshot], key: str) -> dict[str, RbdSnapshot]:
    """Return those that were kept of an image of a repository, by backup; none that was made again under such a name."""
    matches = ((each, _NAME.fullmatch(each.name)) for each in snapshots)
    return {
        match["snapshot"]: each
        for each, match in matches
        if match and match["key"] == key and int(match["id"], 16) == each.id
    }


def remove_kept_snapshots(path: str, key: str) -> None:
    """Remove what earlier backups kept of an image of Ceph. Nothing is raised."""
    with suppress(UsageError):
        _remove(parse_rbd_address(path), key)


def _remove(address: RbdAddress, key: str, *, except_for: str | None = None) -> None:
    with suppress(RbdFailure):
        with opened_rbd_image(address.at("")) as image:
            matches = ((each.name, _NAME.fullmatch(each.name)) for each in image.list_snapshots())
        names = [name for name, match in matches if match and match["key"] == key and match["snapshot"] != except_for]
        remove_snapshots(address, names)
