# SPDX-License-Identifier: Apache-2.0
"""An image of Ceph that is open: its size, its bytes, its snapshots, what differs between two of them.

Always  what fast-diff says is asked for from the image's beginning in whole objects. Before 2022 it gave wrong offsets
        elsewhere, and left out what a clone has of its parent: of a clone it is not asked at all.
Memory  16 bytes an extent that is listed.
Source  rbd/librbd.h; for the faults Ceph's issues 53784, 53787.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final

import numpy as np
from msgspec import Struct

from deltaimg.image.extents import Bounds, merge_bounds
from deltaimg.image.rbd.address import RbdAddress
from deltaimg.image.rbd.cluster import check, open_pool
from deltaimg.image.rbd.library import RbdFailure, RbdNotFound, load_library
from deltaimg.image.reader import ReadFailure
from deltaimg.threads import delaying_interruption

_FAST_DIFF, _FAST_DIFF_INVALID = 1 << 4, 1 << 1
"""Bits of an image's features, and of its flags."""
_AT_FIRST: Final = 64
_MOST: Final = 1 << 16
"""Snapshots and watchers that there is room for, to begin with and at most."""
_OF_THE_OBJECT: Final = (errno.EIO, errno.EBADMSG, errno.EILSEQ)
"""Where one object cannot be read; any other error is one of the cluster."""
_MOST_CLEARED_BYTES: Final = 1 << 30
"""In one request; librbd takes less than 2 GiB."""


class RbdSnapshot(Struct, frozen=True):
    """A snapshot of an image."""

    name: str
    id: int
    """Never used again in its pool."""
    size_bytes: int


