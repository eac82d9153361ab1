# SPDX-License-Identifier: Apache-2.0
"""Change tracking: what is claimed to be unchanged is not read, a wrong claim is found or made harmless, and it is said."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deltaimg.engine.backup.audit import audit_claim, find_detectable_share
from deltaimg.engine.backup.block_check import BlockCheck
from deltaimg.engine.backup.change_tracking import TRACKED_GAP_BYTES
from deltaimg.engine.backup.forecast import forecast_backup
from deltaimg.engine.backup.run import back_up
from deltaimg.format.manifest import Manifest
from deltaimg.image.extents import Bounds, merge_bounds
from deltaimg.image.stream import StreamSource
from deltaimg.kernels import digest_blocks
from deltaimg.model import KIB, MIB, Extent
from deltaimg.options.backup import DEFAULT_AUDIT_BLOCKS, NEVER, BackupOptions
from deltaimg.options.keep import Span
from deltaimg.repo.object_kinds import MANIFEST
from deltaimg.repo.repository import Repository
from deltaimg.tracking.interface import ChangeClaim
from tests.support.clock import START, FixedClock
from tests.support.images import SyntheticImage, SyntheticSource
from tests.support.repositories import Warnings, assert_restores, make_repository

BLOCK = 4 * KIB
SIZE_BYTES = 24 * MIB


class Claims:
    """A tracker that claims what a test says."""

    method = "hints"

    def __init__(self, *changed: tuple[int, int], claim: ChangeClaim | None = None) -> None:
        self._claim = claim or ChangeClaim(merge_bounds(np.array(changed, np.int64).reshape(-1, 2)))
        self.was_asked = False

    def find_changes(self, base: Manifest) -> ChangeClaim:
        self.was_asked = True
        return self._claim

    def keep(self, snapshot: str) -> str | None:
        return None

    def settle(self, snapshot: str) -> None: ...


class CountedSource(SyntheticSource):
    """Notes which bytes were read."""

    def __init__(self, image: SyntheticImage) -> None:
        super().__init__(image)
        self.reads: list[tuple[int, int]] = []

    def read_into(self, offset: int, buffer: memoryview) -> int:
        got = super().read_into(offset, buffer)
        self.reads.append((offset, offset + got))
        return got

    @property
    def read_bytes(self) -> int:
        return sum(end - start for start, end in self.reads)


class Runs:
    """Backups of one image."""

    def __init__(self, size_bytes: int = SIZE_BYTES) -> None:
        self.repository = make_repository()
        self.image = SyntheticImage(size_bytes, seed=7)
        self.image.write_random(0, size_bytes)
        self.clock, self.progress = FixedClock(), Warnings()
        self.source = CountedSource(self.image)
        self.first = self.run()

    def run(self, tracker: Claims | None = None, **options: object) -> Manifest:
        self.progress.messages.clear()
        self.source = CountedSource(self.image)
        options = {"workers": 2} | options
        return back_up(
            self.repository, self.source, "vm1", BackupOptions(**options), clock=self.clock, progress=self.progress,  # type: ignore[arg-type]
            tracker=tracker,
        )  # fmt: skip


@pytest.fixture
def runs() -> Runs:
    return Runs()


def write_blocks(image: SyntheticImage, count: int, chance: random.Random) -> list[tuple[int, int]]:
    """Change blocks in any places; return which, as a tracker would."""
    blocks = sorted(chance.sample(range(image.size_bytes // BLOCK), count))
    for block in blocks:
        image.write_random(block * BLOCK + 100, 50)
    return [(block * BLOCK + 100, block * BLOCK + 150) for block in blocks]


@pytest.mark.parametrize("count", [0, 1, 20, 400])
def test_what_is_claimed_to_be_unchanged_is_not_read(runs: Runs, count: int) -> None:
    """But for the sample. 400 blocks are many changes, 20 are few."""
    changed = write_blocks(runs.image, count, random.Random(count))
    manifest = runs.run(Claims(*changed), audit_blocks=50)
    tracking = manifest.tracking
    assert tracking is not None
    assert (tracking.method, tracking.reason) == ("hints", "")
    assert (tracking.audited_blocks, tracking.refuted_blocks) == (50, 0)
    assert tracking.last_scan == runs.first.time
    assert manifest.statistics.changed_bytes == count * BLOCK
    assert manifest.statistics.allocated_bytes == SIZE_BYTES
    assert manifest.statistics.read_bytes + tracking.unchanged_bytes == SIZE_BYTES
    assert manifest.statistics.read_bytes <= count * (BLOCK + TRACKED_GAP_BYTES)
    assert not runs.progress.messages
    assert_restores(runs.repository, manifest, runs.image.content)


def test_changes_of_any_kind_are_stored(runs: Runs) -> None:
    chance = random.Random(3)
    for _ in range(6):
        changed = []
        for _ in range(chance.randrange(1, 12)):
            offset, length = chance.randrange(SIZE_BYTES), chance.randrange(1, 300 * KIB)
            act = chance.choice((runs.image.write_random, runs.image.zero, runs.image.punch))
            act(offset // BLOCK * BLOCK, length // BLOCK * BLOCK + BLOCK)
            changed.append((offset // BLOCK * BLOCK, offset // BLOCK * BLOCK + length // BLOCK * BLOCK + BLOCK))
        chance.shuffle(changed)
        manifest = runs.run(Claims(*changed))
        assert manifest.tracking is not None
        assert manifest.tracking.method == "hints"
        assert_restores(runs.repository, manifest, runs.image.content)


def test_a_dry_run_reads_as_little(runs: Runs) -> None:
    changed = write_blocks(runs.image, 10, random.Random(1))
    source = CountedSource(runs.image)
    planned = forecast_backup(runs.repository, source, "vm1", BackupOptions(audit_blocks=20), tracker=Claims(*changed))
    assert planned.statistics.changed_bytes == 10 * BLOCK
    assert planned.tracking is not None
    assert planned.tracking.audited_blocks == 20
    assert source.read_bytes < MIB


# -- lies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("omitted", [1.0, 0.1])
def test_a_claim_that_omits_changes_costs_a_full_scan_and_a_warning(runs: Runs, omitted: float) -> None:
    """Half of all blocks changed, so that the audit cannot miss it."""
    chance = random.Random(5)
    changed = write_blocks(runs.image, SIZE_BYTES // BLOCK // 2, chance)
    listed = [each for each in changed if chance.random() >= omitted]
    manifest = runs.run(Claims(*listed))
    tracking = manifest.tracking
    assert tracking is not None
    assert tracking.method == "scan"
    assert tracking.refuted_blocks > 0
    assert tracking.unchanged_bytes == 0
    assert tracking.last_scan is None
    assert manifest.last_scan == manifest.time
    assert [message for message in runs.progress.messages if "CHANGE TRACKING IS WRONG" in message]
    assert manifest.statistics.read_bytes == SIZE_BYTES
    assert_restores(runs.repository, manifest, runs.image.content)


@pytest.mark.parametrize("count", [1, 200])
def test_a_change_beside_a_listed_one_refutes_a_claim(runs: Runs, count: int) -> None:
    """With it all that was not listed is found, and nothing that was read is stored twice."""
    listed = []
    for number in range(count):
        offset = number * 24 * BLOCK
        runs.image.write_random(offset, BLOCK)
        runs.image.write_random(offset + 2 * BLOCK, BLOCK)  # in the gap
        runs.image.zero(offset + 4 * BLOCK, BLOCK)
        runs.image.write_random(offset + 6 * BLOCK, BLOCK)
        runs.image.zero(offset + 20 * BLOCK, BLOCK)  # beyond
        listed += [(offset, offset + BLOCK), (offset + 6 * BLOCK, offset + 7 * BLOCK)]
    manifest = runs.run(Claims(*listed), audit_blocks=1)
    assert manifest.tracking is not None
    assert manifest.tracking.method == "scan"
    assert manifest.tracking.refuted_blocks in (2 * count, 1)  # or the one audited block was such
    assert manifest.statistics.changed_bytes == 5 * count * BLOCK
    assert_restores(runs.repository, manifest, runs.image.content)


@pytest.mark.parametrize(
    ("share", "sample", "trials"),
    [(1.0, 459, 3), (0.01, DEFAULT_AUDIT_BLOCKS, 30), (0.1, 20, 200), (0.01, 20, 200), (0.001, 20, 200)],
)
def test_an_audit_finds_wrong_claims_as_often_as_it_says(share: float, sample: int, trials: int) -> None:
    """Within four standard deviations."""
    blocks, key = 10_000, bytes(32)
    chance = random.Random(11)
    image = SyntheticImage(blocks * BLOCK)
    image.content[:] = np.random.default_rng(1).integers(1, 256, (blocks, 1), np.uint8).repeat(BLOCK, 1).tobytes()
    digests = np.zeros((blocks + 2, 16), np.uint8)
    digests[2:] = digest_blocks(key, bytes(image.content), BLOCK)
    stored_runs = np.array([(0, blocks, 2)], [("first_block", "<u8"), ("count", "<u4"), ("slot", "<u4")])
    for block in chance.sample(range(blocks), round(share * blocks)):
        image.content[block * BLOCK] ^= 1
    check = BlockCheck(SyntheticSource(image), stored_runs, digests, key, BLOCK)
    claimed = np.array([(0, blocks * BLOCK)], np.int64)
    found = 0
    for _ in range(trials):
        audit = audit_claim(check, claimed, most_blocks=sample, workers=1, chance=chance)
        assert audit.audited_blocks == sample
        found += audit.refuted_blocks > 0
    found_share = 1 - (1 - share) ** sample
    spread = (found_share * (1 - found_share) / trials) ** 0.5
    assert abs(found / trials - found_share) <= 4 * spread + 0.01


def test_the_share_that_an_audit_finds() -> None:
    assert find_detectable_share(DEFAULT_AUDIT_BLOCKS) == pytest.approx(0.01, rel=0.01)
    assert 1 - (1 - find_detectable_share(100)) ** 100 == pytest.approx(0.99)
    assert find_detectable_share(0) == 1


def test_an_audit_is_bounded_by_time_and_by_what_there_is(runs: Runs) -> None:
    digests = np.zeros((2, 16), np.uint8)
    empty = np.array([(0, 10, 0)], [("first_block", "<u8"), ("count", "<u4"), ("slot", "<u4")])
    check = BlockCheck(SyntheticSource(SyntheticImage(10 * BLOCK)), empty, digests, bytes(32), BLOCK)
    claimed: Bounds = np.array([(0, 2 * BLOCK), (5 * BLOCK, 9 * BLOCK)], np.int64)
    options = {"workers": 1, "chance": random.Random(1)}
    assert audit_claim(check, claimed, most_blocks=459, **options).audited_blocks == 6  # type: ignore[arg-type]
    assert audit_claim(check, claimed, most_blocks=4, **options).audited_blocks == 4  # type: ignore[arg-type]
    assert audit_claim(check, claimed, most_blocks=459, limit_s=0, **options).audited_blocks < 6  # type: ignore[arg-type]
    assert audit_claim(check, claimed[:0], most_blocks=459, **options).audited_blocks == 0  # type: ignore[arg-type]


# -- what is read whatever is claimed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size_bytes", [SIZE_BYTES + 5 * MIB + 77, SIZE_BYTES - 3 * MIB - 77, SIZE_BYTES + 1, SIZE_BYTES - 1]
)
def test_an_image_that_grew_or_shrank_is_stored_right(size_bytes: int) -> None:
    runs = Runs(SIZE_BYTES)
    runs.image.resize(size_bytes)
    if size_bytes > SIZE_BYTES:
        runs.image.write_random(SIZE_BYTES, size_bytes - SIZE_BYTES)
    for _ in range(2):
        manifest = runs.run(Claims((2**50, 2**51)))
        assert manifest.tracking is not None
        assert (manifest.tracking.method, manifest.tracking.refuted_blocks) == ("hints", 0)
        assert_restores(runs.repository, manifest, runs.image.content)
        runs.image.resize(SIZE_BYTES - 5000)


def replace_manifest(repository: Repository, manifest: Manifest, **changes: object) -> None:
    changed = msgspec.structs.replace(manifest, **changes)
    repository.objects.delete(manifest.object_name)
    repository.objects.put(MANIFEST, manifest.object_name, changed)


def test_what_the_base_could_not_read_is_read(runs: Runs) -> None:
    replace_manifest(runs.repository, runs.first, unreadable=(Extent(5 * BLOCK + 512, 6 * BLOCK + 512),))
    runs.run(Claims())
    assert [each for each in runs.source.reads if each == (5 * BLOCK, 7 * BLOCK)]


def make_live(runs: Runs) -> None:
    replace_manifest(runs.repository, runs.first, is_live=True)


def wait(runs: Runs) -> None:
    runs.clock.now = START + timedelta(days=31)


def forget_all(runs: Runs) -> None:
    runs.repository.objects.delete(runs.first.object_name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (make_live, "is not of one moment"),
        (wait, "due: everything was read last on"),
        (forget_all, "there is no earlier snapshot"),
    ],
)
def test_there_are_reasons_to_read_everything(runs: Runs, change: Callable[[Runs], None], reason: str) -> None:
    change(runs)
    claims = Claims()
    manifest = runs.run(claims)
    assert manifest.tracking is not None
    assert manifest.tracking.method == "scan"
    assert reason in manifest.tracking.reason
    assert not claims.was_asked
    assert manifest.statistics.read_bytes == SIZE_BYTES


def test_a_full_scan_is_due_by_the_last_one(runs: Runs) -> None:
    """Runs that read little do not put it off."""
    methods = []
    for _ in range(9):
        runs.clock.now += timedelta(days=1)
        manifest = runs.run(Claims(), full_scan_every=Span(days=4))
        assert manifest.tracking is not None
        methods.append(manifest.tracking.method)
    assert methods == ["hints", "hints", "hints", "scan"] * 2 + ["hints"]
    runs.clock.now += timedelta(days=9999)
    manifest = runs.run(Claims(), full_scan_every=NEVER)
    assert manifest.tracking is not None
    assert manifest.tracking.method == "hints"


def test_a_tracker_that_knows_nothing_costs_a_scan(runs: Runs) -> None:
    for is_surprising in (False, True):
        manifest = runs.run(Claims(claim=ChangeClaim(None, "the bitmap is gone", is_surprising=is_surprising)))
        assert manifest.tracking is not None
        assert (manifest.tracking.method, manifest.tracking.reason) == ("scan", "the bitmap is gone")
        assert bool(runs.progress.messages) == is_surprising
        assert manifest.statistics.read_bytes == SIZE_BYTES
        assert manifest.statistics.new_bytes == 0


def test_nothing_is_left_out_of_a_stream(runs: Runs, tmp_path: Path) -> None:
    claims, path = Claims(), runs.image.save(tmp_path / "image")
    with closing(StreamSource(os.open(path, os.O_RDONLY), is_owned=True)) as source:
        manifest = back_up(runs.repository, source, "vm1", tracker=claims)
    assert not claims.was_asked
    assert manifest.tracking is not None
    assert (manifest.tracking.method, manifest.tracking.reason) == ("scan", "a stream is read as a whole")
