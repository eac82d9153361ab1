# SPDX-License-Identifier: Apache-2.0
"""Compute and store the parity object of one group of packs: a job of `parity add`, here or on a worker of a cluster.

Memory  the planes of one object, at most 128 MiB, and a pack for each thread and two more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
from msgspec import Struct

from deltaimg.arrays import Digests
from deltaimg.codec.reed_solomon import ReedSolomon
from deltaimg.engine.parity.plan import PackSize, choose_shape
from deltaimg.engine.pipeline import OrderedPool
from deltaimg.errors import IntegrityError, ObjectExists, ObjectNotFound, StoreUnavailable
from deltaimg.format.framing import SALT_BYTES, digest_bytes, name_object
from deltaimg.format.pack import pack_name
from deltaimg.format.parity import ParityTables, digest_shards, lay_out_parity, parse_tables
from deltaimg.repo.object_kinds import PARITY
from deltaimg.repo.objects import Objects
from deltaimg.repo.reopen import RepositoryPlace

_WORKERS = 2


class GroupJob(Struct, frozen=True):
    """Packs that get parity together, of this percentage of them."""

    packs: tuple[PackSize, ...]
    percent: float
    place: RepositoryPlace | None = None
    """The repository, for a worker."""


class ProtectedGroup(Struct, frozen=True):
    """What was done for a group."""

    packs: int
    """Packs that are protected now; none where all are damaged."""
    read_bytes: int
    stored_bytes: int
    damaged: tuple[str, ...]
    """Packs that cannot be read or do not match their names: they were left out."""


def protect_at(job: GroupJob) -> ProtectedGroup:
    """Do as `protect`, on a worker. Where one dies after it has stored the object, the next makes the same."""
    assert job.place is not None
    return protect(job.place.open_objects(), job, is_stable=True)


def protect(
    objects: Objects,
    job: GroupJob,
    advance: Callable[[int], None] = lambda _: None,
    check_lock: Callable[[], None] = lambda: None,
    *,
    is_stable: bool = False,
) -> ProtectedGroup:
    """Store a parity object for packs; damaged ones are left out.

    Args:
        advance: called with the bytes of each pack that was read. check_lock: called before the object is stored.
        is_stable: give it the name that follows from its content.
    """
    packs: Sequence[PackSize] = job.packs
    damaged: dict[str, None] = {}
    read_bytes = 0
    while packs:
        computed = _compute(objects, packs, job.percent, advance)
        read_bytes += computed.read_bytes
        damaged |= dict.fromkeys(computed.damaged)
        if computed.parts is not None:
            check_lock()
            stored_bytes = _store(objects, computed.parts, is_stable=is_stable)
            return ProtectedGroup(len(packs), read_bytes, stored_bytes, tuple(damaged))
        packs = [pack for pack in packs if pack.digest not in damaged]
    return ProtectedGroup(0, read_bytes, 0, tuple(damaged))


def _store(objects: Objects, parts: list[bytes | memoryview], *, is_stable: bool) -> int:
    if not is_stable:
        return objects.put_named(PARITY, parts)[1]
    with suppress(ObjectExists):
        objects.put_named(PARITY, parts, salt=digest_bytes(parts[0], length=SALT_BYTES))
    return sum(len(part) for part in parts)


class _Computed(Struct, frozen=True):
    """A parity object, None if a pack is damaged; and what was read for it."""

    parts: list[bytes | memoryview] | None
    read_bytes: int
    damaged: tuple[str, ...]


def _compute(objects: Objects, packs: Sequence[PackSize], percent: float, advance: Callable[[int], None]) -> _Computed:
    shape = choose_shape((pack.size_bytes for pack in packs), percent)
    code = ReedSolomon(shape.data_columns, shape.parity_columns)
    plane_bytes = shape.stripe_count * shape.shard_bytes
    planes = [memoryview(bytearray(plane_bytes)) for _ in range(shape.parity_columns)]
    digests: list[Digests] = []
    damaged: list[str] = []
    at = read_bytes = 0
    with OrderedPool(workers=_WORKERS, window=_WORKERS) as pool:
        for pack, read in zip(packs, pool.map(partial(_read, objects, shape.shard_bytes), packs), strict=True):
            advance(pack.size_bytes)
            if read is None:
                damaged.append(pack.digest)
                continue
            content, pack_digests = read
            read_bytes += pack.size_bytes
            digests.append(pack_digests)
            _accumulate(code, content, planes, at)
            at += len(pack_digests) * shape.shard_bytes
    if damaged:
        return _Computed(None, read_bytes, tuple(damaged))
    digests += [digest_shards(plane, shape.shard_bytes) for plane in planes]
    tables = ParityTables(
        packs=tuple(pack.digest for pack in packs),
        pack_bytes=np.array([pack.size_bytes for pack in packs], np.uint64),
        shard_bytes=shape.shard_bytes,
        stripe_count=shape.stripe_count,
        data_columns=shape.data_columns,
        parity_columns=shape.parity_columns,
        digests=np.concatenate(digests),
    )
    parts = lay_out_parity(tables, planes)
    parse_tables("the new parity object", parts[0], len(parts[0]))
    return _Computed(parts, read_bytes, ())


def _read(objects: Objects, shard_bytes: int, pack: PackSize) -> tuple[memoryview, Digests] | None:
    """Return a pack and the digests of its shards; None if it cannot be read or does not match its name."""
    try:
        data = objects.get_bytes(pack_name(pack.digest))
    except (IntegrityError, ObjectNotFound, StoreUnavailable):
        return None
    if len(data) != pack.size_bytes or name_object([data]) != pack.digest:
        return None
    return memoryview(data), digest_shards(data, shard_bytes)


def _accumulate(code: ReedSolomon, content: memoryview, planes: Sequence[memoryview], at: int) -> None:
    """Add content at offset `at` of a group to its planes, column by column."""
    plane_bytes = len(planes[0])
    start = 0
    while start < len(content):
        column, offset = divmod(at + start, plane_bytes)
        length = min(plane_bytes - offset, len(content) - start)
        code.accumulate(column, content[start : start + length], [plane[offset:] for plane in planes])
        start += length
