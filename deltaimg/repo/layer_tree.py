# SPDX-License-Identifier: Apache-2.0
"""The map layers of many snapshots as trees, so that each layer is read once however many snapshots list it.

A root is a full map; its children are the layers directly over it, and so on. Snapshots of which one list continues
the other make a single path; where two continue a list differently, it forks. A snapshot needs of a layer what no layer between
the two covers. What the snapshots of a tree together need is found from the newest layers to the root in one pass, in which
only the blocks covered since the last snapshot are kept.

Memory  a few hundred bytes a snapshot; one layer, and one cover for each level of the path that is walked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct, field

from deltaimg.arrays import Runs
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MapObject
from deltaimg.repo.cover import Cover


class LayerNode(Struct, eq=False):
    """A layer in its place over others."""

    digest: str
    below: LayerNode | None
    above: dict[str, LayerNode] = field(default_factory=dict)
    snapshots: list[Manifest] = field(default_factory=list)
    """Those whose newest layer this is."""

    def find_snapshot(self) -> Manifest:
        """Return a snapshot that lists this layer: the one with the fewest layers over it."""
        return next(manifest for node in self.list_subtree() for manifest in node.snapshots)

    def list_subtree(self) -> list[LayerNode]:
        """Return this node and all above it, each level behind the one below it."""
        nodes = [self]
        for node in nodes:
            nodes += node.above.values()
        return nodes


class NeededLayer(Struct, frozen=True):
    """A layer, and the parts of its runs that snapshots need, in the numbering of the layer."""

    node: LayerNode
    layer: MapObject
    runs: Runs


LoadLayer = Callable[[LayerNode], MapObject | None]
"""Returns None for a layer that cannot be read, and has noted that."""


def grow_trees(manifests: Iterable[Manifest]) -> list[LayerNode]:
    """Return the roots of all layers that snapshots list."""
    roots: dict[str, LayerNode] = {}
    for manifest in manifests:
        siblings, node = roots, None
        for digest in manifest.maps:
            node = siblings.setdefault(digest, LayerNode(digest, node))
            siblings = node.above
        assert node is not None
        node.snapshots.append(manifest)
    return list(roots.values())


def walk_layers(roots: Iterable[LayerNode], load: LoadLayer) -> Iterator[NeededLayer]:
    """Yield every layer that can be read, those over it before it, with what the snapshots of its tree need of it."""
    for root in roots:
        # Of nodes without snapshots, what is covered for all snapshots above those of their children that were walked.
        joined: dict[LayerNode, Cover] = {}
        for node in _list_newest_first(root):
            cover = joined.pop(node, Cover.nothing())
            layer = load(node)
            if layer is not None:
                yield NeededLayer(node, layer, cover.uncovered(layer))
                cover = cover.add(layer)
            if node.below is not None and not node.below.snapshots:
                joined[node.below] = joined[node.below].intersect(cover) if node.below in joined else cover


def list_layers(roots: Iterable[LayerNode]) -> Iterator[LayerNode]:
    """Yield every layer in the order in which `walk_layers` loads it."""
    for root in roots:
        yield from _list_newest_first(root)


def _list_newest_first(root: LayerNode) -> list[LayerNode]:
    """Return the nodes of a tree, each behind all that are above it, one path after the other."""
    nodes, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        waiting += node.above.values()
    return nodes[::-1]
