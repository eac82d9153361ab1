# SPDX-License-Identifier: Apache-2.0
"""Snapshots compared, with one another and with images."""

from __future__ import annotations

from deltaimg.api.repositories import find_snapshot
from deltaimg.engine.inspect.change_map import ChangeMap as ChangeMap
from deltaimg.engine.inspect.change_map import lay_on_curve as lay_on_curve
from deltaimg.engine.inspect.change_map import map_changes as map_changes
from deltaimg.engine.inspect.diff import Difference as Difference
from deltaimg.engine.inspect.diff import diff_snapshots
from deltaimg.engine.progress import Progress
from deltaimg.engine.restore.compare import ComparedImage, compare_image
from deltaimg.image.open_source import open_source
from deltaimg.image.qemu.formats import BY_NAME, FLAT
from deltaimg.repo.repository import Repository


def compare(
    repository: Repository, selector: str, image_path: str, *, progress: Progress | None = None
) -> ComparedImage:
    """Compare the image at `image_path` with a snapshot, block by block."""
    manifest = find_snapshot(repository, selector).manifest
    source = open_source(image_path, format=FLAT if manifest.container else BY_NAME)
    try:
        return compare_image(repository, manifest, source, progress=progress)
    finally:
        source.close()


def diff(repository: Repository, older: str, newer: str) -> Difference:
    """Return which extents differ between two snapshots."""
    return diff_snapshots(
        repository, find_snapshot(repository, older).manifest, find_snapshot(repository, newer).manifest
    )
