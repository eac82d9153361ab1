# SPDX-License-Identifier: Apache-2.0
"""Where change tracking kept a clone of the base, what has changed since is read there for deltas, and never believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deltaimg.engine.backup.run import back_up
from deltaimg.format.manifest import Manifest
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.key_slots import add_key_slot, open_key_slots
from deltaimg.repo.repository import Repository
from deltaimg.tracking.interface import ChangeClaim
from deltaimg.tracking.kept_file import KeptFile
from tests.support.clock import START, FixedClock
from tests.support.images import SyntheticImage, SyntheticSource
from tests.support.repositories import KEY, assert_restores, make_repository
from tests.unit.repo.test_write_only import HOST_KEY


class KeptImage:
    """A tracker that knows nothing, and has a file for the image of the base."""

    method = "reflink"

    def __init__(self, path: Path | None) -> None:
        self.path, self.opened = path, 0

    def find_changes(self, base: Manifest) -> ChangeClaim:
        return ChangeClaim(None, "a test")

    def keep(self, snapshot: str) -> str | None:
        return None

    def settle(self, snapshot: str) -> None: ...

    def open_image(self, base: Manifest) -> KeptFile | None:
        self.opened += 1
        return None if self.path is None else KeptFile(os.open(self.path, os.O_RDONLY))


def store(host: Repository, image: SyntheticImage, tracker: KeptImage, folder: Path) -> Manifest:
    options = BackupOptions(workers=2, max_read_amplification=100.0, cache_folder=str(folder))
    return back_up(host, SyntheticSource(image), "vm1", options, clock=FixedClock(), tracker=tracker)


@pytest.mark.parametrize("kept", ["the base", "something else", "a part", "nothing"])
def test_pages_that_changed_in_place_are_deltas_of_what_the_clone_has(kept: str, tmp_path: Path) -> None:
    repository = make_repository(key=KEY)
    add_key_slot(repository, HOST_KEY, "", START, is_write_only=True)
    secret, _ = open_key_slots(repository.objects, repository.config, HOST_KEY)
    host = Repository(repository.objects.store, repository.config, secret)
    image = SyntheticImage(4 << 20, seed=3)
    image.write_random(0, 3 << 20)
    store(host, image, KeptImage(None), tmp_path / "cache")
    clone = tmp_path / "clone"
    before = bytes(image.content)
    clone.write_bytes({"something else": bytes(4 << 20), "a part": before[: 2 << 20]}.get(kept, before))
    for page in range(0, 3 << 20, 8192):  # so much of each page as a database changes
        image.write(page + 100, b"changed")
    tracker = KeptImage(None if kept == "nothing" else clone)
    second = store(host, image, tracker, tmp_path / "cache")
    assert tracker.opened == 1
    assert_restores(repository, second, image.content)
    new_bytes, stored_bytes = second.statistics.new_bytes, second.statistics.stored_bytes
    if kept == "the base":
        assert stored_bytes < new_bytes / 10
    elif kept == "a part":
        assert new_bytes / 10 < stored_bytes < new_bytes
    else:
        assert stored_bytes > 0.9 * new_bytes
