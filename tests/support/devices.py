# SPDX-License-Identifier: Apache-2.0
"""Block devices as administrators have them: partitions, mounts."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.components import requires_program, run_or_skip


@contextmanager
def partition(device: str, start: int, length: int, number: int = 1) -> Iterator[str]:
    """Make bytes of a device a partition of it, without a table."""
    run_or_skip("addpart", requires_program("addpart"), device, str(number), str(start // 512), str(length // 512))
    path = f"{device}p{number}"
    try:
        for _ in range(100):
            if os.path.exists(path):
                break
            time.sleep(0.02)
        yield path
    finally:
        subprocess.run(["delpart", device, str(number)], check=True)


@contextmanager
def mounted(device: str, folder: Path, *options: str) -> Iterator[Path]:
    """Mount a device at `folder`, which is made."""
    folder.mkdir()
    run_or_skip("loop", "mount", *options, device, str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def make_ext4(path: str | Path, size_bytes: int | None = None) -> None:
    """Make an ext4 in a device or file, which first gets `size_bytes`."""
    if size_bytes is not None:
        with open(path, "wb") as file:
            file.truncate(size_bytes)
    run_or_skip("ext4", requires_program("mkfs.ext4"), "-q", "-F", str(path))
