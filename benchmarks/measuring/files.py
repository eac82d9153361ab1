# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks do with files outside of any timing: sizes, copies, warming, comparing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WARM_BYTES = 4 << 20
_LINKED_BYTES = 1 << 20


def stored_bytes(folder: Path) -> int:
    """Bytes of all files in a folder: apparent sizes, a sparse file's holes not counted."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            stat = os.lstat(os.path.join(place, name))
            total += min(stat.st_size, stat.st_blocks * 512)
    return total


def allocated_bytes(path: Path) -> int:
    """What a file takes on its disk."""
    return path.stat().st_blocks * 512


def copy_tree(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source`, times and holes kept, blocks shared where the file system can."""
    remove(target)
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


def link_tree(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source` that shares its large files by hard links, for those who never write into one."""
    remove(target)
    for place, _, names in os.walk(source):
        folder = target / Path(place).relative_to(source)
        folder.mkdir(parents=True)
        for name in names:
            path = Path(place, name)
            if path.stat().st_size >= _LINKED_BYTES:
                os.link(path, folder / name)
            else:
                shutil.copy2(path, folder / name)


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """An empty folder, removed at the end. Ends this process where another one uses it: each would remove the other's files."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{Path(sys.argv[0]).name}: another run uses {folder}: wait for it, or name another --work")
        remove(folder)
        folder.mkdir()
        try:
            yield folder
        finally:
            remove(folder)


def remove(path: Path) -> None:
    """Remove a file or a tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def warm(path: Path) -> None:
    """Read a file's data, or that of all files of a folder, once, so that it lies in the page cache.

    Holes are left out: read, each would fill the cache with zero pages and drive real data out.
    """
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    for file in files:
        with file.open("rb", buffering=0) as stream:
            for start, end in data_extents(file):
                for offset in range(start, end, _WARM_BYTES):
                    os.pread(stream.fileno(), min(_WARM_BYTES, end - offset), offset)


def are_equal(first: Path, second: Path) -> bool:
    """Compare two files byte by byte, by `cmp`."""
    return subprocess.run(["cmp", "-s", str(first), str(second)], check=False).returncode == 0


def are_equal_sparse(first: Path, second: Path) -> bool:
    """Compare two sparse files where either has data; elsewhere both read as zeros. Spares reading a TiB of holes."""
    if first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb", buffering=0) as one, second.open("rb", buffering=0) as other:
        for start, end in sorted(data_extents(first) + data_extents(second)):
            for offset in range(start, end, _WARM_BYTES):
                count = min(_WARM_BYTES, end - offset)
                if os.pread(one.fileno(), count, offset) != os.pread(other.fileno(), count, offset):
                    return False
    return True


def data_extents(path: Path) -> list[tuple[int, int]]:
    """`[start, end)` of all data in a sparse file, in order."""
    extents = []
    with path.open("rb") as file:
        size, position = os.fstat(file.fileno()).st_size, 0
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole follows
                break
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            extents.append((start, position))
    return extents
