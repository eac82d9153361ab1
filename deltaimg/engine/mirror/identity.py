# SPDX-License-Identifier: Apache-2.0
"""Whether the copy is the image itself, by another name of its host perhaps (`localhost:/same/file`), or lies on it.

What a guest writes between the reading and the writing would be taken back then. Numbers of devices and inodes say so wherever
both sides run on one kernel, in containers as well. A file of a network file system that two hosts mount is not found out.
"""

from __future__ import annotations

from deltaimg.engine.mirror.protocol import ImageIdentity
from deltaimg.errors import UsageError
from deltaimg.image.block_devices import find_storage, identify
from deltaimg.processes import find_own_place


def identify_image(path: str) -> ImageIdentity | None:
    """Return what the far side compares the copy with; None where the image is no file or device of this host."""
    identity = identify(path)
    if identity is None:
        return None
    return ImageIdentity(find_own_place().boot_id, identity, list(find_storage(path)))


def refuse_image(path: str, image: ImageIdentity | None) -> None:
    """Raise UsageError where the copy at `path` is the image, or one of the two lies on the other."""
    if image is None or not image.boot_id or image.boot_id != find_own_place().boot_id:
        return
    if image.identity in find_storage(path) or identify(path) in image.storage:
        raise UsageError(f"{path}: is the image itself, or lies on it", hint="name another place for the copy")
