# SPDX-License-Identifier: Apache-2.0
"""Trim: what is left of a repository after forgetting is what a fresh one of the snapshots that are kept would take."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.engine import recode
from deltaimg.engine.backup.run import back_up
from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.content.spool import KeptSlots, Spool
from deltaimg.engine.prune.run import PruneResult, plan_prune, prune
from deltaimg.format.manifest import Manifest
from deltaimg.options.backup import BackupOptions
from deltaimg.options.prune import TRIM_MODES, PruneOptions
from deltaimg.repo import record_reader
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.images import SyntheticImage, make_incompressible_image, make_rows
from tests.support.repositories import (
    Warnings,
    assert_restores,
    back_up_image,
    count_stored_bytes,
    make_repository,
)
from tests.support.retention import PausedSource, keep_only, list_manifests

PAGE = 16384
PAGES = 128
STATES = 12

State = tuple[Manifest, SyntheticImage]


FREE = {"max_read_amplification": 1000.0}
"""These tests are about what is stored, not about what a restore decodes."""


def make_states(folder: Path, seed: int = 3) -> tuple[Repository, list[State]]:
    """Back up a database of pages that do not compress, of which rows change each time, so that deltas depend on deltas."""
    repository, image, chance = make_repository(), make_incompressible_image(PAGE * PAGES, seed=1), random.Random(seed)
    states = []
    for _ in range(STATES):
        states.append((back_up_image(repository, image, cache_folder=str(folder)), image.copy()))
        for page in chance.sample(range(PAGES), 25):
            image.write(page * PAGE + chance.randrange(PAGE - 100), chance.randbytes(100))
    return repository, states


FULL = {"trim": "full", "max_unused_percent": 0.0} | FREE


def make_compacted(folder: Path, *, kept_bytes: int = 1 << 20) -> tuple[Repository, list[State]]:
    """Back up a table, then what is left of it after each four blocks became one: deltas have four times what they make.

    Of the old blocks the second state has those in the first `kept_bytes`.
    """
    repository, clock = make_repository(), FixedClock()
    image = make_incompressible_image(16 << 20, seed=5)
    first = back_up_image(repository, image, clock=clock, cache_folder=str(folder)), image.copy()
    quarters = [bytes(image.content[place : place + 1024]) for place in range(0, len(image.content), 4096)]
    image.zero(kept_bytes, (16 << 20) - kept_bytes)
    image.write(4 << 20, b"".join(quarters))
    return repository, [first, (back_up_image(repository, image, clock=clock, cache_folder=str(folder)), image)]


def prune_now(repository: Repository, progress: Warnings | None = None, **options: object) -> PruneResult:
    chosen = PruneOptions(**FREE | options)  # type: ignore[arg-type]
    return prune(repository, chosen, clock=FixedClock(), progress=progress)


def check_all(repository: Repository, states: list[State]) -> None:
    present = {manifest.id: manifest for manifest in list_manifests(repository)}
    for manifest, image in states:
        assert_restores(repository, present[manifest.id], bytes(image.content))
    assert not check(repository, read_packs=True).of(Severity.ERROR)


def keep(repository: Repository, states: list[State]) -> None:
    keep_only(repository, [manifest.id for manifest, _ in states])


def test_a_literal_of_regular_content_is_cut_by_the_codec_that_made_it_small(tmp_path: Path) -> None:
    repository, clock = make_repository(), FixedClock()
    image = make_incompressible_image(4 << 20, seed=5)
    states = []
    for change in (b"", make_rows(1_000_000, 16384), make_incompressible_image(1 << 18).content):
        image.write(1 << 20, bytes(change))
        states.append((back_up_image(repository, image, clock=clock, cache_folder=str(tmp_path)), image.copy()))
    keep(repository, states[2:])
    prune_now(repository, trim="full", max_unused_percent=0.0)
    check_all(repository, states[2:])
    index = load_index(repository)
    is_small = index.entries["encoding"] == DeltaimgCodec.encoding_id
    assert index.cuts.is_cut(np.flatnonzero(is_small)).any()


# -- what it leaves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["auto", "full"], ids=str)
@pytest.mark.parametrize("kept", [(0, 11), (11,), (0, 4, 8, 11)], ids=str)
def test_forgetting_and_pruning_leaves_what_a_fresh_repository_takes(
    tmp_path: Path, kept: tuple[int, ...], how: str
) -> None:
    repository, states = make_states(tmp_path / "one")
    chosen = [states[number] for number in kept]
    keep(repository, chosen)
    before = count_stored_bytes(repository)
    result = prune_now(repository, trim=how)
    assert before - count_stored_bytes(repository) == result.freed_bytes - result.written_bytes
    fresh = make_repository()
    for _, image in chosen:
        back_up_image(fresh, image, cache_folder=str(tmp_path / "two"))
    assert count_stored_bytes(repository) <= 1.05 * count_stored_bytes(fresh)
    check_all(repository, chosen)


@pytest.mark.parametrize("max_unused", [0.0, 2.0])
@pytest.mark.parametrize("how", TRIM_MODES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_second_prune_does_nothing(tmp_path: Path, how: str, seed: int, max_unused: float) -> None:
    repository, states = make_states(tmp_path, seed)
    chosen = random.Random(seed).sample(states, 4)
    keep(repository, chosen)
    prune_now(repository, trim=how, max_unused_percent=max_unused)
    objects = count_stored_bytes(repository)
    again = prune_now(repository, trim=how, max_unused_percent=max_unused)
    assert again.plan.is_empty
    assert again.plan.trim.is_empty
    assert count_stored_bytes(repository) == objects
    check_all(repository, chosen)


def test_neither_maps_nor_manifests_change(tmp_path: Path) -> None:
    repository, states = make_states(tmp_path)
    keep(repository, states[-1:])
    prune_now(repository, trim="none")
    assert isinstance(repository.objects.store, MemoryStore)
    before = {
        name: data
        for name, data in repository.objects.store.objects.items()
        if name.startswith(("maps/", "snapshots/"))
    }
    result = prune_now(repository, **FULL)
    assert len(result.plan.trim.entries)
    assert before.items() <= repository.objects.store.objects.items()


def test_a_plan_says_beforehand_what_trimming_frees(tmp_path: Path) -> None:
    repository, states = make_states(tmp_path)
    keep(repository, states[-1:])
    plan = plan_prune(repository, PruneOptions(**FULL)).plan
    result = prune_now(repository, **FULL)
    assert len(plan.trim.entries)
    assert plan.trim.entries.tolist() == result.plan.trim.entries.tolist()
    assert plan.freed_bytes == result.freed_bytes
    assert abs(plan.written_bytes - result.written_bytes) < 0.1 * result.written_bytes


@pytest.mark.parametrize("options", [{**FULL, "max_repack_bytes": 0}, {**FULL, "trim": "none"}], ids=str)
def test_nothing_is_trimmed_where_that_is_not_wanted(tmp_path: Path, options: dict[str, object]) -> None:
    repository, states = make_states(tmp_path)
    keep(repository, states[-1:])
    assert prune_now(repository, **options).plan.trim.is_empty
    check_all(repository, states[-1:])


def test_the_backup_after_a_trim_finds_its_base_and_what_it_holds(tmp_path: Path) -> None:
    repository, states = make_states(tmp_path)
    keep(repository, states[-1:])
    prune_now(repository)
    image = states[-1][1].copy()
    image.write(5000, b"the next state")
    image.move(0, PAGE * (PAGES - 1), PAGE)
    manifest = back_up_image(repository, image, cache_folder=str(tmp_path))
    assert manifest.base == states[-1][0].id
    assert manifest.statistics.new_bytes <= 2 * 4096
    check_all(repository, [states[-1], (manifest, image)])


def test_trims_follow_one_another(tmp_path: Path) -> None:
    """Records that were cut are cut again when less of them is needed."""
    repository, states = make_states(tmp_path)
    for first in (4, 7, 10):
        keep(repository, states[first:])
        prune_now(repository, **FULL)
        check_all(repository, states[first:])
    index = load_index(repository)
    assert len(index.cuts)
    assert len(index) == len({row.tobytes() for row in index.entries["id"]})


# -- how it works ------------------------------------------------------------------------------------------------------


def test_each_record_is_expanded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, states = make_compacted(tmp_path)
    keep(repository, states[-1:])
    expanded: Counter[int] = Counter()
    expand = RecordReader.expand

    def count(self: RecordReader, record: int, *others: object) -> memoryview:
        expanded[int(self._table.entries[record])] += 1
        return expand(self, record, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(RecordReader, "expand", count)
    result = prune_now(repository)
    assert len(result.plan.trim.recoded) == 8
    assert sum(expanded.values()) >= 32 + 8
    assert max(expanded.values()) == 1
    assert count_stored_bytes(repository) < 5.1 * (1 << 20)
    check_all(repository, states[-1:])


def test_packs_that_only_deltas_need_are_room_to_be_gained(tmp_path: Path) -> None:
    repository, states = make_compacted(tmp_path, kept_bytes=0)
    keep(repository, states[-1:])
    assert len(prune_now(repository).plan.trim.recoded) == 8
    assert count_stored_bytes(repository) < 4.1 * (1 << 20)
    check_all(repository, states[-1:])


def test_progress_is_told_in_bytes_of_a_known_sum(tmp_path: Path) -> None:
    repository, states = make_states(tmp_path)
    keep(repository, states[-1:])
    seen: list[tuple[str, int | None, int]] = []

    class Stages(Warnings):
        def begin(self, task: str, total_bytes: int | None) -> None:
            seen.append((task, total_bytes, 0))

        def advance(self, done_bytes: int) -> None:
            task, total, done = seen[-1]
            seen[-1] = task, total, done + done_bytes

    prune_now(repository, Stages(), **FULL)
    (stage,) = (each for each in seen if each[0] == "re-encoding records")
    assert stage[1] == stage[2] > 0


def test_batches_are_as_small_as_the_room_for_sources_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recode, "SPOOL_BYTES", 3 << 20)
    sizes: list[int] = []
    make_spool = Spool.__init__

    def note(self: Spool, kept: KeptSlots, *others: Any) -> None:
        sizes.append(kept.place_count * 4096)
        make_spool(self, kept, *others)

    monkeypatch.setattr(Spool, "__init__", note)
    repository, states = make_compacted(tmp_path)
    keep(repository, states[-1:])
    result = prune_now(repository)
    assert len(result.plan.trim.recoded) == 8
    assert len([size for size in sizes if size]) > 2
    assert max(sizes) <= 3 << 20
    check_all(repository, states[-1:])


class Interrupted(Warnings):
    """Raises KeyboardInterrupt once so many pieces of a stage are done."""

    def __init__(self, task: str, pieces: int) -> None:
        super().__init__()
        self._task, self._left, self._is_in_stage = task, pieces, False

    def begin(self, task: str, total_bytes: int | None) -> None:
        self._is_in_stage = task == self._task

    def advance(self, done_bytes: int) -> None:
        if self._is_in_stage:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize(("records", "recoded", "cut"), [(20, 0, 0), (36, 5, 0), (39, 8, 0), (44, 8, 5)])
def test_what_was_stored_before_an_interruption_is_used_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int, recoded: int, cut: int
) -> None:
    monkeypatch.setattr(record_reader, "READ_BYTES", 1)  # one record at a time
    repository, states = make_compacted(tmp_path)
    image = make_incompressible_image(4 << 20, seed=6)
    back_up_image(repository, image, "other")
    for half in range(0, 4 << 20, 1 << 19):
        image.zero(half, 1 << 18)
    states.append((back_up_image(repository, image, "other"), image))
    keep(repository, states[1:])
    planned = plan_prune(repository, PruneOptions(**FREE)).plan.trim
    assert (len(planned.recoded), len(planned.cut)) == (8, 8)
    with pytest.raises(KeyboardInterrupt):
        prune_now(repository, Interrupted("re-encoding records", records))
    check_all(repository, states[1:])
    left = plan_prune(repository, PruneOptions(**FREE)).plan.trim
    assert (len(left.recoded), len(left.cut)) == (8 - recoded, 8 - cut)
    prune_now(repository)
    check_all(repository, states[1:])
    assert prune_now(repository).plan.is_empty


# -- beside others, and damage -----------------------------------------------------------------------------------------


def test_what_is_being_backed_up_is_trimmed_and_deleted_once_the_backup_has_ended(tmp_path: Path) -> None:
    repository, states = make_states(tmp_path)
    keep(repository, states[-1:])
    with ImageLock(repository, "vm1", "backup", START):
        result = prune_now(repository, **FULL)
        assert not result.plan.trim.is_empty
        assert result.freed_bytes == 0
        assert result.waiting
        check_all(repository, states[-1:])
    assert prune_now(repository).freed_bytes
    check_all(repository, states[-1:])


def test_a_backup_beside_a_trim_may_refer_to_slots_that_were_cut(tmp_path: Path) -> None:
    """It began before, and found what the forgotten snapshots held."""
    repository, states = make_states(tmp_path)
    keep(repository, states[-1:])
    old = states[0][1]
    late: list[PruneResult] = []
    manifest = back_up_paused(repository, old, "other", lambda: late.append(prune_now(repository, **FULL)))
    assert manifest.statistics.referenced_bytes == PAGE * PAGES
    assert not late[0].plan.trim.is_empty
    assert late[0].waiting
    both = [states[-1], (manifest, old)]
    for _ in range(3):
        check_all(repository, both)
        prune_now(repository, **FULL)
    check_all(repository, both)
    assert prune_now(repository, **FULL).plan.is_empty


def back_up_paused(repository: Repository, image: SyntheticImage, name: str, meanwhile: object) -> Manifest:
    source = PausedSource(image, meanwhile)  # type: ignore[arg-type]
    return back_up(repository, source, name, BackupOptions(workers=2), clock=FixedClock())


@pytest.mark.parametrize("which", range(4))
def test_what_cannot_be_read_stays_and_costs_nothing_else(tmp_path: Path, which: int) -> None:
    repository, states = make_states(tmp_path)
    keep(repository, [states[0], states[-1]])
    packs = sorted(found.name for found in repository.objects.store.list("packs/"))
    pack = packs[which * len(packs) // 4]
    assert isinstance(repository.objects.store, MemoryStore)
    damaged = bytearray(repository.objects.store.objects[pack])
    damaged[64 + 100] ^= 1
    repository.objects.store.objects[pack] = bytes(damaged)
    before = restorable(repository)
    progress = Warnings()
    prune_now(repository, progress, **FULL)
    assert restorable(repository) == before
    assert not [each for each in check(repository).of(Severity.ERROR) if each.object_name != pack]


def restorable(repository: Repository) -> dict[str, list[bool]]:
    """For each snapshot, which of its blocks can be read."""
    found = {}
    for manifest in list_manifests(repository):
        reader = SnapshotContent(repository, manifest, load_index(repository)).make_reader()
        found[manifest.id] = [
            not reader.read_what_is_left(offset, PAGE)[1] for offset in range(0, manifest.size_bytes, PAGE)
        ]
    return found
