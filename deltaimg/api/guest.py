# SPDX-License-Identifier: Apache-2.0
"""Partitions and file systems on images and in snapshots."""

from __future__ import annotations

from contextlib import closing

from deltaimg.api.restore import open_snapshot
from deltaimg.engine.inspect.guest import examine_snapshot, examine_source
from deltaimg.guest.examine import GuestLayout as GuestLayout
from deltaimg.guest.examine import Volume as Volume
from deltaimg.image.open_source import open_source
from deltaimg.image.qemu.formats import BY_NAME
from deltaimg.repo.repository import Repository


def inspect_image(image_path: str) -> GuestLayout:
    """Return what is on the file or device at `image_path`; nothing is mounted or written."""
    with closing(open_source(image_path, format=BY_NAME)) as source:
        return examine_source(source)


def inspect_snapshot(repository: Repository, selector: str) -> GuestLayout:
    """Return what was on an image when a snapshot of it was taken."""
    with open_snapshot(repository, selector) as reader:
        return examine_snapshot(reader)
