# SPDX-License-Identifier: Apache-2.0
"""What a mounted repository shows: a folder for each image, and in it a file for each snapshot.

    vm1/2026-11-30T01-00-00Z-462c776d.raw    the image as it was then, in UTC; `.qcow2` and the like where it was stored so
    vm1/latest.raw                           a link to the newest

Names hold no colon, which rsync, scp and qemu take for the end of a host or of a protocol.

Memory  the manifests of the images whose folders were looked at.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from msgspec import Struct

from deltaimg.errors import IntegrityError, ObjectNotFound, UnsupportedFormat
from deltaimg.format.manifest import Manifest
from deltaimg.repo.repository import Repository, SnapshotRef

FRESH_S = 5.0
"""For so long a listing is not read again: a backup made meanwhile appears that much later."""
_LATEST = "latest"
_TIME_FORMAT = "%Y-%m-%dT%H-%M-%SZ"


class Folder(Struct, frozen=True):
    """The names in a folder, and when it changed last: at the newest snapshot in it, in ns since 1970."""

    names: tuple[str, ...]
    changed_ns: int


class Link(Struct, frozen=True):
    """A name that stands for another in the same folder, and the time of that, in ns since 1970."""

    target: str
    changed_ns: int


Entry = Folder | Link | Manifest


class SnapshotTree:
    """Finds entries by path. Any number of threads may use one."""

    def __init__(
        self, repository: Repository, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: warn: called with what is wrong with a snapshot that is left out, once for each."""
        self._repository, self._warn, self._clock = repository, warn, clock
        self._lock = threading.Lock()
        self._refs: dict[str, list[SnapshotRef]] = {}
        self._listed_at: float | None = None
        self._files: dict[str, dict[str, Link | Manifest]] = {}
        """Of each image whose folder was looked at since then."""
        self._manifests: dict[SnapshotRef, Manifest | None] = {}
        """Of what was looked at; None where it cannot be read."""

    def find(self, path: str) -> Entry:
        """Return what `path`, which begins with a slash, stands for.

        Raises:
            FileNotFoundError: nothing. StoreError: the repository cannot be listed.
        """
        parts = [part for part in path.split("/") if part]
        with self._lock:
            self._list()
            if not parts:
                newest = [refs[-1] for refs in self._refs.values()]
                return Folder(tuple(self._refs), max((time_in_ns(ref) for ref in newest), default=0))
            files = self._list_files(parts[0])
        if len(parts) == 1:
            return Folder(tuple(files), max(time_in_ns(each) for each in files.values() if isinstance(each, Manifest)))
        if len(parts) > 2 or parts[1] not in files:
            raise FileNotFoundError(path)
        return files[parts[1]]

    def _list(self) -> None:
        """Read which snapshots there are, unless that was done just now."""
        now = self._clock()
        if self._listed_at is not None and now - self._listed_at < FRESH_S:
            return
        refs: dict[str, list[SnapshotRef]] = {}
        for ref in self._repository.list_snapshots():
            refs.setdefault(ref.image, []).append(ref)
        if not refs:
            self._repository.check_there()
        self._refs, self._files, self._listed_at = refs, {}, now
        gone = self._manifests.keys() - {ref for of_image in refs.values() for ref in of_image}
        for ref in gone:
            del self._manifests[ref]

    def _list_files(self, image: str) -> dict[str, Link | Manifest]:
        """Return the files of an image, the oldest first; raises FileNotFoundError."""
        if image in self._files:
            return self._files[image]
        files: dict[str, Link | Manifest] = {}
        newest: Manifest | None = None
        for ref in self._refs.get(image, ()):
            if (manifest := self._load(ref)) is not None:
                files[_name_file(manifest)] = newest = manifest
        if newest is None:
            raise FileNotFoundError(image)
        files[f"{_LATEST}.{_extension_of(newest)}"] = Link(_name_file(newest), time_in_ns(newest))
        self._files[image] = files
        return files

    def _load(self, ref: SnapshotRef) -> Manifest | None:
        if ref not in self._manifests:
            try:
                self._manifests[ref] = self._repository.load_manifest(ref)
            except ObjectNotFound:
                return None  # forgotten since it was listed
            except (IntegrityError, UnsupportedFormat) as error:
                self._manifests[ref] = None
                self._warn(f"{ref.label} is left out: {error}")
        return self._manifests[ref]


def _name_file(manifest: Manifest) -> str:
    return f"{manifest.taken_at.strftime(_TIME_FORMAT)}-{manifest.id[:8]}.{_extension_of(manifest)}"


def _extension_of(manifest: Manifest) -> str:
    return manifest.container or "raw"


def time_in_ns(snapshot: SnapshotRef | Manifest) -> int:
    """Return the second of a snapshot, in ns since 1970: as exact as its name."""
    return int(snapshot.taken_at.timestamp()) * 10**9
