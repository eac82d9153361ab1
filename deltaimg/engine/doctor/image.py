# SPDX-License-Identifier: Apache-2.0
"""What a backup of an image could do: how it would be frozen and tracked, and why not better; why the last one did what it did.

Reads   the image's beginning and its place; of a repository the newest manifests of the image.
Makes   a clone without a name, of an image file, to see whether that works; it is gone at once. Of LVM and in a qemu nothing
        is made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress

from msgspec import Struct

from deltaimg.errors import FreezeFailed, IntegrityError, ObjectNotFound
from deltaimg.format.manifest import Manifest
from deltaimg.freeze.choose import find_obstacles
from deltaimg.freeze.methods import LVM, QMP, RBD
from deltaimg.freeze.qmp_disk import examine_disk
from deltaimg.image.nbd.address import is_nbd_address
from deltaimg.image.open_source import open_source
from deltaimg.image.qemu.address import find_monitor, is_monitor_address
from deltaimg.image.qemu.formats import find_named_driver
from deltaimg.image.qemu.qemu_img import PROGRAM
from deltaimg.image.rbd.address import is_rbd_address
from deltaimg.image.uses import is_file_locked
from deltaimg.repo.repository import Repository
from deltaimg.tracking import bitmap, thin
from deltaimg.tracking.interface import THIN

_BITMAP_DRIVER, _BITMAP_PROGRAMS = "qcow2", ("qemu-nbd", PROGRAM)
_OPEN_ELSEWHERE = "another program has the file open: name the guest, or the disk by the monitor of its qemu"


class Way(Struct, frozen=True):
    """A way to freeze or to track an image."""

    name: str
    obstacle: str
    """Why it does not work; empty if it does."""


class LastBackup(Struct, frozen=True):
    """The newest snapshot of an image, and why it is as it is."""

    manifest: Manifest
    why_full: str
    """Why it was compared with nothing; empty if it was."""
    why_scanned: str
    """Why everything was read; empty if it was not."""


class ImageOutlook(Struct, frozen=True):
    """What a backup of an image could do. The first way without an obstacle is what `auto` takes."""

    path: str
    image: str
    """Its name in the repository; empty where none is known."""
    size_bytes: int | None
    writer: str | None
    """What may write to it now, in words that complete "it is ..."."""
    freezing: tuple[Way, ...]
    tracking: tuple[Way, ...]
    last: LastBackup | None

    @property
    def best_freezing(self) -> str:
        """What `--freeze auto` would use."""
        return next((way.name for way in self.freezing if not way.obstacle), "none")

    @property
    def best_tracking(self) -> str:
        """What `--track auto` would use."""
        return next((way.name for way in self.tracking if not way.obstacle), "scan")


def examine_image(path: str, image: str = "", repository: Repository | None = None) -> ImageOutlook:
    """Look at a file, a device, an export, an image of Ceph or a disk of a running qemu, and at its snapshots.

    Raises:
        ImageError: it cannot be read. UsageError: an address that is not valid.
    """
    last = None if repository is None or not image else _find_last(repository, image)
    if is_monitor_address(path):
        return _examine_live(path, image, last)
    with closing(open_source(path)) as source:
        size_bytes = source.size_bytes
        writer = None if source.is_sequential or is_nbd_address(path) else source.find_writer()
    if is_open_elsewhere := is_file_locked(path):
        writer = writer or "locked by another program, as a running virtual machine locks its disks"
    freezing = tuple(Way(name, obstacle) for name, obstacle in find_obstacles(path))
    tracking = tuple(_find_tracking(path, freezing, is_open_elsewhere=is_open_elsewhere))
    return ImageOutlook(path, image, size_bytes, writer, freezing, tracking, last)


def list_images(repository: Repository, path: str | None = None) -> dict[str, str]:
    """Return the images of a repository whose newest snapshot is of a file or device that is here, with its path.

    Args:
        path: only those of this file or device.
    """
    found = {}
    for image in sorted({ref.image for ref in repository.list_snapshots()}):
        with suppress(IntegrityError, ObjectNotFound):
            source = repository.load_manifest(repository.list_snapshots(image)[-1]).source
            if _is_here(source) if path is None else os.path.realpath(source) == os.path.realpath(path):
                found[image] = source
    return found


def _is_here(source: str) -> bool:
    return os.path.exists(find_monitor(source) if is_monitor_address(source) else source)


def _examine_live(path: str, image: str, last: LastBackup | None) -> ImageOutlook:
    """Ask a running qemu for a disk; why it does not answer is why the disk cannot be frozen."""
    size_bytes, obstacle = None, _list_missing(PROGRAM)
    try:
        size_bytes = examine_disk(path).size_bytes
    except FreezeFailed as error:
        obstacle = error.problem
    freezing, tracking = Way(QMP, obstacle), Way(bitmap.METHOD, obstacle)
    return ImageOutlook(path, image, size_bytes, "a disk of a running qemu", (freezing,), (tracking,), last)


def _list_missing(*programs: str) -> str:
    """Return which programs are not installed, in words; empty if all are."""
    missing = [each for each in programs if shutil.which(each) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


def _find_tracking(path: str, freezing: tuple[Way, ...], *, is_open_elsewhere: bool) -> Iterator[Way]:
    if is_rbd_address(path):
        yield Way(RBD, next((way.obstacle for way in freezing if way.name == RBD), ""))
        return
    driver = find_named_driver(path)
    if is_nbd_address(path):
        yield Way("bitmap", "of an export by --bitmap alone, which names the bitmap of its server")
    elif driver == _BITMAP_DRIVER:
        yield Way("bitmap", _list_missing(*_BITMAP_PROGRAMS) or (_OPEN_ELSEWHERE if is_open_elsewhere else ""))
    else:
        yield Way("bitmap", "the image is no qcow2 file")
    reflink = next((way.obstacle for way in freezing if way.name == "reflink"), "the image is no file")
    if driver is not None and not reflink:
        reflink = "clones of a file that holds an image in a format of its own say nothing of the image"
    yield Way("reflink", reflink)
    if any(way.name == LVM for way in freezing):
        yield Way(THIN, thin.find_obstacle(path))


def _find_last(repository: Repository, image: str) -> LastBackup | None:
    refs = repository.list_snapshots(image)
    for ref in reversed(refs):
        with suppress(IntegrityError, ObjectNotFound):
            manifest = repository.load_manifest(ref)
            return LastBackup(manifest, _explain_full(manifest, len(refs)), _explain_scan(manifest))
    return None


def _explain_full(manifest: Manifest, count: int) -> str:
    if manifest.base is not None:
        return ""
    return "it was the first" if count == 1 else "it was the first, or the one before it could not be read"


def _explain_scan(manifest: Manifest) -> str:
    if manifest.tracking is None:
        return "no tracking was asked for: --track auto reads only what changed, where that works"
    if manifest.tracking.method != "scan":
        return ""
    return manifest.tracking.reason or "no snapshot could be the base"
