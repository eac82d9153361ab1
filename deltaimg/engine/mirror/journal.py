# SPDX-License-Identifier: Apache-2.0
"""The undo journal of a copy that is changed in place: what was in each block, on the disk before the block is overwritten.

    begin    id, and how many bytes the copy had
    add      blocks and their old content, synced; only then may they be overwritten
    end      the state on the disk names the id: the run is complete, and the journal is removed

Invariant  while the journal exists and the state does not name it, it has the old content of every block that was overwritten.
           A group that is cut off at the end was never followed by an overwrite.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from deltaimg.engine.mirror.table import Blocks
from deltaimg.errors import ImageError, IntegrityError
from deltaimg.format.mirror import BLOCK_BYTES, MAX_UNDO_BYTES, Undo, build_begin, build_undo, parse_begin, parse_undo
from deltaimg.image.descriptor_target import describe_write_failure
from deltaimg.posix import sync_folder


class Journal:
    """A journal that is being written. `places` says where in it the old content of a block lies, if this run wrote it."""

    def __init__(self, path: str, journal_id: bytes, image_bytes: int, blocks: Blocks, end: int) -> None:
        """Use `begin_journal` or `continue_journal`. Args: blocks: those that are in it. end: where the next group goes."""
        self.path, self.id, self.image_bytes = path, journal_id, image_bytes
        self.places: dict[int, int | None] = dict.fromkeys(blocks.tolist())
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        os.ftruncate(self._descriptor, end)
        self._end = end

    def add(self, blocks: Blocks, content: memoryview) -> None:
        """Note what is in blocks that are not in it yet, and wait until that is on the disk; raises ImageError."""
        is_data = np.frombuffer(content, np.uint64).reshape(len(blocks), -1).any(axis=1)
        data = np.frombuffer(content, np.uint8).reshape(len(blocks), BLOCK_BYTES)[is_data]
        undo = Undo(np.concatenate((blocks[is_data], blocks[~is_data])), memoryview(data.tobytes()))
        rest, offset = memoryview(build_undo(undo)), self._end
        try:
            while rest:
                done = os.pwrite(self._descriptor, rest, offset)
                rest, offset = rest[done:], offset + done
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise describe_write_failure(self.path, offset, error) from error
        first = offset - len(undo.content)
        self.places.update(dict.fromkeys(undo.blocks.tolist()))
        self.places.update((block, first + n * BLOCK_BYTES) for n, block in enumerate(blocks[is_data].tolist()))
        self._end = offset

    def read(self, block: int) -> bytes | None:
        """Return what was in a block before this run overwrote it; None if that is not here."""
        offset = self.places.get(block)
        return None if offset is None else os.pread(self._descriptor, BLOCK_BYTES, offset)

    def close(self) -> None:
        """Close its file, which stays."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def begin_journal(path: str, image_bytes: int) -> Journal:
    """Make a journal, whose beginning is on the disk afterwards; raises OSError."""
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
    return Journal(path, journal_id, image_bytes, np.zeros(0, np.int64), len(begin))


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

    def resume(self) -> Journal:
        """Return it, to be continued."""
        blocks = self.list_blocks()
        return Journal(self.path, self.id, self.image_bytes, blocks, self._end)


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
