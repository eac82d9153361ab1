# SPDX-License-Identifier: Apache-2.0
"""The file or device that a run writes to: the copy itself, with an undo journal, or a new file that will replace it.

    in-place   block devices, and files where the file system cannot clone them: each group of blocks is in the journal, on the
               disk, before it is overwritten. What an image that became smaller leaves behind its end goes last.
    clone      a clone of the copy that shares its blocks; it replaces the copy in one step
    new        an empty file, where there is no copy yet

Always  after a cut at any point the copy is the old one, or the new one, or the journal says how to make it the old one. What
        arrived before the cut is kept for the next run, which continues.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from deltaimg.arrays import Ranges, distinct, ranges_of_blocks
from deltaimg.engine.mirror.journal import FoundJournal, Journal, begin_journal, remove_journal
from deltaimg.engine.mirror.place import CopyPlace
from deltaimg.engine.mirror.table import Blocks
from deltaimg.errors import ImageError, ImageInUse, TargetTooSmall
from deltaimg.format.mirror import BLOCK_BYTES, MAX_UNDO_BLOCKS, MirrorState
from deltaimg.image.allocation import clear_range
from deltaimg.image.attributes import copy_attributes
from deltaimg.image.block_devices import read_device_bytes
from deltaimg.image.cloning import clone_content
from deltaimg.image.descriptor_target import WRITE_BYTES, describe_write_failure
from deltaimg.image.raw import BlockDeviceSource, RawSource
from deltaimg.image.source import ImageSource
from deltaimg.image.uses import check_unused
from deltaimg.kernels import read_ranges, write_ranges
from deltaimg.model import count_blocks
from deltaimg.posix import rename_exclusively, sync_folder

_FLUSH_BLOCKS = MAX_UNDO_BLOCKS // 2
"""Blocks that are gathered, so that one sync of the journal does for all of them."""


class _Waiting(Struct):
    """Blocks that are not written yet: those that are to be cleared, and then those with content."""

    cleared: list[Blocks] = field(default_factory=list)
    blocks: list[Blocks] = field(default_factory=list)
    content: list[memoryview] = field(default_factory=list)
    """Of each part of `blocks`."""
    count: int = 0

    def find(self, blocks: Blocks) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Return which places in `blocks` have content here, and that content, shape (count, BLOCK_BYTES)."""
        here = np.concatenate([np.zeros(0, np.int64), *self.blocks])
        order = np.argsort(here, kind="stable")
        # Of a block that came twice, what came last counts.
        last = np.searchsorted(here[order], blocks, side="right") - 1
        places = np.flatnonzero((last >= 0) & (here[order][last] == blocks)) if len(here) else here
        sources = order[last[places]]
        content = np.empty((len(places), BLOCK_BYTES), np.uint8)
        first = 0
        for part in self.content:
            end = first + len(part) // BLOCK_BYTES
            is_in = (sources >= first) & (sources < end)
            content[is_in] = np.frombuffer(part, np.uint8).reshape(-1, BLOCK_BYTES)[sources[is_in] - first]
            first = end
        return places, content


