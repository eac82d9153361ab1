# SPDX-License-Identifier: Apache-2.0
"""The snapshots of an image as a tree, bases below those that are stored against them, and their maps along it.

A map is read once, however many snapshots stand on it. Nothing else is read: no index, no digest.

Memory  a resolved map for each snapshot on which others that are still to come stand: one, where nights follow one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from deltaimg.arrays import Runs
from deltaimg.errors import BrokenChain, IntegrityError
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MAPS
from deltaimg.repo.chain import load_map
from deltaimg.repo.numbering import MapNumbers
from deltaimg.repo.repository import Repository

State = TypeVar("State")
Visit = Callable[[Manifest, Runs, int, State | None], State]
"""Called with a snapshot, the runs of its own map, the size of that map, and what the visit of its base returned; None if its
own map is full."""


def walk_chains(
    repository: Repository,
    snapshots: Mapping[str, Manifest],
    targets: Iterable[Manifest],
    numbers: MapNumbers,
    visit: Visit[State],
) -> None:
    """Visit `targets` and all that their maps stand on, down to full maps, each once and bases first.

    Args:
        snapshots: those of the image, by id.
        numbers: what the runs are numbered in.

    Raises:
        BrokenChain: a base is missing. IntegrityError: a map is damaged.
    """
    roots, children, count = _plant(snapshots, targets)
    waiting: list[tuple[Manifest, State | None]] = [(root, None) for root in roots]
    while waiting:
        manifest, below = waiting.pop()
        content, map_bytes = load_map(repository, manifest)
        own_runs = numbers.add_map(content, MAPS + manifest.map)
        state = visit(manifest, own_runs, map_bytes, below)
        count -= 1
        for child in children.pop(manifest.id, ()):
            if child.block_bytes != manifest.block_bytes:
                raise IntegrityError(child.object_name, 0, f"has blocks of another size than its base {manifest.label}")
            waiting.append((child, state))
    if count:
        circle = next(child for each in children.values() for child in each)
        raise BrokenChain(circle.label, circle.base or "(none)")


def _plant(
    snapshots: Mapping[str, Manifest], targets: Iterable[Manifest]
) -> tuple[list[Manifest], dict[str, list[Manifest]], int]:
    """Return the full maps below `targets`, what stands on each snapshot from there up, and how many there are in all."""
    roots: list[Manifest] = []
    children: dict[str, list[Manifest]] = {}
    seen: set[str] = set()
    for target in targets:
        link = target
        while link.id not in seen:
            seen.add(link.id)
            if link.map_is_full:
                roots.append(link)
                break
            base = snapshots.get(link.base or "")
            if base is None:
                raise BrokenChain(link.label, link.base or "(none)")
            children.setdefault(base.id, []).append(link)
            link = base
    return roots, children, len(seen)
