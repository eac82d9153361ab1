# SPDX-License-Identifier: Apache-2.0
"""Backups in one line, and the one assertion that matters: a snapshot restores byte for byte."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from deltaimg.crypto.key_slots import Key, KeyFile
from deltaimg.engine.backup.run import back_up
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.restore.run import RestoreResult, restore
from deltaimg.format.manifest import Manifest
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.creation import create_repository
from deltaimg.repo.index import load_index
from deltaimg.repo.key_slots import open_key_slots
from deltaimg.repo.lock_waiting import LockWaiting
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Store
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.images import SyntheticImage, SyntheticSource


class Warnings:
    """A `Progress` that keeps what it was warned of."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.done_bytes = 0
        self.total_bytes: int | None = None

    def begin(self, task: str, total_bytes: int | None) -> None:
        self.done_bytes, self.total_bytes = 0, total_bytes

    def end(self) -> None: ...

    def advance(self, done_bytes: int) -> None:
        self.done_bytes += done_bytes

    def warn(self, message: str) -> None:
        self.messages.append(message)


KEY = KeyFile(bytes(range(32)))
"""Opens the encrypted repositories of tests; a passphrase would cost each of them half a second."""


def make_repository(
    store: Store | None = None,
    key: Key | None = None,
    like: Repository | None = None,
    lock_waiting: LockWaiting | None = None,
    *,
    is_padded: bool = False,
) -> Repository:
    """Return a new repository, in memory unless `store` says otherwise; encrypted where `key` is given."""
    return create_repository(
        store or MemoryStore(),
        created=START,
        software="tests",
        key=key,
        like=like,
        is_padded=is_padded,
        lock_waiting=lock_waiting,
    )


def open_again(store: Store) -> Repository:
    """Open the repository in a store, with `KEY` if it is encrypted."""
    return Repository.open(store, lambda objects, config: open_key_slots(objects, config, KEY)[0])


def reopen(repository: Repository, store: Store) -> Repository:
    """Return a repository as it is in another store, or in its own behind a wrapper."""
    return Repository(store, repository.config, repository.secret)


def back_up_image(
    repository: Repository,
    image: SyntheticImage,
    name: str = "vm1",
    *,
    clock: FixedClock | None = None,
    progress: Warnings | None = None,
    **options: object,
) -> Manifest:
    """Store `image` as it is now as the newest snapshot of `name`."""
    clock = clock or FixedClock()
    options.setdefault("workers", 2)
    # In images of one record or two a single delta would reach the bound that backups have by default.
    options.setdefault("max_read_amplification", 100.0)
    return back_up(
        repository,
        SyntheticSource(image),
        name,
        BackupOptions(**options),  # type: ignore[arg-type]
        clock=clock,
        progress=progress,
    )


def assert_restores(repository: Repository, manifest: Manifest, content: bytes | bytearray) -> RestoreResult:
    """Restore `manifest` to a file and assert that it is `content`, byte for byte; read once more at random offsets."""
    with tempfile.TemporaryDirectory(prefix="deltaimg-test-") as folder:
        target = os.path.join(folder, "restored.raw")
        result = restore(repository, manifest, target, workers=2)
        assert_same_bytes(Path(target).read_bytes(), content)
    assert not result.damage
    reader = SnapshotContent(repository, manifest, load_index(repository)).make_reader()
    middle = len(content) // 2 + 17
    assert reader.read(middle, 9000) == content[middle : middle + 9000]
    return result


def assert_same_bytes(found: bytes | bytearray, expected: bytes | bytearray) -> None:
    """Compare without printing megabytes: the message names the first byte that differs."""
    assert len(found) == len(expected)
    if found != expected:
        first = next(index for index in range(len(found)) if found[index] != expected[index])
        raise AssertionError(f"differs from byte {first}")


def count_stored_bytes(repository: Repository) -> int:
    """Return the size of everything in a repository."""
    return sum(found.size_bytes for found in repository.objects.store.list(""))
