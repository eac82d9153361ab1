# SPDX-License-Identifier: Apache-2.0
"""Map layers: overlay the maps that a manifest lists to the map of its image, and store the next layer of a new image.

A manifest lists a full map and the layers over it, the newest last. Layers are read from the newest down, and of each only
what no newer one covers is used: records that a layer lists and no snapshot needs any more may have been pruned.

Memory  the resolved map, one layer, and what newer ones cover: 16 bytes a run each.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from deltaimg.arrays import FIRST_SLOT, Runs, empty_runs, end_blocks
from deltaimg.errors import IntegrityError, ObjectNotFound, SnapshotIncomplete
from deltaimg.format.limits import MAX_LAYERS
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MapObject, build_map, parse_map
from deltaimg.kernels import overlay_runs, subtract_runs
from deltaimg.model import count_blocks
from deltaimg.repo.cover import Cover
from deltaimg.repo.numbering import LayerNumbering, RecordNumbering, renumber_runs
from deltaimg.repo.object_kinds import MAP
from deltaimg.repo.repository import Repository
from deltaimg.repo.slots import SlotTable

_LAYER_COST_BYTES = 2048
"""The cost of fetching one more layer, in bytes of map."""
_ALLOWANCE_BYTES = MAX_LAYERS * _LAYER_COST_BYTES
"""A new full map is written once the layers over the last one cost this much more than it would."""


class ResolvedMap(Struct, frozen=True):
    """A snapshot's whole map, in the slots of a `SlotTable`, and the layers that it comes from."""

    runs: Runs
    block_count: int
    maps: tuple[str, ...]
    layers_bytes: int
    """Size of the layers over the full one, and the cost of fetching each."""


class NewLayers(Struct, frozen=True):
    """The maps that the manifest of a new snapshot lists, and by how many bytes the repository grew for them."""

    maps: tuple[str, ...]
    stored_bytes: int


def resolve_map(repository: Repository, manifest: Manifest, table: SlotTable) -> ResolvedMap:
    """Overlay the layers of a snapshot.

    Raises:
        IntegrityError: a layer is damaged, they do not cover the image, or the index lacks a record of it.
        SnapshotIncomplete: a layer is missing.
    """
    block_count = count_blocks(manifest.size_bytes, manifest.block_bytes)
    cover, runs = Cover.nothing(), empty_runs()
    sizes: list[int] = []
    digests = manifest.maps[::-1]
    with repository.objects.reading_ahead(map(MAP.name_of, digests)):
        for digest in digests:
            name = MAP.name_of(digest)
            layer, data = _load_layer(repository, manifest, digest)
            if not sizes and layer.block_count != block_count:
                raise IntegrityError(name, 0, f"is of another size than snapshot {manifest.label}")
            runs = overlay_runs(table.number_runs(LayerNumbering(layer), cover.uncovered(layer), name), runs)
            cover = cover.add(layer)
            sizes.append(len(data))
    if not is_whole(runs, block_count):
        raise IntegrityError(manifest.object_name, 0, "lists maps that do not cover its image")
    return ResolvedMap(runs, block_count, manifest.maps, sum(size + _LAYER_COST_BYTES for size in sizes[:-1]))


def store_layers(
    repository: Repository, numbers: RecordNumbering, runs: Runs, base: ResolvedMap | None, block_count: int
) -> NewLayers:
    """Store how an image differs from its base: nothing, one more layer, or a new full map.

    Args:
        runs: cover the image; as those of the base in slots of `numbers`.
        base: None for an image that gets a full map.
    """
    if base is None:
        return _put_layer(repository, (), _encode_layer(numbers, runs, block_count))
    changed = subtract_runs(runs, base.runs)
    if not len(changed) and block_count == base.block_count:
        return NewLayers(base.maps, 0)
    full: bytes | None = None
    if len(base.maps) < MAX_LAYERS:
        layer = _encode_layer(numbers, changed, block_count)
        cost = base.layers_bytes + len(layer) + _LAYER_COST_BYTES - _ALLOWANCE_BYTES
        # Most layers pass the first bound, about the size of a full map, so that none has to be built.
        if cost < 16 * len(runs) or cost < len(full := _encode_layer(numbers, runs, block_count)):
            return _put_layer(repository, base.maps, layer)
    return _put_layer(repository, (), full or _encode_layer(numbers, runs, block_count))


def is_whole(runs: Runs, block_count: int) -> bool:
    """Return whether runs cover an image without a gap; that none passes its end was seen when each layer was read."""
    starts = np.concatenate((np.zeros(1, np.uint64), end_blocks(runs)))
    return bool(np.array_equal(starts, np.append(runs["first_block"], np.uint64(block_count))))


def _load_layer(repository: Repository, manifest: Manifest, digest: str) -> tuple[MapObject, bytes]:
    """Return a layer and its stored bytes."""
    try:
        return repository.objects.get_with_bytes(MAP, MAP.name_of(digest))
    except ObjectNotFound as error:
        raise SnapshotIncomplete(manifest.label, MAP.name_of(digest)) from error


def _put_layer(repository: Repository, below: tuple[str, ...], data: bytes) -> NewLayers:
    name, stored_bytes = repository.objects.put_named(MAP, [data])
    return NewLayers((*below, name), stored_bytes)


def _encode_layer(numbers: RecordNumbering, runs: Runs, block_count: int) -> bytes:
    """Return the map object of runs that are in slots of `numbers`."""
    used = numbers.used_records(runs)
    counts = numbers.slot_counts[used]
    own_firsts = FIRST_SLOT + np.cumsum(counts) - counts
    own_runs = renumber_runs(runs, numbers.first_slots[used], counts, own_firsts, "the new map")
    own_runs = overlay_runs(own_runs, empty_runs())
    data = build_map(MapObject(block_count, numbers.record_ids[used], counts.astype(np.uint16), own_runs))
    read_back = parse_map(data, "the new map")
    assert np.array_equal(read_back.runs, own_runs)
    return data
