# SPDX-License-Identifier: Apache-2.0
"""What a host keeps of the packs of remote repositories: their stored bytes, so that what was sealed stays sealed.

    <folder>/packs/ab/abcd…     16-byte digests of the pieces of 16 KiB, 256 KiB of them; then the pack, as far as it is kept

A piece is kept if its digest, keyed by the name of the pack, is in its place in the table; zeroes are none. Only the last piece
of a pack is shorter, and then the file ends with it. Pieces are written before their digests, always in the same places, and
compared whenever they are read: so any number of processes may use and fill a file at once, and what one leaves that is killed,
what a disk loses and what was changed by others is a piece that is not kept. All of it may be removed any time.

What it takes is bounded: what was used longest ago is removed first. A run adds no more than that altogether, so that a first
backup, or a restore, does not write all that it moves to the disk of the host as well.

Memory  the bytes of one read; of a pack that is added, 4 MiB.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.format.limits import MAX_PACK_BYTES
from deltaimg.kernels import digest_blocks, digest_buffer
from deltaimg.large_files import write_large
from deltaimg.model import GIB, KIB, MIB
from deltaimg.store.cache_files import (
    TOUCH_S,
    CacheFile,
    count_bytes,
    list_entries,
    open_file,
    remove_files,
    trim_files,
)
from deltaimg.store.interface import Parts

PIECE_BYTES = 16 * KIB
MOST_BYTES, FREE_SHARE = 5 * GIB, 0.1
"""What it takes where nothing else is said: no more than this, and than this share of what is free."""
_TABLE_BYTES = MAX_PACK_BYTES // PIECE_BYTES * DIGEST_BYTES
_LARGE_BYTES = 4 * MIB
"""What is written past the page cache."""
_FOLDER = "packs"
_PACK = re.compile(r"packs/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_FILE = re.compile(r"[0-9a-f]{64}")
_TRIMMED_SHARE = 1 / 16
"""What a run may add, of all that is kept, before it looks again how much that is."""

_log = logging.getLogger(__name__)


class KeptRange(Struct, frozen=True):
    """What is kept of a row of pieces."""

    data: bytes
    """Of all of them, less where the file ends; right for those alone that are not missing."""
    missing: range
    """From the first piece that is not kept to the last one; empty where all are."""


class PackCache:
    """The part of a host's cache, in `folder`, that is for packs; any number of threads may use it.

    No method fails: what cannot be read is not kept, and where something cannot be written, nothing is from then on.
    """

    def __init__(self, folder: str, budget_bytes: int | None = None) -> None:
        """Args: budget_bytes: what all of it may take; if not given, as `MOST_BYTES` and `FREE_SHARE` say."""
        self._root, self._folder = folder, os.path.join(folder, _FOLDER)
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._added_bytes = self._untrimmed_bytes = 0
        self._has_stopped = False
        self._shunned: set[str] = set()
        """Packs that could not be forgotten."""

    def stop(self) -> None:
        """Add nothing from now on."""
        self._has_stopped = True

    def covers(self, name: str, offset: int, length: int) -> bool:
        """Return whether this range of the object of this name may be kept."""
        is_pack = _PACK.fullmatch(name) is not None and name not in self._shunned
        return is_pack and length > 0 and 0 <= offset <= MAX_PACK_BYTES - length

    def read(self, name: str, pieces: range) -> KeptRange:
        """Return what is kept of some pieces of a pack, one at least."""
        with suppress(OSError):
            descriptor = open_file(self._path_of(name))
            try:
                return self._read(descriptor, _key_of(name), pieces)
            finally:
                os.close(descriptor)
        return KeptRange(b"", pieces)

    def add(self, name: str, parts: Parts, first: int = 0) -> None:
        """Keep the bytes of a pack from its piece `first` on: whole pieces, but for one that the pack ends with."""
        size_bytes = sum(len(part) for part in parts)
        if not self._may_add(size_bytes):
            return
        try:
            self._write(name, parts, size_bytes, first)
        except OSError as error:
            self.remove(name)
            self._note_failure(error)
        if self._is_trim_due():
            self.trim()

    def remove(self, name: str) -> None:
        """Forget a pack; any name will do."""
        if _PACK.fullmatch(name):
            try:
                os.unlink(self._path_of(name))
            except FileNotFoundError:
                pass
            except OSError:
                self._shunned.add(name)

    def trim(self) -> None:
        """Keep to the budget, if this process has added something."""
        with self._lock:
            if not self._untrimmed_bytes:
                return
            self._untrimmed_bytes = 0
        trim_files(self._list(), self._find_budget())

    def measure(self) -> int:
        """Return how many bytes of the disk it takes."""
        return count_bytes(self._list())

    def clear(self) -> int:
        """Remove all; return how many bytes that were."""
        return remove_files(self._folder, self._list())

    # -- parts -------------------------------------------------------------------------------------------------------

    def _read(self, descriptor: int, key: bytes, pieces: range) -> KeptRange:
        is_kept = np.zeros(len(pieces), np.bool_)
        table = os.pread(descriptor, len(pieces) * DIGEST_BYTES, pieces.start * DIGEST_BYTES)
        expected = np.frombuffer(table, np.uint8, len(table) // DIGEST_BYTES * DIGEST_BYTES).reshape(-1, DIGEST_BYTES)
        if not expected.any():
            return KeptRange(b"", pieces)
        data = os.pread(descriptor, len(pieces) * PIECE_BYTES, _TABLE_BYTES + pieces.start * PIECE_BYTES)
        found = _digest_pieces(key, data)
        count = min(len(found), len(expected))
        is_kept[:count] = (found[:count] == expected[:count]).all(axis=1) & expected[:count].any(axis=1)
        self._touch(descriptor)
        if len(data) % PIECE_BYTES and is_kept[len(found) - 1]:
            is_kept[len(found) :] = True  # The pack ends there.
        missing = pieces.start + np.flatnonzero(~is_kept)
        return KeptRange(data, range(int(missing[0]), int(missing[-1]) + 1) if len(missing) else range(0))

    def _touch(self, descriptor: int) -> None:
        if time.time() - os.fstat(descriptor).st_mtime > TOUCH_S:
            with suppress(OSError):
                os.utime(descriptor)

    def _may_add(self, size_bytes: int) -> bool:
        """Return whether so much may be added, which is counted then."""
        if self._has_stopped or not size_bytes:
            return False
        budget_bytes = self._find_budget()
        with self._lock:
            if self._added_bytes + size_bytes > budget_bytes:
                return False
            self._added_bytes += size_bytes
            self._untrimmed_bytes += size_bytes
        return True

    def _is_trim_due(self) -> bool:
        return self._untrimmed_bytes > _TRIMMED_SHARE * self._find_budget()

    def _find_budget(self) -> int:
        if self._budget_bytes is None:
            free_bytes = 0
            try:
                os.makedirs(self._folder, 0o700, exist_ok=True)
                found = os.statvfs(self._folder)
                free_bytes = found.f_bavail * found.f_frsize
            except OSError as error:
                self._note_failure(error)
            self._budget_bytes = min(MOST_BYTES, int(FREE_SHARE * (free_bytes + self.measure())))
        return self._budget_bytes

    def _write(self, name: str, parts: Parts, size_bytes: int, first: int) -> None:
        path, key, digests = self._path_of(name), _key_of(name), list[Digests]()
        os.makedirs(self._folder, 0o700, exist_ok=True)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            start = _TABLE_BYTES + first * PIECE_BYTES
            if size_bytes >= _LARGE_BYTES:
                os.lseek(descriptor, start, os.SEEK_SET)
                write_large(descriptor, parts, lambda filled: digests.append(_digest_pieces(key, filled)))
            else:
                data = b"".join(parts)
                _write_at(descriptor, data, start)
                digests.append(_digest_pieces(key, data))
            _write_at(descriptor, np.concatenate(digests).tobytes(), first * DIGEST_BYTES)
        finally:
            os.close(descriptor)

    def _note_failure(self, error: OSError) -> None:
        """Add nothing from now on, and say why, once."""
        with self._lock:
            is_first, self._has_stopped = not self._has_stopped, True
        if is_first:
            _log.warning(
                "packs are no longer kept in %s, so that later runs receive more: %s", self._folder, error.strerror
            )

    def _path_of(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _list(self) -> Iterator[CacheFile]:
        for entry in list_entries(self._folder):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if _FILE.fullmatch(entry.name):
                    yield CacheFile(entry.path, status.st_blocks * 512, status.st_mtime)


def _key_of(name: str) -> bytes:
    return bytes.fromhex(name.rpartition("/")[2])


def _digest_pieces(key: bytes, data: bytes | memoryview) -> Digests:
    """Return the digest of each piece, shape (count, 16); the last one may be shorter than the others."""
    whole_bytes = len(data) // PIECE_BYTES * PIECE_BYTES
    view = memoryview(data)
    found = digest_blocks(key, view[:whole_bytes], PIECE_BYTES)
    if whole_bytes == len(data):
        return found
    last: npt.NDArray[np.uint8] = np.frombuffer(digest_buffer(view[whole_bytes:], key, DIGEST_BYTES), np.uint8)
    return np.concatenate((found, last.reshape(1, DIGEST_BYTES)))


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)
