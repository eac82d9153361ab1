# SPDX-License-Identifier: Apache-2.0
"""What this program is made with."""

from __future__ import annotations

import platform
from importlib.metadata import version as find_version

import zstandard

from deltaimg import kernels
from deltaimg.format.framing import VERSION


def find_versions() -> dict[str, str]:
    """Return the versions of the format, of the kernels and of all that the program is made with, by name."""
    libraries = ("numpy", "blake3", "cffi", "msgspec", "typer", "rich", "zstandard")
    return {
        "format": str(VERSION),
        "kernels": kernels.NAME,
        "python": platform.python_version(),
        "libzstd": ".".join(str(part) for part in zstandard.ZSTD_VERSION),
    } | {name: find_version(name) for name in libraries}
