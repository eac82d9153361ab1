# SPDX-License-Identifier: Apache-2.0
"""Read one pack, or both its ends: a job of `check`, in a thread of this process or on a worker of a cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import distinct
from deltaimg.errors import DeltaimgError, IntegrityError, StoreError, UnsupportedFormat
from deltaimg.repo.keys import digest_of
from deltaimg.repo.objects import Objects
from deltaimg.repo.pack_reader import digest_object, find_damaged_records, load_footer, read_damaged_pack
from deltaimg.repo.reopen import RepositoryPlace


class PackState(Struct, frozen=True):
    """The result of reading a pack, or both its ends."""

    footer: npt.NDArray[Any] | None = None
    error: DeltaimgError | None = None
    damaged: tuple[tuple[int, str], ...] | None = None
    """The damaged records of a pack that was read whole and does not match its name."""


class PackJob(Struct, frozen=True):
    """A pack to read."""

    name: str
    size_bytes: int
    offsets: npt.NDArray[np.int64]
    """Of its records, by the index."""
    is_whole: bool
    """Whether to read all of it, and not only both its ends."""
    place: RepositoryPlace | None = None
    """The repository, for a worker."""


def read_pack_at(job: PackJob) -> PackState:
    """Do as `read_pack`, on a worker."""
    assert job.place is not None
    return read_pack(job.place.open_objects(), job)


def read_pack(objects: Objects, job: PackJob) -> PackState:
    """Return what a pack is like; an error of the store is part of it."""
    error: DeltaimgError | None = None
    footer = None
    try:
        footer = load_footer(objects, job.name, job.size_bytes)
    except (IntegrityError, StoreError, UnsupportedFormat) as caught:
        error = caught
    if not job.is_whole or isinstance(error, StoreError):
        return PackState(footer, error)
    try:
        if error is None and digest_object(objects, job.name, job.size_bytes) == digest_of(job.name):
            return PackState(footer)
        data = read_damaged_pack(objects, job.name)
        damaged = tuple(find_damaged_records(job.name, data, distinct(job.offsets)))
    except StoreError as caught:
        return PackState(footer, caught)
    return PackState(footer, error, damaged)
