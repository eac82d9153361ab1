# SPDX-License-Identifier: Apache-2.0
"""Copy one whole pack: a job of `sync` on a worker of a cluster that sees both repositories.

What the destination's index says of its records is what the source's index says: the bytes that the pack's name is the digest
of are the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from msgspec import Struct

from deltaimg.engine.cluster import Cluster
from deltaimg.engine.sync.losses import LOSSES
from deltaimg.errors import DeltaimgError, ObjectExists
from deltaimg.format.pack import pack_name
from deltaimg.repo.reopen import RepositoryPlace
from deltaimg.repo.repository import Repository


class CopyJob(Struct, frozen=True):
    """A pack to copy."""

    source: RepositoryPlace
    destination: RepositoryPlace
    name: str
    """Its digest."""


class PackCopied(Struct, frozen=True):
    """How many bytes the destination has of it now; or why the source cannot give it."""

    size_bytes: int = 0
    error: DeltaimgError | None = None


def copy_pack_at(job: CopyJob) -> PackCopied:
    """Copy a pack, verified by its name. One that is there, from a job that was run before, is left alone.

    Raises:
        StoreError: the destination cannot keep it.
    """
    name = pack_name(job.name)
    try:
        data = job.source.open_objects().get_verified(name)
    except LOSSES as error:
        return PackCopied(error=error)
    with suppress(ObjectExists):
        job.destination.open_objects().put_bytes(name, [data])
    return PackCopied(len(data))


class RemotePacks:
    """Copies packs on a cluster, several at a time."""

    def __init__(self, cluster: Cluster, source: Repository, destination: Repository) -> None:
        self._cluster = cluster
        self._source, self._destination = RepositoryPlace.of(source), RepositoryPlace.of(destination)

    def copy(self, names: list[str]) -> Iterator[PackCopied]:
        """Copy packs, by digest; yield what became of each, in order."""
        jobs = (CopyJob(self._source, self._destination, name) for name in names)
        yield from self._cluster.map(copy_pack_at, jobs)
