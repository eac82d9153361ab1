# SPDX-License-Identifier: Apache-2.0
"""Block devices as administrators have them: partitions, mounts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.components import requires_program, requires_root, run_or_skip, skip_without


@contextmanager
def partition(device: str, start: int, length: int, number: int = 1) -> Iterator[str]:
    """Make bytes of a device a partition of it, without a table."""
    run_or_skip("addpart", requires_program("addpart"), device, str(number), str(start // 512), str(length // 512))
    path = f"{device}p{number}"
    try:
        _wait_for(Path(path))
        yield path
    finally:
        subprocess.run(["delpart", device, str(number)], check=True)


@contextmanager
def failing_file(content: Path, folder: Path, unreadable: list[tuple[int, int]]) -> Iterator[Path]:
    """A file with the bytes of `content`, of which [start, end) cannot be read: EIO, as a failing disk says.

    It is served by nbdkit and mounted by nbdfuse. A loop device on it is a failing disk.
    """
    requires_root()
    folder.mkdir()
    bad = "".join(
        f"if [ $4 -lt {end} ] && [ $(($4 + $3)) -gt {start} ]; then echo EIO lost >&2; exit 1; fi; "
        for start, end in unreadable
    )
    read = f"dd if={content} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=1M status=none"
    command = [
        requires_program("nbdfuse"), str(folder / "disk"), "--command", requires_program("nbdkit"), "-s", "eval",
        f"get_size=stat -c %s {content}", f"pread={bad}{read}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(folder / "disk")
            if not (folder / "disk").exists():
                skip_without("nbdfuse", "nothing was mounted")
            yield folder / "disk"
        finally:
            subprocess.run(["umount", "--lazy", folder], check=False)
            server.wait(timeout=20)


def _wait_for(path: Path) -> None:
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)


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
