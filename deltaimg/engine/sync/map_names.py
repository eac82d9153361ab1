# SPDX-License-Identifier: Apache-2.0
"""What the map layers of the source are called in the destination.

Layers are named by the digest of their stored bytes. Where both repositories seal alike, these are the same in both. Otherwise
a layer has a name of its own in the destination, and manifests there have such names. A snapshot that both have lists the same
layers in both, in the same order: so the names of layers that later snapshots continue are known without reading any.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable

from deltaimg.errors import DeltaimgError
from deltaimg.repo.repository import Repository, SnapshotRef


def find_map_names(
    source: Repository,
    destination: Repository,
    stays: Collection[str],
    there: Iterable[SnapshotRef],
    wanted: Collection[SnapshotRef],
) -> dict[str, str]:
    """Return the digests in the destination of layers of the source, by their digests there.

    Args:
        stays: digests of layers that the destination has and is not about to delete.
        there: snapshots that it has. wanted: those whose layers are asked for.
    """
    if source.objects.is_sealed_like(destination.objects):
        return {digest: digest for digest in stays}
    names: dict[str, str] = {}
    for ref in _find_neighbours(sorted(there), wanted):
        try:
            own, others = source.load_manifest(ref).maps, destination.load_manifest(ref).maps
        except DeltaimgError:
            continue  # one of them has forgotten it, or cannot read it: its layers are copied again
        if len(own) == len(others):
            names |= {name: other for name, other in zip(own, others, strict=True) if other in stays}
    return names


def _find_neighbours(there: list[SnapshotRef], wanted: Iterable[SnapshotRef]) -> set[SnapshotRef]:
    """Return the snapshots just before and just after each that is wanted, of its image."""
    found: set[SnapshotRef] = set()
    for ref in wanted:
        place = bisect_left(there, ref)
        found.update(each for each in there[max(0, place - 1) : place + 1] if each.image == ref.image)
    return found
