# SPDX-License-Identifier: Apache-2.0
"""How much objects and records take, and which objects are worth rewriting for the unused room in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.format.framing import HEADER_BYTES
from deltaimg.format.index import INDEXES
from deltaimg.format.map import MAPS
from deltaimg.format.pack import FOOTER_ENTRY, PACKS, TRAILER
from deltaimg.format.signature import HEAD, SIGNATURES
from deltaimg.repo.deletions import PendingDeletion
from deltaimg.repo.keys import digest_of
from deltaimg.repo.repository import Repository

PACK_BYTES = HEADER_BYTES + TRAILER.size
"""What a pack takes beside its records."""
SIGNATURE_BYTES = HEADER_BYTES + HEAD.size
"""What a signature takes beside its records."""
_BYTES_A_SLOT, _BYTES_A_SIGNED_RECORD = 16, 18
_FOOTER_BYTES = FOOTER_ENTRY.itemsize
_PIECE = 1 << 16
_TARGET = 0.75
"""Share of the unused room allowed that is aimed at once the allowance is exceeded. Sizes are estimates: without a margin the
next run would repack again."""
_KINDS = (PACKS, INDEXES, SIGNATURES, MAPS)

Entries = npt.NDArray[Any]
"""Of `ENTRY`."""


class Inventory(Struct, frozen=True):
    """Sizes of all objects that are not pending deletion, by kind and digest."""

    packs: dict[str, int]
    indexes: dict[str, int]
    signatures: dict[str, int]
    maps: dict[str, int]
    total_bytes: int
    """Of everything in the repository."""


def take_inventory(repository: Repository, pending: Iterable[PendingDeletion]) -> Inventory:
    """List all objects that are not pending deletion."""
    lists = [each.objects for each in pending]
    gone = {name for each in lists for name in (*each.packs, *each.indexes, *each.signatures, *each.maps)}
    sizes: dict[str, dict[str, int]] = {kind: {} for kind in _KINDS}
    total = 0
    for found in repository.objects.list(""):
        total += found.size_bytes
        kind, digest = found.name.partition("/")[0] + "/", digest_of(found.name)
        if kind in sizes and digest not in gone:
            sizes[kind][digest] = found.size_bytes
    return Inventory(sizes[PACKS], sizes[INDEXES], sizes[SIGNATURES], sizes[MAPS], total)


def signed_bytes(entries: Entries) -> npt.NDArray[np.int64]:
    """Return what each record takes in a signature."""
    taken: npt.NDArray[np.int64] = entries["slots"].astype(np.int64) * _BYTES_A_SLOT + _BYTES_A_SIGNED_RECORD
    return taken


def count_packed(
    names: list[str], packs: npt.NDArray[np.uint32], taken: npt.NDArray[np.number], is_held: npt.NDArray[np.bool_]
) -> dict[str, int]:
    """Return how many bytes the records that are held take in each pack that has any.

    Args:
        packs: number of each entry's pack. taken: bytes of each entry, without its part of the footer.
    """
    totals = np.zeros(len(names), np.int64)
    for first in range(0, len(packs), _PIECE):
        piece = np.flatnonzero(is_held[first : first + _PIECE]) + first
        totals += np.bincount(packs[piece], taken[piece] + _FOOTER_BYTES, len(names)).astype(np.int64)
    return _sum_by_name(names, totals, PACK_BYTES)


def count_signed(names: list[str], entries: Entries, is_held: npt.NDArray[np.bool_]) -> dict[str, int]:
    """Return how many bytes the digests of the records that are held take in each signature that has any."""
    totals = np.zeros(len(names), np.int64)
    for first in range(0, len(entries), _PIECE):
        piece = entries[first : first + _PIECE][is_held[first : first + _PIECE]]
        totals += np.bincount(piece["signature"], signed_bytes(piece), len(names)).astype(np.int64)
    return _sum_by_name(names, totals, SIGNATURE_BYTES)


def _sum_by_name(names: list[str], totals: npt.NDArray[np.int64], fixed: int) -> dict[str, int]:
    """Return the sum for each name that has any, plus the overhead of an object; names may be listed twice."""
    sums: dict[str, int] = {}
    for name, total in zip(names, totals.tolist(), strict=True):
        if total:
            sums[name] = sums.get(name, fixed) + total
    return sums


def choose_objects(
    sizes: dict[str, int], needed: dict[str, int], max_unused: float, max_written: int | None = None
) -> tuple[list[str], int]:
    """Return which objects to write again, those with the largest unused share first, and what is unused in the others.

    Nothing, while no more than `max_unused` of all bytes is unused.

    Args:
        needed: bytes of each object that must be kept; those not listed are deleted anyhow.
        max_written: bytes that may be written.
    """
    needed = {name: bytes_ for name, bytes_ in needed.items() if name in sizes}
    unused = {name: max(0, sizes[name] - bytes_) for name, bytes_ in needed.items()}
    total_unused, total = sum(unused.values()), sum(sizes[name] for name in needed)
    chosen: list[str] = []
    if total_unused <= max_unused * total:
        return chosen, total_unused
    written = 0
    for name in sorted(unused, key=lambda name: (-unused[name] / sizes[name], name)):
        if total_unused <= _TARGET * max_unused * total or not unused[name]:
            break
        if max_written is not None and written + needed[name] > max_written:
            continue
        chosen.append(name)
        written += needed[name]
        total_unused -= unused[name]
        total -= unused[name]
    return chosen, total_unused