class WorkingCopy:
    """What a run reads and writes. `mode` is in-place, clone or new."""

    def __init__(self, place: CopyPlace, mode: str, *, is_read_only: bool = False) -> None:
        """Raises ImageError, ImageInUse."""
        self.place, self.mode = place, mode
        if place.exists and not (place.is_device or is_read_only):
            check_unused(place.path)
        self.path = place.path if mode == "in-place" or is_read_only else place.new_path
        self.descriptor = _open(self.path, is_device=place.is_device, is_read_only=is_read_only)
        self._journal: Journal | None = None
        self._old = (
            _open(place.path, is_device=False, is_read_only=True) if self.path != place.path and place.exists else -1
        )
        self._waiting = _Waiting()
        self.size_bytes = os.fstat(self.descriptor).st_size
        if place.is_device:
            self.size_bytes = read_device_bytes(self.descriptor)

    @property
    def is_in_place(self) -> bool:
        """Whether the copy itself is written to."""
        return self.mode == "in-place"

    def begin(self, image_bytes: int, found: FoundJournal | None) -> None:
        """Get ready to write an image of this size; raises TargetTooSmall or ImageError.

        Args:
            found: the journal of an earlier run, to be continued.
        """
        if self.place.is_device and image_bytes > self.size_bytes:
            raise TargetTooSmall(self.place.path, f"has {self.size_bytes} bytes; the image needs {image_bytes}")
        try:
            if self.is_in_place:
                old_bytes = image_bytes if self.place.is_device else self.size_bytes
                block_count = count_blocks(max(image_bytes, self.size_bytes), BLOCK_BYTES)
                self._journal = (
                    found.resume(block_count)
                    if found
                    else begin_journal(self.place.journal_path, old_bytes, block_count)
                )
            if not self.place.is_device and image_bytes > self.size_bytes:
                os.ftruncate(self.descriptor, image_bytes)
                self.size_bytes = image_bytes
        except OSError as error:
            raise describe_write_failure(self.path, None, error) from error

    @contextmanager
    def opened(self) -> Iterator[ImageSource]:
        """Let it be read as an image source; raises ImageError."""
        opened = BlockDeviceSource if self.place.is_device else RawSource
        source = opened(self.path, os.dup(self.descriptor))
        try:
            yield source
        finally:
            source.close()

    def read(self, blocks: Blocks) -> memoryview:
        """Return what is in some blocks, ascending, padded with zeros at the end; raises ImageError."""
        return _read(self.path, self.descriptor, blocks)

    def read_now(self, blocks: Blocks) -> memoryview:
        """Return what is in some blocks, or will be once all that waits is written."""
        content = self.read(blocks)
        places, waiting = self._waiting.find(blocks)
        np.frombuffer(content, np.uint8).reshape(-1, BLOCK_BYTES)[places] = waiting
        return content

    def read_before(self, blocks: Blocks) -> tuple[npt.NDArray[np.bool_], memoryview]:
        """Return of which blocks it is known what was in them before this run overwrote them, and what that is, of all."""
        if self._journal is not None:
            return self._journal.read(blocks)
        if self._old < 0:
            return np.zeros(len(blocks), np.bool_), memoryview(bytes(len(blocks) * BLOCK_BYTES))
        return np.ones(len(blocks), np.bool_), _read(self.place.path, self._old, blocks)

    def put(self, blocks: Blocks, content: memoryview | None) -> None:
        """Write content to blocks, ascending, or zeros; it may be kept a while. Raises ImageError, TargetTooSmall."""
        waiting = self._waiting
        if content is None:
            if waiting.blocks:
                self.flush()
            self._waiting.cleared.append(blocks)
        else:
            waiting.blocks.append(blocks)
            waiting.content.append(content)
        self._waiting.count += len(blocks)
        if self._waiting.count >= _FLUSH_BLOCKS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, _Waiting()
        if not waiting.count:
            return
        if self._journal is not None:
            self._note(distinct(np.zeros(0, np.int64), *waiting.cleared, *waiting.blocks))
        for blocks in waiting.cleared:
            for offset, length, _ in _find_ranges(blocks, self.size_bytes).tolist():
                try:
                    clear_range(self.descriptor, offset, length)
                except OSError as error:
                    raise describe_write_failure(self.path, offset, error) from error
        for blocks, content in zip(waiting.blocks, waiting.content, strict=True):
            ranges = _find_ranges(blocks, self.size_bytes)
            failed = write_ranges(self.descriptor, ranges, content, WRITE_BYTES)
            if failed is not None:
                offset, why = int(ranges["offset"][failed.number]), OSError(failed.error_number, "")
                raise describe_write_failure(self.path, offset, why)

    def sync(self) -> None:
        """Wait until all is on the disk, and forget what the page cache has of it, so that a read comes from there."""
        self.flush()
        try:
            os.fsync(self.descriptor)
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise describe_write_failure(self.path, None, error) from error

    def commit(self, state: MirrorState) -> None:
        """Let the copy be what was written, all of it synced: after a cut it is the old or the new one. Raises ImageError."""
        try:
            if self.is_in_place:
                self._commit_in_place(state)
            else:
                self._replace(state)
        except OSError as error:
            raise describe_write_failure(self.place.path, None, error) from error

    def discard(self) -> None:
        """Remove a new file that nothing was written to; raises OSError."""
        if self.path != self.place.path:
            with suppress(FileNotFoundError):
                os.unlink(self.path)

    def close(self) -> None:
        """Close all; what was begun stays for the next run."""
        if self._journal is not None:
            self._journal.close()
        for descriptor in (self.descriptor, self._old):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self._old = -1

    # -- parts -------------------------------------------------------------------------------------------------------

    def _note(self, blocks: Blocks) -> None:
        """Enter what is in blocks, ascending, in the journal."""
        assert self._journal is not None
        wanted = self._journal.find_lacking(blocks)
        for first in range(0, len(wanted), MAX_UNDO_BLOCKS):
            part = wanted[first : first + MAX_UNDO_BLOCKS]
            self._journal.add(part, self.read(part))
        if len(wanted):
            self._journal.sync()

    def _commit_in_place(self, state: MirrorState) -> None:
        state = MirrorState(
            state.key,
            state.root,
            state.image_bytes,
            state.digests,
            0 if self.place.is_device else os.fstat(self.descriptor).st_mtime_ns,
            self._journal.id if self._journal else bytes(16),
        )
        self.place.write_state(state)
        finish_in_place(self.place, self.descriptor, state)

    def _replace(self, state: MirrorState) -> None:
        os.ftruncate(self.descriptor, state.image_bytes)
        if self.place.exists:
            copy_attributes(self.place.path, self.descriptor)
        os.fsync(self.descriptor)
        modified_ns = os.fstat(self.descriptor).st_mtime_ns
        self.place.write_state(MirrorState(state.key, state.root, state.image_bytes, state.digests, modified_ns))
        if self.place.exists:
            os.rename(self.path, self.place.path)
        else:
            rename_exclusively(self.path, self.place.path)
        sync_folder(os.path.dirname(os.path.abspath(self.place.path)))


