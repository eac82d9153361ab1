# SPDX-License-Identifier: Apache-2.0
"""The folder in which a host keeps what makes its next backups faster and smaller: one for all repositories and images.

    <folder>/<repository id>/location              where the repository is, as text
    <folder>/<repository id>/<image>.anchors       where in the stored content similar content can be found
    <folder>/<repository id>/<image>.content/<record id>.content

All of it may be removed at any time. What it takes is bounded, over all images: at the end of a backup, what was used longest
ago is removed first, content before anchors.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from msgspec import Struct, field

ANCHORS, CONTENT = ".anchors", ".content"
_LOCATION = "location"
_REPOSITORY_ID = re.compile(r"[0-9a-f]{32}")
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}")
_TEMPORARY_AGE_S = 86400.0
_MAX_LOCATION_BYTES = 1 << 16


class CachedFile(Struct):
    """One file: its size, and when it was used last, in seconds since 1970."""

    path: str
    size_bytes: int
    used_s: float
    is_anchors: bool


class CachedImage(Struct):
    """What is kept of one image."""

    repository_id: str
    location: str | None
    """Where its repository was when it was last backed up; None if that is not known."""
    image: str
    files: list[CachedFile] = field(default_factory=list)

    @property
    def anchor_bytes(self) -> int:
        """Size of the table of anchors."""
        return sum(each.size_bytes for each in self.files if each.is_anchors)

    @property
    def content_bytes(self) -> int:
        """Size of the kept content."""
        return sum(each.size_bytes for each in self.files if not each.is_anchors)

    @property
    def used_s(self) -> float:
        """When any of it was last used, in seconds since 1970."""
        return max((each.used_s for each in self.files), default=0.0)


class CacheFolder:
    """The folder at `path`, which need not exist. Reading what is there raises nothing; what cannot be read is not there."""

    def __init__(self, path: str) -> None:
        self.path = path

    def open_image(self, repository_id: str, image: str) -> ImageCache:
        """Return where an image's part is."""
        return ImageCache(self, repository_id, image)

    def note_location(self, repository_id: str, location: str) -> None:
        """Remember where a repository is, which does not depend on the current folder; raises OSError."""
        folder = os.path.join(self.path, repository_id)
        data = os.fsencode(location)
        if _read_location(folder) == data:
            return
        os.makedirs(folder, 0o700, exist_ok=True)
        temporary = os.path.join(folder, f"{_LOCATION}.{secrets.token_hex(4)}")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
            os.replace(temporary, os.path.join(folder, _LOCATION))
        finally:
            with suppress(OSError):
                os.unlink(temporary)

    def list_images(self) -> list[CachedImage]:
        """Return what is kept of each image, by repository and name."""
        found: dict[tuple[str, str], CachedImage] = {}
        for repository in _scan(self.path):
            if not _REPOSITORY_ID.fullmatch(repository.name):
                continue
            noted = _read_location(repository.path)
            location = os.fsdecode(noted) if noted else None
            for entry in _scan(repository.path):
                image, suffix = os.path.splitext(entry.name)
                if suffix not in (ANCHORS, CONTENT):
                    continue
                key = repository.name, image
                kept = found.setdefault(key, CachedImage(repository.name, location, image))
                kept.files += _list_files(entry, is_anchors=suffix == ANCHORS)
        images = [each for each in found.values() if each.files]
        return sorted(images, key=lambda each: (each.location or "", each.repository_id, each.image))

    def trim(self, budget_bytes: int) -> None:
        """Remove what was used longest ago until all of it takes at most `budget_bytes`, and what dead runs left behind."""
        self._remove_temporaries()
        files = [each for image in self.list_images() for each in image.files]
        excess = sum(each.size_bytes for each in files) - budget_bytes
        for each in sorted(files, key=lambda each: (each.is_anchors, each.used_s)):
            if excess <= 0:
                break
            with suppress(OSError):
                os.unlink(each.path)
                excess -= each.size_bytes
        self._remove_empty_folders()

    def remove(self, images: Iterable[CachedImage]) -> int:
        """Remove all that is kept of images; return how many bytes that were. Raises OSError."""
        freed = 0
        for image in images:
            for each in image.files:
                with suppress(FileNotFoundError):
                    os.unlink(each.path)
                    freed += each.size_bytes
        self._remove_empty_folders()
        return freed

    def _remove_temporaries(self) -> None:
        """Remove temporary files that are too old to be of a run at work."""
        for repository in _scan(self.path):
            for entry in _scan(repository.path):
                if not _TEMPORARY.fullmatch(os.path.splitext(entry.name)[1]):
                    continue
                with suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > _TEMPORARY_AGE_S:
                        os.unlink(entry.path)

    def _remove_empty_folders(self) -> None:
        for repository in _scan(self.path):
            if not _REPOSITORY_ID.fullmatch(repository.name):
                continue
            for entry in _scan(repository.path):
                if entry.name.endswith(CONTENT):
                    _remove_if_empty(entry.path)
            if all(entry.name == _LOCATION for entry in _scan(repository.path)):
                with suppress(OSError):
                    os.unlink(os.path.join(repository.path, _LOCATION))
                _remove_if_empty(repository.path)


def _list_files(entry: os.DirEntry[str], *, is_anchors: bool) -> Iterator[CachedFile]:
    """Yield the file that an entry is, or those in the folder that it is."""
    with suppress(OSError):
        status = entry.stat(follow_symlinks=False)
        if is_anchors and entry.is_file(follow_symlinks=False):
            yield CachedFile(entry.path, status.st_size, status.st_mtime, is_anchors=True)
        elif not is_anchors and entry.is_dir(follow_symlinks=False):
            for each in _scan(entry.path):
                if each.name.endswith(CONTENT) and each.is_file(follow_symlinks=False):
                    yield from _describe_content(each)


def _describe_content(entry: os.DirEntry[str]) -> Iterator[CachedFile]:
    with suppress(OSError):
        status = entry.stat(follow_symlinks=False)
        yield CachedFile(entry.path, status.st_size, status.st_mtime, is_anchors=False)


def _scan(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _read_location(folder: str) -> bytes | None:
    try:
        with open(os.path.join(folder, _LOCATION), "rb") as file:
            return file.read(_MAX_LOCATION_BYTES)
    except OSError:
        return None


def _remove_if_empty(folder: str) -> None:
    with suppress(OSError):
        os.rmdir(folder)


class ImageCache(Struct, frozen=True):
    """One image's part of the folder; none of it need exist."""

    folder: CacheFolder
    repository_id: str
    image: str

    @property
    def anchors_path(self) -> str:
        """The file of the image's anchors."""
        return os.path.join(self.folder.path, self.repository_id, self.image + ANCHORS)

    @property
    def content_path(self) -> str:
        """The folder of content of the image's records."""
        return os.path.join(self.folder.path, self.repository_id, self.image + CONTENT)

    def list_others(self, most: int) -> list[ImageCache]:
        """Return other images of the repository whose anchors are kept, the latest written first."""
        found = []
        for entry in _scan(os.path.dirname(self.anchors_path)):
            image, suffix = os.path.splitext(entry.name)
            if suffix == ANCHORS and image != self.image:
                with suppress(OSError):
                    found.append((entry.stat().st_mtime_ns, image))
        return [ImageCache(self.folder, self.repository_id, image) for _, image in sorted(found, reverse=True)[:most]]