class RbdImage:
    """An open image, or a snapshot of one. Any thread may read."""

    def __init__(self, handle: Any, resources: ExitStack) -> None:
        """Args: resources: closed by `close`, the image first."""
        self._handle, self._resources = handle, resources
        library = load_library()
        self._rbd, self._ffi = library.rbd, library.ffi

    @property
    def size_bytes(self) -> int:
        """Its size; raises RbdFailure."""
        return self._ask("rbd_get_size", "uint64_t *", "its size is not known")

    @property
    def modified_at(self) -> tuple[int, int]:
        """When librbd last noted that it was written to, in seconds and nanoseconds: once a minute at most."""
        found = self._ffi.new("struct timespec *")
        check(self._rbd.rbd_get_modify_timestamp(self._handle, found), "its time of change is not known")
        return found.tv_sec, found.tv_nsec

    def read(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; return how many bytes there were. Raises ReadFailure or RbdFailure."""
        place = self._ffi.from_buffer("char[]", buffer, require_writable=True)
        status: int = self._rbd.rbd_read(self._handle, offset, len(buffer), place)
        if -status in _OF_THE_OBJECT:
            raise ReadFailure(offset, -status)
        return check(status, f"cannot be read at byte {offset}")

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`; raises RbdFailure."""
        place = self._ffi.from_buffer("char[]", data)
        check(self._rbd.rbd_write(self._handle, offset, len(data), place), f"cannot be written at byte {offset}")

    def clear(self, offset: int, length: int) -> None:
        """Make a stretch read as zeros, and take no room where that is possible; raises RbdFailure."""
        for start in range(offset, offset + length, _MOST_CLEARED_BYTES):
            count = min(_MOST_CLEARED_BYTES, offset + length - start)
            problem = f"cannot be written at byte {start}"
            check(self._rbd.rbd_write_zeroes(self._handle, start, count, 0, 0), problem)

    def flush(self) -> None:
        """Wait until all that was written is durable; raises RbdFailure."""
        check(self._rbd.rbd_flush(self._handle), "cannot be written")

    def find_data(self) -> Bounds:
        """Return what the image has objects for; all else reads as zeros. Raises RbdFailure."""
        return self._diff(None, 0, self.size_bytes, is_whole=self._has_fast_diff and not self._is_clone)

    def find_changes(self, since: str) -> Bounds:
        """Return what may differ from an earlier snapshot, discards included; raises RbdFailure.

        Args:
            since: its name.
        """
        size_bytes = self.size_bytes
        if not self._has_fast_diff or self._is_clone:
            return self._diff(since, 0, size_bytes, is_whole=False)
        # Which objects: the object maps of both. What of these: their OSDs, one question for each.
        objects = self._diff(since, 0, size_bytes, is_whole=True)
        parts = [self._diff(since, start, end - start, is_whole=False) for start, end in objects.tolist()]
        return merge_bounds(np.concatenate((np.empty((0, 2), np.int64), *parts)))

    def list_snapshots(self) -> list[RbdSnapshot]:
        """Return the snapshots that there were when the image was opened; raises RbdFailure."""
        count = self._ffi.new("int *", _AT_FIRST)
        while True:
            found = self._ffi.new("rbd_snap_info_t[]", count[0])
            status = self._rbd.rbd_snap_list(self._handle, found, count)
            if status != -errno.ERANGE or count[0] > _MOST:
                break
        listed = found[0 : check(status, "its snapshots cannot be listed")]
        snapshots = [RbdSnapshot(os.fsdecode(self._ffi.string(each.name)), each.id, each.size) for each in listed]
        self._rbd.rbd_snap_list_end(found)
        return snapshots

    def list_watchers(self) -> list[str]:
        """Return the addresses of the clients that have the image open to write; raises RbdFailure."""
        count = self._ffi.new("size_t *", _AT_FIRST)
        while True:
            found = self._ffi.new("rbd_image_watcher_t[]", count[0])
            status = self._rbd.rbd_watchers_list(self._handle, found, count)
            if status != -errno.ERANGE or count[0] > _MOST:
                break
        check(status, "its clients cannot be listed")
        watchers = [os.fsdecode(self._ffi.string(each.addr)) for each in found[0 : count[0]]]
        self._rbd.rbd_watchers_list_cleanup(found, count[0])
        return watchers

    def create_snapshot(self, name: str) -> None:
        """Make a snapshot; raises RbdFailure."""
        self._change("rbd_snap_create", f"snapshot {name} cannot be made", name)

    def rename_snapshot(self, name: str, new_name: str) -> None:
        """Give a snapshot another name; who has it open reads on. Raises RbdFailure."""
        self._change("rbd_snap_rename", f"snapshot {name} cannot be renamed", name, new_name)

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot; raises RbdFailure."""
        self._change("rbd_snap_remove", f"snapshot {name} cannot be removed", name)

    def close(self) -> None:
        """Close it, and the connection."""
        self._resources.close()

    @property
    def _has_fast_diff(self) -> bool:
        features = self._ask("rbd_get_features", "uint64_t *", "its features are not known")
        flags = self._ask("rbd_get_flags", "uint64_t *", "its flags are not known")
        return bool(features & _FAST_DIFF) and not flags & _FAST_DIFF_INVALID

    @property
    def _is_clone(self) -> bool:
        return bool(self._ask("rbd_get_overlap", "uint64_t *", "it is not known whether it is a clone"))

    def _ask(self, function: str, kind: str, problem: str) -> int:
        found = self._ffi.new(kind)
        check(getattr(self._rbd, function)(self._handle, found), problem)
        return int(found[0])

    def _change(self, function: str, problem: str, *names: str) -> None:
        # It is never cut off between the request and its answer.
        with delaying_interruption():
            check(getattr(self._rbd, function)(self._handle, *map(os.fsencode, names)), problem)

    def _diff(self, since: str | None, offset: int, length: int, *, is_whole: bool) -> Bounds:
        """Return what differs from a snapshot, or from nothing; raises RbdFailure."""
        found = array("q")

        def take(start: int, count: int, _exists: int, _argument: object) -> int:
            found.extend((start, start + count))
            return 0

        callback = self._ffi.callback("int(uint64_t, size_t, int, void *)", take, error=-errno.EINVAL)
        base = self._ffi.NULL if since is None else os.fsencode(since)
        status = self._rbd.rbd_diff_iterate2(self._handle, base, offset, length, 1, is_whole, callback, self._ffi.NULL)
        check(status, "Ceph does not say what differs")
        return merge_bounds(np.array(found, np.int64).reshape(-1, 2))


def open_rbd_image(address: RbdAddress, *, is_writable: bool = False) -> RbdImage:
    """Open an image; it is to be closed. Raises RbdFailure.

    Args:
        is_writable: for making and removing snapshots; who else has it open to write sees that.
    """
    library = load_library()
    rbd, ffi = library.rbd, library.ffi
    with ExitStack() as resources:
        context = resources.enter_context(open_pool(address.pool, address.namespace))
        opened = ffi.new("rbd_image_t *")
        function = rbd.rbd_open if is_writable else rbd.rbd_open_read_only
        status = function(context, os.fsencode(address.image), opened, ffi.NULL)
        if status == -errno.ENOENT:
            place = "/".join(filter(None, (address.pool, address.namespace)))
            raise RbdNotFound(
                f"there is no image {address.image} in {place}", hint=f"'rbd ls {place}' lists its images"
            )
        check(status, "cannot be opened to write" if is_writable else "cannot be opened")
        resources.callback(rbd.rbd_close, opened[0])
        if address.snapshot:
            status = rbd.rbd_snap_set(opened[0], os.fsencode(address.snapshot))
            if status == -errno.ENOENT:
                hint = f"'rbd snap ls {address.at('').spec}' lists its snapshots"
                raise RbdFailure(f"the image has no snapshot {address.snapshot}", hint=hint)
            check(status, f"snapshot {address.snapshot} cannot be opened")
        return RbdImage(opened[0], resources.pop_all())


@contextmanager
def opened_rbd_image(address: RbdAddress, *, is_writable: bool = False) -> Iterator[RbdImage]:
    """Open an image for the time of a context; raises RbdFailure."""
    with closing(open_rbd_image(address, is_writable=is_writable)) as image:
        yield image


def create_rbd_image(address: RbdAddress, size_bytes: int) -> None:
    """Make an image of zeros, with the features and the object size that Ceph is configured to use; raises RbdFailure."""
    library = load_library()
    with open_pool(address.pool, address.namespace) as context:
        usual = library.ffi.new("int *", 0)
        check(library.rbd.rbd_create(context, os.fsencode(address.image), size_bytes, usual), "cannot be made")


def rename_rbd_image(address: RbdAddress, name: str) -> None:
    """Give an image another name, which no other has; raises RbdFailure."""
    rbd = load_library().rbd
    with open_pool(address.pool, address.namespace) as context:
        check(rbd.rbd_rename(context, os.fsencode(address.image), os.fsencode(name)), f"cannot be called {name}")


def remove_rbd_image(address: RbdAddress) -> None:
    """Remove an image that nothing has open; raises RbdFailure."""
    rbd = load_library().rbd
    with open_pool(address.pool, address.namespace) as context:
        check(rbd.rbd_remove(context, os.fsencode(address.image)), "cannot be removed")
