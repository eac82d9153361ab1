# SPDX-License-Identifier: Apache-2.0
"""Read packs: the footer from both ends, and all bytes, verified by the pack's name."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from deltaimg.errors import IntegrityError, StoreError, StoreUnavailable, UnsupportedFormat
from deltaimg.format.framing import HEADER_BYTES
from deltaimg.format.limits import MAX_PACK_BYTES
from deltaimg.format.pack import count_tail_bytes, parse_pack_ends
from deltaimg.format.record import RECORD_HEADER_BYTES, check_payload, parse_record_header
from deltaimg.model import KIB, MIB
from deltaimg.repo.keys import check_size
from deltaimg.repo.objects import Objects

_TAIL_BYTES = 16 * KIB
"""Footers of packs of 32 MiB are mostly shorter."""
_PIECE_BYTES = 4 * MIB
_PAGE_BYTES = 4 * KIB


def load_footer(objects: Objects, name: str, size_bytes: int) -> npt.NDArray[Any]:
    """Return the footer of a pack, having read nothing but both its ends; raises StoreError or as `parse_pack_ends`."""
    check_size(name, size_bytes)
    head = objects.get_range(name, 0, HEADER_BYTES)
    tail_bytes = min(size_bytes, _TAIL_BYTES)
    tail = objects.get_range(name, size_bytes - tail_bytes, tail_bytes)
    if tail_bytes < (needed := min(size_bytes, count_tail_bytes(tail))):
        tail = objects.get_range(name, size_bytes - needed, needed)
    return parse_pack_ends(name, head, tail, size_bytes)


def digest_object(objects: Objects, name: str, size_bytes: int) -> str:
    """Return the digest of an object's bytes, which should be its name; no more than a few MiB are in memory.

    Raises:
        ObjectTooLarge: no object of its kind is so large; it was not read.
    """
    check_size(name, size_bytes)
    hasher = blake3()
    for offset in range(0, size_bytes, _PIECE_BYTES):
        hasher.update(objects.get_range(name, offset, min(_PIECE_BYTES, size_bytes - offset)))
    return hasher.hexdigest()


def read_damaged_pack(objects: Objects, name: str) -> bytes:
    """Return the bytes of a damaged pack, up to the largest size of a pack; zeros where the disk has bad sectors.

    Raises StoreError where no part can be read, or the store fails in another way.
    """
    try:
        return objects.get_range(name, 0, MAX_PACK_BYTES)
    except StoreUnavailable as error:
        if not is_bad_sector(error):
            raise
        pieces, has_read = _read_around_bad_sectors(objects, name)
        if not has_read:
            raise
        return b"".join(pieces)


def is_bad_sector(error: StoreError) -> bool:
    """Return whether a disk of this host could not read something, which no retry brings back."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO


def _read_around_bad_sectors(objects: Objects, name: str) -> tuple[list[bytes], bool]:
    """Return the pieces of a pack, and whether any could be read; pages one by one where a large piece cannot be."""
    pieces: list[bytes] = []
    offset, has_read = 0, False
    while offset < MAX_PACK_BYTES:
        for length in (MIB if offset % MIB == 0 else _PAGE_BYTES, _PAGE_BYTES):
            try:
                piece = objects.get_range(name, offset, length)
                has_read |= bool(piece)
                break
            except StoreUnavailable as error:
                if not is_bad_sector(error):
                    raise
                piece = bytes(_PAGE_BYTES)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        if not has_read and offset >= MIB:
            break
    return pieces, has_read


def find_damaged_records(name: str, data: bytes, offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, str]]:
    """Yield offset and problem of each of the records at `offsets` of a pack that does not match its header and digests."""
    view = memoryview(data)
    for offset in offsets.tolist():
        try:
            header = parse_record_header(name, offset, view[offset:])
            check_payload(name, offset, header, view[offset + RECORD_HEADER_BYTES :][: header.payload_bytes])
        except IntegrityError as error:
            yield offset, error.problem
        except UnsupportedFormat as error:
            yield offset, str(error)
