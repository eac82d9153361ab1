# SPDX-License-Identifier: Apache-2.0
"""A backup leaves the host's page cache as it found it: what was cached stays, what was not goes again."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from deltaimg.engine.backup.run import back_up
from deltaimg.image.open_source import open_source
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import BackupOptions
from tests.support.components import skip_without
from tests.support.images import make_incompressible_image
from tests.support.repositories import make_repository

IMAGE_BYTES = 24 * MIB
PAGE_BYTES = mmap.PAGESIZE


def cached_pages(path: Path) -> np.ndarray:
    """Return for each page of a file whether it is in the page cache."""
    size = path.stat().st_size
    count = -(-size // PAGE_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    vector = ctypes.create_string_buffer(count)
    with open(path, "rb") as file:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        try:
            assert libc.mincore(address, size, vector) == 0
        finally:
            libc.munmap(address, size)
    return (np.frombuffer(vector.raw, np.uint8)[:count] & 1).astype(bool)


def drop(path: Path) -> None:
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(path: Path, start: int, length: int) -> None:
    """Bring a range into the cache, and nothing beside it."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), length, start)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image on a disk, none of it cached."""
    path = Path(make_incompressible_image(IMAGE_BYTES, seed=7).save(tmp_path / "image.raw"))
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    drop(path)
    if cached_pages(path).any():
        skip_without("cache", "this file system does not let go of its pages")
    return path


def back_up_file(path: Path) -> None:
    source = open_source(str(path))
    back_up(make_repository(), source, "vm1", BackupOptions(workers=2))
    source.close()


def test_what_was_not_cached_is_not_cached_afterwards(image: Path) -> None:
    """Read-ahead brought pages in that the next read then took for the host's own: half of the image stayed cached."""
    back_up_file(image)
    assert cached_pages(image).sum() * PAGE_BYTES <= MIB


def test_what_was_cached_stays(image: Path) -> None:
    warm(image, 0, IMAGE_BYTES)
    assert cached_pages(image).mean() > 0.95
    back_up_file(image)
    # A machine that is short of memory drops a page or two by itself meanwhile.
    assert cached_pages(image).mean() > 0.95


def test_each_page_is_left_as_it_was_found(image: Path) -> None:
    """Dropping whole spans took cached pages along."""
    for start in range(0, IMAGE_BYTES, 3 * MIB):
        warm(image, start + 512 * KIB, MIB)
    before = cached_pages(image)
    back_up_file(image)
    after = cached_pages(image)
    lost = int((before & ~after).sum()) * PAGE_BYTES
    kept = int((after & ~before).sum()) * PAGE_BYTES
    assert lost <= before.sum() * PAGE_BYTES // 20, f"{lost} bytes of the host's were dropped"
    assert kept <= MIB, f"{kept} bytes were left in the cache"
