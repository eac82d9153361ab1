# SPDX-License-Identifier: Apache-2.0
"""Do the map layers that snapshots list fit each other, their images and the index? A part of `check`.

Each layer is parsed once for every place that it has over others, from the newest down, and only what some snapshot needs of
it is looked up: records that a layer lists and nothing needs any more may have been pruned.

Memory  one layer and what newer ones cover; a hundred bytes a layer.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import distinct, end_blocks
from deltaimg.engine.check.catalog import Catalog
from deltaimg.engine.check.findings import FindingKind, Findings, count_records
from deltaimg.errors import IntegrityError, StoreError, UnsupportedFormat
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MapObject
from deltaimg.ids import EntryNumbers
from deltaimg.model import count_blocks
from deltaimg.repo.layer_tree import LayerNode, NeededLayer, grow_trees, list_layers, walk_layers
from deltaimg.repo.numbering import LayerNumbering, list_named_slots
from deltaimg.repo.object_kinds import MAP
from deltaimg.repo.repository import Repository


class LayerCheck:
    """What the layers of all snapshots need, and what is wrong with them."""

    def __init__(self, repository: Repository, sizes: dict[str, int], catalog: Catalog, findings: Findings) -> None:
        """Args: sizes: of all objects that were listed, by name."""
        self._repository, self._sizes, self._catalog, self._findings = repository, sizes, catalog, findings
        self.is_used: npt.NDArray[np.bool_] = np.zeros(len(catalog), np.bool_)
        """Of each record of the catalog, whether a snapshot needs some of its slots."""
        self.unknown: dict[bytes, int] = {}
        """Records that snapshots need and no index has, and the size of their blocks."""
        self._lengths: dict[LayerNode, tuple[int, int]] = {}
        """Of each layer, the blocks of its image, and how many of them from the start may be left to the layers below it."""
        self._unreadable: set[str] = set()

    def check(self, manifests: Iterable[Manifest]) -> None:
        """Check all layers that snapshots list."""
        roots = grow_trees(manifests)
        names = (MAP.name_of(node.digest) for node in list_layers(roots))
        with self._repository.objects.reading_ahead(name for name in names if name in self._sizes):
            for needed in walk_layers(roots, self._load):
                self._check_records(needed)
                self._check_length(needed.node, needed.layer)
                self._lengths[needed.node] = (needed.layer.block_count, _count_left_blocks(needed.layer))
        for node, (_, left_blocks) in self._lengths.items():
            below = self._lengths.get(node.below, (left_blocks, 0)) if node.below else (0, 0)
            if left_blocks > below[0]:
                self._add_contradiction(node, f"leaves blocks of {_tell_labels(node)} to no map below it")

    def _load(self, node: LayerNode) -> MapObject | None:
        name = MAP.name_of(node.digest)
        if name in self._unreadable:
            return None
        try:
            if name in self._sizes:
                return self._repository.objects.get(MAP, name)
            self._findings.add_error(FindingKind.MISSING, name, f"is missing; {_tell_labels(node)} needs it")
        except (IntegrityError, StoreError, UnsupportedFormat) as error:
            self._findings.add_failure(name, error)
        self._unreadable.add(name)
        return None

    def _check_records(self, needed: NeededLayer) -> None:
        """Look up in the index the records that snapshots need of a layer."""
        layer, catalog = needed.layer, self._catalog
        layer_numbers = LayerNumbering(layer)
        used = layer_numbers.used_records(needed.runs)
        entries = catalog.find(layer.record_ids[used])
        shift = needed.node.find_snapshot().block_bytes.bit_length() - 1
        self.unknown |= {row.tobytes(): 1 << shift for row in layer.record_ids[used[entries < 0]]}
        found, slots = entries[entries >= 0], layer.record_slots[used[entries >= 0]]
        self.is_used[found] = True
        is_other = (catalog.entries["slots"][found] != slots) | (catalog.entries["block_shift"][found] != shift)
        for count, problem in (
            (int((entries < 0).sum()), "that no index has"),
            (int(is_other.sum()), "whose blocks are others in the index"),
            (int((~catalog.is_usable[found]).sum()), "of what is missing or damaged"),
            (
                self._count_lacking(needed, layer_numbers, used, EntryNumbers(entries)),
                "of which no copy has all blocks that it needs",
            ),
        ):
            if count:
                self._add_contradiction(
                    needed.node, f"{_tell_labels(needed.node)} needs {count_records(count)} {problem}"
                )

    def _count_lacking(
        self,
        needed: NeededLayer,
        layer_numbers: LayerNumbering,
        used: npt.NDArray[np.int64],
        entries: EntryNumbers,
    ) -> int:
        """Return how many records lack blocks that snapshots need of them.

        Args:
            used: numbers of the records that are needed. entries: of each its entry in the catalog, or -1.
        """
        if not len(self._catalog.cuts):
            return 0
        of_record = np.full(layer_numbers.record_count, -1, np.int64)
        of_record[used] = entries
        lacking = [np.empty(0, np.int64)]
        for records, firsts, counts in list_named_slots(
            needed.runs, layer_numbers.first_slots, layer_numbers.slot_counts
        ):
            is_cut = self._catalog.cuts.is_cut(EntryNumbers(of_record[records]))
            lacking.append(
                self._catalog.find_lacking(EntryNumbers(of_record[records[is_cut]]), firsts[is_cut], counts[is_cut])
            )
        return len(distinct(*lacking))

    def _check_length(self, node: LayerNode, layer: MapObject) -> None:
        """Compare a layer with the images of the snapshots whose newest it is."""
        for manifest in node.snapshots:
            block_count = count_blocks(manifest.size_bytes, manifest.block_bytes)
            if layer.block_count != block_count:
                problem = f"is of {layer.block_count} blocks, and {manifest.label}, which lists it, has {block_count}"
                self._add_contradiction(node, problem)

    def _add_contradiction(self, node: LayerNode, problem: str) -> None:
        self._findings.add_error(FindingKind.CONTRADICTORY, MAP.name_of(node.digest), problem)


def _count_left_blocks(layer: MapObject) -> int:
    """Return after how many blocks from the start a layer has a run for every block."""
    starts = np.append(layer.runs["first_block"], np.uint64(layer.block_count))
    ends = np.concatenate((np.zeros(1, np.uint64), end_blocks(layer.runs)))
    gaps = np.flatnonzero(starts != ends)
    return int(starts[gaps[-1]]) if len(gaps) else 0


def _tell_labels(node: LayerNode) -> str:
    """Return the snapshots that list a layer, in a few words."""
    labels = [manifest.label for each in node.list_subtree() for manifest in each.snapshots]
    more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
    return f"snapshot {labels[0]}{more}"
