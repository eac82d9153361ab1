# SPDX-License-Identifier: Apache-2.0
"""Real processes are killed at random instants, on real file systems whose caches are then dropped."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.api.repositories import open_repository
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ImageLock, MaintenanceLock
from tests.support.clock import START
from tests.support.components import LoopFileSystem, loop_file_system
from tests.support.images import edit_at_random, make_mixed_image
from tests.support.program import command, environment, succeed
from tests.support.repositories import assert_same_bytes
from tests.support.world import assert_sound

IMAGE_BYTES = 2_000_000
FILE_SYSTEM_BYTES = 320 << 20
KEPT = 4
TIMEOUT_S = 60


class Victims:
    """A repository, an image, and processes that are killed while they work on them."""

    def __init__(self, disk: LoopFileSystem, outside: Path, chance: random.Random) -> None:
        self.disk, self.chance = disk, chance
        self.repo, self.image_path = disk.folder / "repo", outside / "vm1.raw"
        self.image = make_mixed_image(IMAGE_BYTES, chance.randrange(1000))
        self.contents: dict[str, bytes] = {}
        self.order: list[str] = []
        self.fates: Counter[str] = Counter()
        self.longest_s = dict.fromkeys(("backup", "forget", "prune"), 0.0)
        succeed("init", "-r", self.repo)
        for _ in range(KEPT):
            self.edit()
            self.run("backup", is_killed=False)
            self.look("backup", is_done=True)
        self.run("forget", is_killed=False)
        self.run("prune", is_killed=False)

    def edit(self) -> None:
        edit_at_random(self.image, 8)
        self.image.write_random(self.chance.randrange(IMAGE_BYTES), 60_000)
        self.image_path.unlink(missing_ok=True)
        self.image.save(self.image_path)

    def run(self, verb: str, *, is_killed: bool) -> bool:
        """Run a command to its end, which must be a good one, or kill it; return whether it came to its end."""
        arguments = {
            "backup": ("backup", self.image_path, "--image", "vm1", "--no-cache"),
            "forget": ("forget", "vm1", "--keep-last", KEPT),
            "prune": ("prune",),
        }[verb]
        begun = time.monotonic()
        process = subprocess.Popen(
            command(*arguments, "-r", self.repo),
            env=environment(None), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if not is_killed:
            _, said = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, said
            self.longest_s[verb] = max(self.longest_s[verb], time.monotonic() - begun)
            return True
        # Half of the kills wait until the lock shows that the program has started, which takes most of its time.
        if self.chance.random() < 0.5:
            folder = self.repo / "locks" / ("vm1" if verb != "prune" else ".maintenance")
            while process.poll() is None and not any(folder.glob("*")):
                time.sleep(0.0005)
            time.sleep(self.chance.random() ** 2 * self.longest_s[verb] / 2)
        else:
            time.sleep(self.chance.random() * self.longest_s[verb])
        process.kill()
        _, said = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode in (0, -9), said
        self.fates[f"{verb} {'came to its end' if process.returncode == 0 else 'killed'}"] += 1
        return process.returncode == 0

    def look(self, verb: str, *, is_done: bool) -> None:
        """Assert that everything is there that must be, that it restores, and that no lock is in anybody's way."""
        repository = open_repository(str(self.repo))
        refs = repository.list_snapshots("vm1")
        new = [ref.id for ref in refs if ref.id not in self.contents]
        assert len(new) == 1 if verb == "backup" and is_done else len(new) <= (verb == "backup")
        for each in new:
            self.contents[each] = bytes(self.image.content)
            self.order.append(each)
        required = self.order[-KEPT:] if verb == "forget" else self.order
        listed = [ref.id for ref in refs]
        assert set(required) <= set(listed), "a committed snapshot is gone"
        assert verb != "forget" or not is_done or len(listed) <= KEPT
        self.order = listed
        assert_sound(repository)
        for ref in refs:
            manifest = repository.load_manifest(ref)
            reader = SnapshotContent(repository, manifest, load_index(repository)).make_reader()
            assert_same_bytes(reader.read(0, manifest.size_bytes), self.contents[ref.id])
        with ImageLock(repository, "vm1", "test", START):
            pass
        with MaintenanceLock(repository, "test", START):
            pass


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_no_killed_process_costs_a_committed_snapshot(
    tmp_path: Path, kind: str, seed: int, is_long: bool, record_property: Callable[[str, object], None]
) -> None:
    with loop_file_system(kind, tmp_path / "disk", FILE_SYSTEM_BYTES) as disk:
        victims = Victims(disk, tmp_path, random.Random(seed))
        for number in range(100 if is_long else 10):
            verb = ("backup", "forget", "backup", "prune")[number % 4]
            if verb == "backup":
                victims.edit()
            is_done = victims.run(verb, is_killed=True)
            disk.remount()
            victims.look(verb, is_done=is_done)
        for verb in ("backup", "forget", "prune"):
            victims.run(verb, is_killed=False)
            victims.look(verb, is_done=True)
    record_property("kills", ", ".join(f"{fate}: {count}" for fate, count in sorted(victims.fates.items())))
