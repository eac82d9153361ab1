# SPDX-License-Identifier: Apache-2.0
"""Which snapshots of the destination the source has forgotten, for `--delete`.

Always  only those of images that the source has snapshots of: an image that is gone as a whole stays in the destination.
Always  none that an encrypted source has recorded, and lost without a forget.
Always  nothing is named where the source is empty, or has no snapshot of an image in common with the destination: it may be the
        wrong one, or not be mounted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from deltaimg.engine.sync.selection import Selection
from deltaimg.errors import DeletionRefused
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.repository import SnapshotRef


def find_forgotten(
    selection: Selection, options: SyncOptions, source: str, destination: str, withheld: Collection[str] = ()
) -> tuple[SnapshotRef, ...]:
    """Return the snapshots to forget in the destination, in order of image and time.

    Args:
        source, destination: where both are, for messages.
        withheld: ids of snapshots that the source has lost without a forget.

    Raises:
        DeletionRefused: the source is empty or foreign, or there are more than `options.max_delete`.
    """
    if not options.delete:
        return ()
    if not selection.source:
        raise DeletionRefused(destination, f"{source} has no snapshot at all", hint="is that the right source?")
    images = {ref.image for ref in selection.source}
    if selection.named:
        images &= selection.named
    there: dict[str, set[SnapshotRef]] = defaultdict(set)
    for ref in selection.there:
        if ref.image in images:
            there[ref.image].add(ref)
    gone: list[SnapshotRef] = []
    for image, refs in there.items():
        lacking = refs - selection.source
        if lacking == refs:
            problem = f"{source} has none of the {len(refs)} snapshots of image '{image}' that are there"
            raise DeletionRefused(destination, problem, hint="is that the right source?")
        gone += [ref for ref in lacking if ref.id not in withheld]
    if len(gone) > options.max_delete:
        raise DeletionRefused(
            destination,
            f"{source} has forgotten {len(gone)} snapshots that are there, and --max-delete allows {options.max_delete}",
            hint=f"if that is right, run again with --max-delete {len(gone)}",
        )
    return tuple(sorted(gone))
