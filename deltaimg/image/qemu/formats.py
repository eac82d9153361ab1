# SPDX-License-Identifier: Apache-2.0
"""Which of the formats that qemu reads a file is in: as the operator says, or as its name and its header say together.

A header alone is no evidence: the guest writes the first bytes of a flat image, and could have any file of this host read as a
backing file. A name is the host's.
"""

from __future__ import annotations

import os
from typing import Final

from deltaimg.errors import UnsupportedImage
from deltaimg.image.containers import Container, find_container
from deltaimg.image.source import ImageSource

FLAT: Final = "raw"
BY_NAME: Final = "auto"
_ENDINGS: Final = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vhdx": "vhdx", ".vdi": "vdi", ".vhd": "vpc", ".vpc": "vpc"}


def find_named_driver(path: str) -> str | None:
    """Return the driver for files with such a name; None for those that are flat, as far as their names say."""
    return _ENDINGS.get(os.path.splitext(path)[1].lower())


def choose_driver(path: str, wanted: str, source: ImageSource) -> str | None:
    """Return the driver to read a file with; None where it is read as it is.

    Args:
        path: as the operator named it. wanted: `auto`, `raw`, or a driver. source: the file as it is.

    Raises:
        UnsupportedImage: it is not in the format that was asked for.
    """
    if wanted == FLAT or (wanted == BY_NAME and source.is_sequential):
        return None
    if source.is_sequential:
        raise UnsupportedImage(
            path, f"is a stream, and a {wanted} file is read in places", hint="save it to a file first"
        )
    driver = find_named_driver(path) if wanted == BY_NAME else wanted
    if driver is None:
        return None
    found: Container | None = find_container(source)
    if found is not None and found.driver == driver:
        return driver
    if wanted == BY_NAME:
        return None
    problem = "is a flat image" if found is None else f"is in {found.name} format"
    raise UnsupportedImage(path, f"{problem}, not in that of --format {wanted}", hint="leave --format out")
