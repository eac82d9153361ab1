# SPDX-License-Identifier: Apache-2.0
"""The undo journal of a copy that is changed in place: what was in each block, on the disk before the block is overwritten.

    begin    id, and how many bytes the copy had
    add      blocks and their old content
    sync     only then may they be overwritten
    end      the state on the disk names the id: the run is complete, and the journal is removed

Invariant  while the journal exists and the state does not name it, it has the old content of every block that was overwritten.
           A group that is cut off at the end was never followed by an overwrite.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import RANGE, sparse_zeros
from deltaimg.engine.mirror.table import Blocks
from deltaimg.errors import ImageError, IntegrityError
from deltaimg.format.mirror import BLOCK_BYTES, MAX_UNDO_BYTES, Undo, build_begin, build_undo, parse_begin, parse_undo
from deltaimg.image.descriptor_target import describe_write_failure
from deltaimg.kernels import read_ranges
from deltaimg.posix import sync_folder

_NOTED = 1
"""In place of an offset: a block is in the journal, and its content was zero, or was noted by an earlier run."""


class Journal:
    """A journal that is being written, which remembers where in it the old content of a block lies, if this run wrote it."""

    def __init__(
        self, path: str, journal_id: bytes, image_bytes: int, block_count: int, *, blocks: Blocks, end: int
    ) -> None:
        """Use `begin_journal` or `FoundJournal.resume`.

        Args:
            block_count: how many blocks there may be. blocks: those that are in it. end: where the next group goes.
        """
        self.path, self.id, self.image_bytes = path, journal_id, image_bytes
        self._places: npt.NDArray[np.int64] = sparse_zeros(block_count, np.int64)
        self._places[blocks] = _NOTED
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        os.ftruncate(self._descriptor, end)
        self._end = end

    def find_lacking(self, blocks: Blocks) -> Blocks:
        """Return those blocks that are not in it."""
        lacking: Blocks = blocks[self._places[blocks] == 0]
        return lacking

    def add(self, blocks: Blocks, content: memoryview) -> None:
        """Note what is in blocks that are not in it yet: may be overwritten once it is synced. Raises ImageError."""
        is_data = np.bitwise_or.reduce(np.frombuffer(content, np.uint64).reshape(len(blocks), -1), axis=1) != 0
        if not is_data.all():
            content = np.frombuffer(content, np.uint8).reshape(len(blocks), BLOCK_BYTES)[is_data].reshape(-1).data
        undo = Undo(np.concatenate((blocks[is_data], blocks[~is_data])), content)
        rest, offset = memoryview(build_undo(undo)), self._end
        try:
            while rest:
                done = os.pwrite(self._descriptor, rest, offset)
                rest, offset = rest[done:], offset + done
        except OSError as error:
            raise describe_write_failure(self.path, offset, error) from error
        first = offset - len(undo.content)
        self._places[undo.blocks] = _NOTED
        self._places[blocks[is_data]] = np.arange(first, offset, BLOCK_BYTES)
        self._end = offset

    def sync(self) -> None:
        """Wait until all of it is on the disk; raises ImageError."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise describe_write_failure(self.path, self._end, error) from error

    def read(self, blocks: Blocks) -> tuple[npt.NDArray[np.bool_], memoryview]:
        """Return of which blocks the content before this run is here, and that content, zeros for others; raises ImageError."""
        places = self._places[blocks]
        is_here: npt.NDArray[np.bool_] = places > _NOTED
        ranges = np.empty(int(is_here.sum()), RANGE)
        ranges["offset"], ranges["length"] = places[is_here], BLOCK_BYTES
        ranges["start"] = np.flatnonzero(is_here) * BLOCK_BYTES
        content = memoryview(bytearray(len(blocks) * BLOCK_BYTES))
        failed = read_ranges(self._descriptor, ranges, content)
        if failed is not None:
            raise ImageError(self.path, f"cannot be read: {os.strerror(failed.error_number)}")
        return is_here, content

    def close(self) -> None:
        """Close its file, which stays."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def begin_journal(path: str, image_bytes: int, block_count: int) -> Journal:
    """Make a journal, whose beginning is on the disk afterwards; raises OSError. Args: as of `Journal`."""
    journal_id = os.urandom(16)
    begin = build_begin(journal_id, image_bytes)
    partial = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(partial)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, begin)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(partial, path)
    sync_folder(os.path.dirname(path))
    return Journal(path, journal_id, image_bytes, block_count, blocks=np.zeros(0, np.int64), end=len(begin))


class FoundJournal:
    """The journal that an earlier run left."""

    def __init__(self, path: str) -> None:
        """Raises ImageError: it cannot be read, or is damaged."""
        self.path = path
        self._end = 0
        self.is_cut = False
        """Whether its last group is not whole, once `groups` has ended."""
        try:
            with open(path, "rb") as file:
                self.id, self.image_bytes = parse_begin(path, file)
        except IntegrityError as error:
            raise _describe_damage(path) from error
        except OSError as error:
            raise ImageError(path, f"cannot be read: {os.strerror(error.errno or 0)}") from error

    def groups(self) -> Iterator[Undo]:
        """Yield its groups; raises ImageError where one is damaged that others follow."""
        with open(self.path, "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            parse_begin(self.path, file)
            self._end = file.tell()
            while self._end < size_bytes:
                try:
                    undo = parse_undo(self.path, file)
                except IntegrityError as error:
                    if size_bytes - self._end > MAX_UNDO_BYTES:
                        raise _describe_damage(self.path) from error
                    self.is_cut = True
                    return
                self._end = file.tell()
                yield undo

    def list_blocks(self) -> Blocks:
        """Return all blocks that are in it."""
        return np.concatenate([np.zeros(0, np.int64), *(undo.blocks for undo in self.groups())])

    def resume(self, block_count: int) -> Journal:
        """Return it, to be continued. Args: block_count: how many blocks there may be, at least."""
        blocks = self.list_blocks()
        block_count = max(block_count, int(blocks.max(initial=-1)) + 1)
        return Journal(self.path, self.id, self.image_bytes, block_count, blocks=blocks, end=self._end)


def find_journal(path: str) -> FoundJournal | None:
    """Return what an earlier run left, if it did; raises ImageError."""
    return FoundJournal(path) if os.path.lexists(path) else None


def remove_journal(path: str) -> None:
    """Remove a journal for good; raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    sync_folder(os.path.dirname(path))


def _describe_damage(path: str) -> ImageError:
    return ImageError(
        path,
        "the journal of an interrupted mirror is damaged, so that it cannot be undone",
        hint="'deltaimg mirror' with --force makes the copy equal to the image; it is neither the old nor the new one now",
    )
