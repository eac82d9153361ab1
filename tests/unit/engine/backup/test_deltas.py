# SPDX-License-Identifier: Apache-2.0
"""Delta records: smaller snapshots, the same images back, and what a damaged source costs."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import numpy as np
import pytest

from deltaimg.engine.backup.delta_sources.choose import Choice, SourceChooser
from deltaimg.engine.backup.delta_sources.source_records import NewRecord
from deltaimg.engine.content.restore_needs import RestoreNeeds
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.inspect.run import inspect_snapshot
from deltaimg.engine.inspect.stored_content import find_stored_content
from deltaimg.errors import IntegrityError, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.ids import RecordNumbers
from deltaimg.repo.index import load_index
from deltaimg.repo.record_reader import RecordReader
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.history import forget_ids
from tests.support.images import SyntheticImage, make_incompressible_image, make_rows
from tests.support.repositories import assert_restores, back_up_image, make_repository

PAGE = 16384
PAGES = 256


def make_database(seed: int = 1) -> SyntheticImage:
    """Return an image of pages that do not compress, so that all that a snapshot can save is by deltas."""
    return make_incompressible_image(PAGE * PAGES, seed=seed)


def update_rows(image: SyntheticImage, chance: random.Random, pages: int = 40) -> None:
    """Change a row of 100 bytes in each of some pages."""
    for page in chance.sample(range(PAGES), pages):
        image.write(page * PAGE + chance.randrange(PAGE - 100), chance.randbytes(100))


def test_updated_rows_cost_rows_not_pages() -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(2)
    back_up_image(repository, image)
    update_rows(image, chance)
    manifest = back_up_image(repository, image)
    assert manifest.statistics.new_bytes >= 40 * 4096
    assert manifest.statistics.stored_bytes < manifest.statistics.new_bytes / 4
    assert_restores(repository, manifest, bytes(image.content))


@pytest.mark.native_speed
@pytest.mark.parametrize("has_cache", [True, False])
def test_thirty_backups_of_a_database_all_restore(tmp_path: Path, has_cache: bool) -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(3)
    folder = str(tmp_path) if has_cache else None
    snapshots = []
    for _ in range(31):
        manifest = back_up_image(repository, image, cache_folder=folder)
        snapshots.append((manifest, bytes(image.content)))
        update_rows(image, chance)
    assert load_index(repository).links.depths.max() > 1
    for manifest, content in snapshots:
        assert_restores(repository, manifest, content)


def test_a_stream_of_deep_deltas_is_the_image(tmp_path: Path) -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(9)
    for _ in range(6):
        manifest = back_up_image(repository, image, cache_folder=str(tmp_path))
        content = bytes(image.content)
        update_rows(image, chance)
    with SnapshotContent(repository, manifest, load_index(repository)).open_in_order() as reader:
        assert reader.read(0, len(content)) == content


@pytest.mark.native_speed
@pytest.mark.parametrize("depth", [1, 3])
def test_no_delta_stands_deeper_than_asked(tmp_path: Path, depth: int) -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(4)
    for _ in range(8):
        manifest = back_up_image(repository, image, max_depth=depth, cache_folder=str(tmp_path))
        update_rows(image, chance, PAGES)
    assert load_index(repository).links.depths.max() == depth
    assert SnapshotContent(repository, manifest, load_index(repository)).plan().decoded_bytes > 0


def test_none_makes_no_delta_records() -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(5)
    back_up_image(repository, image, delta="none")
    update_rows(image, chance)
    back_up_image(repository, image, delta="none")
    assert not load_index(repository).links.counts.any()


@pytest.mark.parametrize(("option", "value"), [("delta", "gzip"), ("max_depth", 0), ("max_depth", 65)])
def test_absurd_options_are_refused(option: str, value: object) -> None:
    with pytest.raises(UsageError):
        back_up_image(make_repository(), make_database(), **{option: value})


@pytest.mark.parametrize("kind", ["anchors", "content"])
@pytest.mark.parametrize("harm", ["empty", "noise", "cut", "gone"])
def test_a_harmed_cache_costs_bytes_and_nothing_else(tmp_path: Path, kind: str, harm: str) -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(6)
    for _ in range(4):
        back_up_image(repository, image, cache_folder=str(tmp_path))
        update_rows(image, chance)
    files = list(tmp_path.rglob({"anchors": "*.anchors", "content": "*.content/*"}[kind]))
    assert files
    for path in files:
        data = path.read_bytes()
        if harm == "gone":
            path.unlink()
        else:
            path.write_bytes({"empty": b"", "noise": chance.randbytes(len(data)), "cut": data[: len(data) // 2]}[harm])
    manifest = back_up_image(repository, image, cache_folder=str(tmp_path))
    assert_restores(repository, manifest, bytes(image.content))


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(7)
    (tmp_path / "file").write_bytes(b"")
    for _ in range(2):
        manifest = back_up_image(repository, image, cache_folder=str(tmp_path / "file"))
        assert_restores(repository, manifest, bytes(image.content))
        update_rows(image, chance)


def test_a_damaged_source_is_named_and_nothing_wrong_is_restored() -> None:
    store = MemoryStore()
    repository, image, chance = make_repository(store), make_database(), random.Random(8)
    first = back_up_image(repository, image)
    update_rows(image, chance, pages=PAGES)
    second = back_up_image(repository, image)
    index = load_index(repository)
    literal = int(np.flatnonzero(index.links.counts == 0)[0])
    name = "packs/" + index.packs[int(index.entries["pack"][literal])]
    name = name if name in store.objects else next(each for each in store.objects if each.startswith("packs/"))
    data = bytearray(store.objects[name])
    data[int(index.entries["offset"][literal]) + 70] ^= 1
    store.objects[name] = bytes(data)
    for manifest in (first, second):
        with pytest.raises(IntegrityError):
            assert_restores(repository, manifest, bytes(image.content))


@pytest.mark.parametrize("match_bytes", [0, 1 << 20])
def test_what_the_image_had_is_a_source_though_its_own_sources_are_forgotten(tmp_path: Path, match_bytes: int) -> None:
    repository, image, length = make_repository(), make_database(), PAGES * PAGE // 2

    def back_up_edited(number: int) -> Manifest:
        for offset in range(0, length, 4096):
            image.write(offset + 100 * number, b"edited")
        return back_up_image(repository, image, match_budget_bytes=match_bytes, cache_folder=str(tmp_path))

    first = back_up_edited(0)
    back_up_edited(1)
    content = bytes(image.content[:length])
    image.zero(0, length)
    back_up_image(repository, image, cache_folder=str(tmp_path))
    forget_ids(repository, [first.id])
    image.write(0, content)
    manifest = back_up_edited(2)
    assert manifest.statistics.stored_bytes < manifest.statistics.new_bytes / 8
    assert_restores(repository, manifest, bytes(image.content))


def test_a_record_of_which_a_delta_needs_little_is_none_of_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, noted = list[RecordNumbers](), list[RecordNumbers]()
    choose, correct = SourceChooser.choose, RestoreNeeds.correct

    def note_choice(chooser: SourceChooser, content: memoryview, record: NewRecord) -> Choice | None:
        choice = choose(chooser, content, record)
        chosen.extend([choice.records] if choice else [])
        return choice

    def note_correction(needs: RestoreNeeds, number: int, sources: RecordNumbers) -> None:
        noted.append(sources)
        correct(needs, number, sources)

    repository, image, chance = make_repository(), make_database(), random.Random(10)
    back_up_image(repository, image)
    before = bytes(image.content)
    for block in range(0, 128, 2):
        image.write(block * 4096 + 2000, chance.randbytes(100))
    for block in range(3):
        image.write(block * 8192 + 3000, before[3 << 20 :][block * 4096 :][:150])
    monkeypatch.setattr(SourceChooser, "choose", note_choice)
    monkeypatch.setattr(RestoreNeeds, "correct", note_correction)
    manifest = back_up_image(repository, image)
    assert [len(records) for records in chosen] == [2]
    assert [len(records) for records in noted] == [1]
    table = SnapshotContent(repository, manifest, load_index(repository)).table
    deltas, counts = table.count_sources(RecordNumbers(np.arange(table.record_count)))
    assert len(deltas) == 1
    assert counts.tolist() == [64]
    assert_restores(repository, manifest, bytes(image.content))


def rewrite_halves(image: SyntheticImage, snapshot: int) -> None:
    """Replace half of each block of a quarter of the image: what is left is half of the snapshot before, nothing of earlier."""
    chance = random.Random(snapshot)
    for block in range(PAGES * PAGE // 4096 // 4):
        image.write(block * 4096 + snapshot % 2 * 2048, chance.randbytes(2048))


def find_read_amplifications(folder: Path, bound: float) -> list[float]:
    """Return what deltas cost a restore of each of eight such snapshots, the image being right."""
    repository, image = make_repository(), make_database()
    costs = []
    for snapshot in range(8):
        manifest = back_up_image(repository, image, max_read_amplification=bound, cache_folder=str(folder))
        costs.append(inspect_snapshot(repository, manifest, load_index(repository)).read_amplification)
        content = bytes(image.content)
        rewrite_halves(image, snapshot)
    assert_restores(repository, manifest, content)
    return costs


@pytest.mark.native_speed
def test_deltas_cost_a_restore_no_more_than_their_bound(tmp_path: Path) -> None:
    free, bound = find_read_amplifications(tmp_path / "free", 100.0), find_read_amplifications(tmp_path / "bound", 1.25)
    assert max(free) > 2.5
    assert 1.1 < max(bound) <= 1.25


def test_content_that_changes_in_every_backup_finds_sources_at_the_bound(tmp_path: Path) -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(3)
    stored, changed = [], []
    for _ in range(16):
        manifest = back_up_image(repository, image, max_read_amplification=1.25, cache_folder=str(tmp_path))
        stored.append(manifest.statistics.stored_bytes)
        changed.append(manifest.statistics.changed_bytes)
        for page in range(PAGES // 16):
            image.write(page * PAGE + chance.randrange(16000), chance.randbytes(100))
    assert sum(stored[1:]) < sum(changed[1:]) / 3
    assert 1 < inspect_snapshot(repository, manifest, load_index(repository)).read_amplification <= 1.25


def test_a_run_leaves_nothing_in_memory(tmp_path: Path) -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(13)
    gc.collect()
    of_others = {id(each) for each in gc.get_objects()}
    gc.disable()
    try:
        for _ in range(2):
            back_up_image(repository, image, cache_folder=str(tmp_path))
            update_rows(image, chance)
        kinds = {type(each).__name__ for each in gc.get_objects() if id(each) not in of_others}
    finally:
        gc.enable()
    assert kinds.isdisjoint(
        {"RecordStream", "SourceChooser", "SourceFetcher", "RecordCache", "AnchorCache", "SlotTable", "LoadedIndex"}
    )


def test_explanation_accounts_for_every_block(tmp_path: Path) -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(11)
    other, clock = make_database(seed=12), FixedClock()
    back_up_image(repository, other, name="other", clock=clock)
    for snapshot in range(4):
        clock.advance(hours=1)
        manifest = back_up_image(repository, image, cache_folder=str(tmp_path), clock=clock)
        found = find_stored_content(repository, manifest, load_index(repository))
        assert found is not None
        done = manifest.statistics
        assert found.referenced_bytes == done.referenced_bytes
        assert found.new_bytes == done.new_bytes
        assert found.same_bytes == len(image.content) - done.changed_bytes
        assert found.zero_bytes + found.referenced_bytes + found.new_bytes == done.changed_bytes
        assert any(kind.is_delta for kind in found.stored) == (snapshot > 0)
        assert sum(part.content_bytes for part in found.contributors) == found.new_bytes
        assert abs(sum(part.payload_bytes for part in found.contributors) - found.payload_bytes) <= len(
            found.contributors
        )
        assert found.payload_bytes < done.stored_bytes
        update_rows(image, chance, pages=10)
        image.write(200 * PAGE, bytes(PAGE))
        image.write((201 + snapshot) * PAGE, bytes(other.content[snapshot * PAGE : (snapshot + 1) * PAGE]))


def test_contributors_are_where_the_changes_are() -> None:
    repository, image, clock = make_repository(), make_database(), FixedClock()
    back_up_image(repository, image, clock=clock)
    clock.advance(hours=1)
    image.write(3 * 2**20 + 5000, random.Random(1).randbytes(300_000))
    image.write(2**20, random.Random(2).randbytes(4096))
    found = find_stored_content(repository, back_up_image(repository, image, clock=clock), load_index(repository))
    assert found is not None
    assert [part.start for part in found.contributors] == [3 * 2**20, 2**20]


def test_nothing_is_explained_by_a_clock_that_went_back() -> None:
    repository, image, clock = make_repository(), make_database(), FixedClock()
    back_up_image(repository, make_database(seed=2), name="other", clock=clock)
    clock.advance(hours=-1)
    image.write(0, bytes(make_database(seed=2).content[: 4 * PAGE]))
    assert (
        find_stored_content(repository, back_up_image(repository, image, clock=clock), load_index(repository)) is None
    )


@pytest.mark.parametrize("mode", ["auto", "zstd", "xdelta", "deltaimg", "best"])
def test_every_kind_of_delta_restores(tmp_path: Path, mode: str) -> None:
    repository, image, chance = make_repository(), make_database(), random.Random(14)
    for _ in range(5):
        manifest = back_up_image(repository, image, delta=mode, cache_folder=str(tmp_path))
        assert_restores(repository, manifest, image.content)
        update_rows(image, chance)
    index = load_index(repository)
    made = set(index.entries["encoding"][index.links.counts > 0].tolist())
    assert made <= {"auto": {2, 4}, "zstd": {2}, "xdelta": {3}, "deltaimg": {4}, "best": {2, 3, 4}}[mode]
    assert made
    assert mode != "auto" or 4 in made
    assert manifest.statistics.stored_bytes < manifest.statistics.new_bytes / 4


@pytest.mark.parametrize(("mode", "encodings"), [("auto", {0, 4}), ("none", {0, 1})])
def test_new_regular_content_has_a_second_codec_after_the_first_backup(mode: str, encodings: set[int]) -> None:
    repository, image = make_repository(), make_incompressible_image(4 * PAGE * PAGES)
    back_up_image(repository, image, delta=mode)
    image.write(PAGE * PAGES, make_rows(1_000_000, 16384))
    manifest = back_up_image(repository, image, delta=mode)
    assert set(load_index(repository).entries["encoding"].tolist()) == encodings
    assert_restores(repository, manifest, image.content)


def test_a_first_backup_spends_no_time_on_a_second_codec() -> None:
    repository, image = make_repository(), make_database()
    image.write(PAGE, make_rows(0, 16384))
    back_up_image(repository, image)
    assert set(load_index(repository).entries["encoding"].tolist()) == {0, 1}


@pytest.mark.parametrize("cache_bytes", [1, 2**27])
def test_a_read_expands_no_record_of_a_chain_twice(
    tmp_path: Path, cache_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many paths lead down a chain of deltas, hundreds of times as many as there are records."""
    repository, image, chance = make_repository(), make_database(), random.Random(15)
    for _ in range(16):
        manifest = back_up_image(repository, image, cache_folder=str(tmp_path), max_read_amplification=100.0)
        content = bytes(image.content)
        update_rows(image, chance)
    snapshot = SnapshotContent(repository, manifest, load_index(repository))
    assert load_index(repository).links.depths.max() > 4
    expanded: list[int] = []
    expand = RecordReader.expand

    def count(reader: RecordReader, record: int, *rest: object, **options: object) -> memoryview:
        expanded.append(record)
        return expand(reader, record, *rest, **options)

    monkeypatch.setattr(RecordReader, "expand", count)
    assert snapshot.make_reader(cache_bytes).read(0, len(content)) == content
    assert len(expanded) == len(set(expanded))
    expanded.clear()
    assert snapshot.make_reader(cache_bytes).read(2_000_000, 50_000) == content[2_000_000:2_050_000]
    assert len(expanded) == len(set(expanded))


@pytest.mark.parametrize("mode", ["zstd", "xdelta", "deltaimg", pytest.param("best", marks=pytest.mark.long)])
def test_every_snapshot_of_a_chain_in_a_forced_mode_restores(tmp_path: Path, mode: str) -> None:
    repository, image, chance = make_repository(), make_incompressible_image(PAGE * 32), random.Random(16)
    snapshots = []
    for _ in range(31):
        manifest = back_up_image(
            repository, image, delta=mode, max_depth=6, max_read_amplification=100.0, cache_folder=str(tmp_path)
        )
        snapshots.append((manifest, bytes(image.content)))
        for page in chance.sample(range(32), 8):
            image.write(page * PAGE + chance.randrange(PAGE - 100), chance.randbytes(100))
    assert load_index(repository).links.depths.max() == 6
    for manifest, content in snapshots:
        assert_restores(repository, manifest, content)
