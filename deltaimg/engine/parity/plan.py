# SPDX-License-Identifier: Apache-2.0
"""Which packs get parity together, and which parity objects are no longer useful: a plan, before anything is changed.

A group is computed again when prune removed packs of it, when it is damaged or weaker than requested, and when it is small
compared with the new packs: so nightly runs leave few groups, and each pack is read a few times in its life. A group with a
lost pack stays as it is: it may be the only way to recover the pack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from deltaimg.format.limits import MAX_PARITY_COLUMNS
from deltaimg.model import KIB, MIB
from deltaimg.repo.parity import ParityGroup

MAX_PARITY_BYTES = 128 * MIB
"""Bound on the planes of one object, which are computed in memory."""
MAX_GROUP_BYTES = 8192 * MIB
_FULL = 0.75
"""A group that has at least this share of the largest size is kept."""
_GROWTH = 4
"""A smaller one is computed again, together with new packs, once it is at most this many times as large as they are."""
_COLUMNS = 60
_MAX_COLUMNS = 200
_SHARDS = 4096
_MIN_SHARD_BYTES, _MAX_SHARD_BYTES = 4 * KIB, 64 * KIB


class PackSize(Struct, frozen=True):
    """A pack by its digest, and its size."""

    digest: str
    size_bytes: int


class Shape(Struct, frozen=True):
    """How the shards of a group are arranged; see `format/parity.py`."""

    shard_bytes: int
    stripe_count: int
    data_columns: int
    parity_columns: int


class ParityPlan(Struct, frozen=True):
    """Groups to make, then parity objects to remove."""

    groups: tuple[tuple[PackSize, ...], ...]
    superseded: tuple[ParityGroup, ...]


def choose_shape(pack_sizes: Iterable[int], percent: float) -> Shape:
    """Return the arrangement that gives packs of these sizes parity of at least `percent` of them.

    Shards are as small as the tables allow, so that damage of a sector takes no more than it must; columns are about 60,
    so that damage in several places can be repaired as well as damage in one.
    """
    sizes = list(pack_sizes)
    shard_bytes = _MIN_SHARD_BYTES
    while shard_bytes < _MAX_SHARD_BYTES and sum(sizes) > _SHARDS * shard_bytes:
        shard_bytes *= 2
    shards = sum(-(-size // shard_bytes) for size in sizes)
    parity_columns = max(1, _divide_up(_COLUMNS * percent, 100))
    columns = min(int(100 * parity_columns / percent), _MAX_COLUMNS, MAX_PARITY_COLUMNS - parity_columns)
    stripes = -(-shards // columns)
    columns = -(-shards // stripes)
    return Shape(shard_bytes, stripes, columns, max(1, _divide_up(shards * percent, 100 * stripes)))


def _divide_up(dividend: float, divisor: float) -> int:
    return -int(-dividend // divisor)


def largest_group(percent: float) -> int:
    """Return how many bytes of packs a group may have."""
    return min(MAX_GROUP_BYTES, int(MAX_PARITY_BYTES * 100 / percent))


def plan_parity(needed: Mapping[str, int | None], groups: Iterable[ParityGroup], percent: float) -> ParityPlan:
    """Decide which groups to make, so that every pack that is needed and present is covered, and which to remove.

    Args:
        needed: every pack that is not about to be deleted, in the order in which they are to be grouped, with its size; None
            where it is lost.
    """
    present = {pack for pack, size in needed.items() if size is not None}
    kept: list[ParityGroup] = []
    superseded: list[ParityGroup] = []
    for group in groups:
        (kept if _is_worth_keeping(group, needed, percent) else superseded).append(group)
    _drop_doubles(kept, superseded, needed)
    fresh = present - _covered(kept)
    if fresh:
        _gather_small(kept, superseded, needed, fresh, percent)
    ordered = [PackSize(pack, size) for pack, size in needed.items() if size is not None and pack in fresh]
    return ParityPlan(tuple(_cut(ordered, largest_group(percent))), tuple(superseded))


def _is_worth_keeping(group: ParityGroup, needed: Mapping[str, int | None], percent: float) -> bool:
    packs = group.layout.packs
    if any(pack in needed and needed[pack] is None for pack in packs):
        return True
    is_whole = not group.damaged_parts and all(pack in needed for pack in packs)
    return is_whole and group.layout.parity_bytes * 100 >= group.pack_bytes * percent


def _covered(groups: Iterable[ParityGroup]) -> set[str]:
    return {pack for group in groups for pack in group.layout.packs}


def _drop_doubles(kept: list[ParityGroup], superseded: list[ParityGroup], needed: Mapping[str, int | None]) -> None:
    """Move groups whose packs other groups cover as well to `superseded`: a run that was interrupted left them."""
    times = Counter(pack for group in kept for pack in group.layout.packs)
    for group in sorted(kept, key=lambda each: each.pack_bytes):
        if all(times[pack] > 1 for pack in group.layout.packs if pack in needed):
            times.subtract(group.layout.packs)
            superseded.append(group)
    _take_out(kept, superseded)


def _gather_small(
    kept: list[ParityGroup],
    superseded: list[ParityGroup],
    needed: Mapping[str, int | None],
    fresh: set[str],
    percent: float,
) -> None:
    """Add the packs of small groups to `fresh`, and move these groups to `superseded`."""
    fresh_bytes = sum(needed[pack] or 0 for pack in fresh)
    for group in sorted(kept, key=lambda each: each.pack_bytes):
        is_small = group.pack_bytes < _FULL * largest_group(percent) and group.pack_bytes <= _GROWTH * fresh_bytes
        if is_small and all(needed.get(pack) is not None for pack in group.layout.packs):
            superseded.append(group)
            fresh.update(group.layout.packs)
            fresh_bytes += group.pack_bytes
    _take_out(kept, superseded)


def _take_out(kept: list[ParityGroup], superseded: list[ParityGroup]) -> None:
    """Remove from `kept` what is now in `superseded`."""
    names = {group.name for group in superseded}
    kept[:] = [group for group in kept if group.name not in names]


def _cut(packs: list[PackSize], largest: int) -> Iterator[tuple[PackSize, ...]]:
    """Yield packs in groups of about equal size, none above `largest` unless a single pack is."""
    total = sum(pack.size_bytes for pack in packs)
    even = total / max(1, -(-total // largest))
    group: list[PackSize] = []
    group_bytes = 0
    for pack in packs:
        if group and (group_bytes >= even or group_bytes + pack.size_bytes > largest):
            yield tuple(group)
            group, group_bytes = [], 0
        group.append(pack)
        group_bytes += pack.size_bytes
    if group:
        yield tuple(group)