def make_new(place: CopyPlace) -> str:
    """Make the file that will be the copy, unless an earlier run has; return its mode. Raises ImageError.

    An existing copy is cloned; where that is not possible the mode is in-place, and nothing is made.
    """
    try:
        if os.path.lexists(place.new_path):
            return "clone" if place.exists else "new"
        mode = stat.S_IMODE(os.stat(place.path).st_mode) if place.exists else 0o666
        partial = f"{place.new_path}.partial"
        with suppress(FileNotFoundError):
            os.unlink(partial)
        descriptor = os.open(
            partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if place.exists else mode
        )
        try:
            if place.exists and not _clone(place.path, descriptor):
                os.unlink(partial)
                return "in-place"
        finally:
            os.close(descriptor)
        os.rename(partial, place.new_path)
    except OSError as error:
        raise describe_write_failure(place.path, None, error) from error
    return "clone" if place.exists else "new"


def finish_in_place(place: CopyPlace, descriptor: int, state: MirrorState) -> None:
    """End a run whose state is on the disk: cut off what is behind the image's end, and remove the journal. Raises OSError."""
    if not place.is_device:
        found = os.fstat(descriptor)
        if (found.st_size, found.st_mtime_ns) != (state.image_bytes, state.modified_ns):
            os.ftruncate(descriptor, state.image_bytes)
            os.utime(descriptor, ns=(state.modified_ns, state.modified_ns))
            os.fsync(descriptor)
    remove_journal(place.journal_path)


def undo_in_place(place: CopyPlace, descriptor: int, found: FoundJournal, state: MirrorState | None) -> None:
    """Put back what a run overwrote, and remove its journal; raises OSError or ImageError."""
    for undo in found.groups():
        data_count = len(undo.content) // BLOCK_BYTES
        for blocks, content in ((undo.blocks[:data_count], undo.content), (undo.blocks[data_count:], None)):
            for offset, length, start in _find_ranges(blocks, found.image_bytes).tolist():
                if content is None:
                    clear_range(descriptor, offset, length)
                else:
                    _write(descriptor, content[start : start + length], offset)
    if not place.is_device:
        os.ftruncate(descriptor, found.image_bytes)
    os.fsync(descriptor)
    if state is not None and not place.is_device:
        # As it was written last before the run: what is kept of it is valid again.
        os.utime(descriptor, ns=(state.modified_ns, state.modified_ns))
        os.fsync(descriptor)


def _open(path: str, *, is_device: bool, is_read_only: bool) -> int:
    flags = os.O_RDONLY if is_read_only else os.O_RDWR | (os.O_EXCL if is_device else 0)
    try:
        return os.open(path, flags | os.O_CLOEXEC | (0 if is_device else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ImageInUse(path, "is in use", hint="unmount or stop what uses it first") from error
        raise ImageError(path, f"cannot be written: {os.strerror(error.errno or 0)}") from error


def _clone(path: str, descriptor: int) -> bool:
    """Make an empty file share the content of another; False where the file system cannot."""
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        clone_content(path, source, descriptor)
    except OSError:
        return False
    finally:
        os.close(source)
    return True


def _find_ranges(blocks: Blocks, end: int) -> Ranges:
    """Return where blocks that follow each other in memory are in a file, as far as that is before `end`."""
    ranges: Ranges = ranges_of_blocks(blocks, np.arange(len(blocks)), BLOCK_BYTES)
    ranges["length"] = np.minimum(ranges["length"], end - ranges["offset"])
    return ranges[ranges["length"] > 0]


def _read(path: str, descriptor: int, blocks: Blocks) -> memoryview:
    """Return what is in blocks of a file or device, with zeros for what is behind its end; raises ImageError."""
    content = memoryview(bytearray(len(blocks) * BLOCK_BYTES))
    ranges = _find_ranges(blocks, os.lseek(descriptor, 0, os.SEEK_END))
    failed = read_ranges(descriptor, ranges, content)
    if failed is not None:
        why = os.strerror(failed.error_number) if failed.error_number else "it has become shorter"
        raise ImageError(path, f"cannot be read at byte {ranges['offset'][failed.number]}: {why}")
    return content


def _write(descriptor: int, content: memoryview, offset: int) -> None:
    while content:
        done = os.pwrite(descriptor, content, offset)
        content, offset = content[done:], offset + done
