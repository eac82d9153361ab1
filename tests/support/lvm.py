# SPDX-License-Identifier: Apache-2.0
"""A volume group on a device that DELTAIMG_LVM_DEVICE names: scripts/lvm-guest gives a virtual machine one."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltaimg.api.backup import backup
from deltaimg.engine.restore.run import restore
from deltaimg.format.manifest import Manifest
from deltaimg.freeze import lvm_commands
from deltaimg.freeze.lvm_commands import Volume
from deltaimg.freeze.thin_pool import read_state
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository
from tests.support.components import skip_without
from tests.support.repositories import Warnings, make_repository

GROUP = "deltaimg-test"
CHUNK_BYTES = 64 * KIB
PAGE = 4 * KIB


def run(*command: object) -> str:
    """Run a command that must succeed, and return what it prints."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


@contextmanager
def volume_group() -> Iterator[None]:
    """Make the group, whose name has a dash that device mapper doubles; all of it is removed at the end."""
    device = os.environ.get("DELTAIMG_LVM_DEVICE")
    if device is None:
        skip_without("lvm", "DELTAIMG_LVM_DEVICE names no device for a volume group: see scripts/lvm-guest")
    run("pvcreate", "--quiet", "--yes", "--force", device)
    run("vgcreate", "--quiet", GROUP, device)
    try:
        yield
    finally:
        run("vgremove", "--quiet", "--force", "--yes", GROUP)


class Disk:
    """A volume that is backed up, and a repository."""

    def __init__(self, name: str, size_bytes: int, repository: Repository | None = None) -> None:
        self.name, self.path, self.size_bytes = name, f"/dev/{GROUP}/{name}", size_bytes
        self.repository = repository or make_repository()
        self.random, self.progress = random.Random(1), Warnings()

    def fill(self, count_bytes: int, offset: int = 0) -> None:
        with open(self.path, "r+b", buffering=0) as device:
            device.seek(offset)
            device.writelines(self.random.randbytes(MIB) for _ in range(count_bytes // MIB))
            os.fsync(device.fileno())

    def write(self, count: int = 8) -> list[int]:
        """Write pages at random where it was filled, and return their offsets."""
        offsets = [page * PAGE for page in self.random.sample(range(self.size_bytes // 2 // PAGE), count)]
        with open(self.path, "r+b", buffering=0) as device:
            for offset in offsets:
                device.seek(offset)
                device.write(self.random.randbytes(PAGE))
            os.fsync(device.fileno())
        return offsets

    def discard(self, offset: int, length: int) -> None:
        run("blkdiscard", "--offset", offset, "--length", length, self.path)

    def back_up(self, track: str = "auto", name: str = "vm1", **options: object) -> Manifest:
        self.progress.messages.clear()
        made = BackupOptions(track=track, workers=1, audit_blocks=20, **options)  # type: ignore[arg-type]
        return backup(self.repository, self.path, name, made, progress=self.progress)

    def assert_restores(self, manifest: Manifest, folder: Path, path: str | None = None) -> None:
        """Restore a snapshot, and compare it with a device, the volume unless another is named, by cmp."""
        restored = folder / "restored"
        restore(self.repository, manifest, str(restored))
        run("cmp", restored, path or self.path)
        restored.unlink()


def list_volumes() -> dict[str, Volume]:
    """Return all volumes of the group, by name."""
    return {each.name: each for each in lvm_commands.list_volumes(GROUP)}


def list_made() -> list[str]:
    """Return the names of the volumes that backups have made."""
    return sorted(name for name in list_volumes() if "-deltaimg-" in name)


def find_held() -> int | None:
    """Return where the pool's metadata snapshot is."""
    return read_state(list_volumes()["pool"], "pool").held_block


class Written:
    """How many pages a writer has written."""

    count = 0


@contextmanager
def writer(path: str, size_bytes: int, begin: Path | None = None) -> Iterator[Written]:
    """Write pages at random to a device as fast as it goes, past the page cache, until the end of the context.

    Args: begin: a file; nothing is written until it is there.
    """
    written, is_over, chance = Written(), threading.Event(), random.Random(2)
    page = mmap.mmap(-1, PAGE)

    def write() -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
        while begin and not begin.exists() and not is_over.wait(0.01):
            pass
        while not is_over.is_set():
            page[:] = chance.randbytes(PAGE)
            os.pwrite(descriptor, page, chance.randrange(size_bytes // PAGE) * PAGE)
            written.count += 1
        os.close(descriptor)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        is_over.set()
        thread.join()
