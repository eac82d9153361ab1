# SPDX-License-Identifier: Apache-2.0
"""An image of Ceph that is written to by librbd, backed up, and compared by the program `rbd`."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

from deltaimg.api.backup import backup
from deltaimg.engine.restore.run import restore
from deltaimg.format.manifest import Manifest
from deltaimg.image.rbd.address import parse_rbd_address
from deltaimg.image.rbd.image import opened_rbd_image
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository
from tests.support.repositories import Warnings, make_repository

POOL = "vms"
SIZE_BYTES = 48 * MIB
OBJECT_BYTES = 4 * MIB
PAGE = 4 * KIB


def run(*command: object) -> str:
    """Run a command that must succeed, and return what it prints."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


class Disk:
    """An image, and a repository. Half of it has content."""

    def __init__(self, name: str, folder: Path, *options: object, repository: Repository | None = None) -> None:
        self.spec, self.folder = f"{POOL}/{name}", folder
        self.path = f"rbd:{self.spec}"
        self.address = parse_rbd_address(self.path)
        self.repository = repository or make_repository()
        self.random, self.progress = random.Random(1), Warnings()
        run("rbd", "create", self.spec, "--size", f"{SIZE_BYTES}B", *options)
        self.write_at(*((offset, self.random.randbytes(2 * MIB)) for offset in range(0, SIZE_BYTES, OBJECT_BYTES)))

    def write_at(self, *pieces: tuple[int, bytes]) -> None:
        with opened_rbd_image(self.address, is_writable=True) as image:
            for offset, data in pieces:
                image.write(offset, memoryview(data))
            image.flush()

    def write(self, count: int = 8) -> list[int]:
        """Write pages at random, and return their offsets."""
        offsets = [page * PAGE for page in self.random.sample(range(SIZE_BYTES // PAGE), count)]
        self.write_at(*((offset, self.random.randbytes(PAGE)) for offset in offsets))
        return offsets

    def clear(self, offset: int, length: int) -> None:
        with opened_rbd_image(self.address, is_writable=True) as image:
            image.clear(offset, length)

    def back_up(self, track: str = "auto", name: str = "vm1", path: str = "", **options: object) -> Manifest:
        self.progress.messages.clear()
        made = BackupOptions(track=track, workers=2, audit_blocks=20, **options)  # type: ignore[arg-type]
        return backup(self.repository, path or self.path, name, made, progress=self.progress)

    def list_snapshots(self) -> list[str]:
        """Return the names of the image's snapshots, as `rbd` lists them."""
        return [each["name"] for each in json.loads(run("rbd", "snap", "ls", self.spec, "--format", "json"))]

    def assert_restores(self, manifest: Manifest, spec: str = "") -> None:
        """Restore a snapshot, and compare it with what `rbd export` makes of the image, or of another one."""
        restored, exported = self.folder / "restored", self.folder / "exported"
        restore(self.repository, manifest, str(restored))
        run("rbd", "export", "--no-progress", spec or self.spec, exported)
        run("cmp", restored, exported)
        restored.unlink()
        exported.unlink()
