# SPDX-License-Identifier: Apache-2.0
"""What a backup stores, refers to and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltaimg.api.backup import backup
from deltaimg.api.compare import compare
from deltaimg.crypto.key_slots import KeyFile
from deltaimg.errors import RepositoryLocked, SourceChanged, UsageError
from deltaimg.format.roster import ROSTERS
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.index import load_index
from deltaimg.repo.layers import resolve_map
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.slots import SlotTable
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.images import (
    SyntheticImage,
    SyntheticSource,
    edit_at_random,
    make_incompressible_image,
    make_mixed_image,
)
from tests.support.repositories import KEY, Warnings, assert_restores, back_up_image, make_repository

PAGE = 4096


@pytest.mark.parametrize("block_bytes", [4096, 16384, 65536, 1 << 20])
@pytest.mark.parametrize("size_bytes", [1, 4095, 4097, 1_000_003, 5 << 20])
def test_images_of_any_block_and_image_size_restore(block_bytes: int, size_bytes: int) -> None:
    repository = make_repository()
    image = make_mixed_image(size_bytes, seed=size_bytes)
    image.write(0, b"x")
    taken = []
    for _ in range(4):
        taken.append((back_up_image(repository, image, block_bytes=block_bytes), bytes(image.content)))
        edit_at_random(image)
    for manifest, content in taken:
        assert_restores(repository, manifest, content)


def test_an_image_may_grow_and_shrink() -> None:
    repository = make_repository()
    image = make_mixed_image(1_000_000)
    taken = []
    for size_bytes in (1_000_000, 1_500_001, 300_000, 2_000_000):
        image.resize(size_bytes)
        image.write_random(size_bytes - 5000, 4000)
        taken.append((back_up_image(repository, image), bytes(image.content)))
    for manifest, content in taken:
        assert manifest.size_bytes == len(content)
        assert_restores(repository, manifest, content)


def sum_sizes(store: LocalStore) -> int:
    """Return what all objects take but rosters, each of which is written after its manifest and takes the last one's place."""
    return sum(found.size_bytes for found in store.list("") if not found.name.startswith(ROSTERS))


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_stored_bytes_are_what_the_repository_grew_by(tmp_path: Path, key: KeyFile | None) -> None:
    store = LocalStore(str(tmp_path / "repo"))
    repository = make_repository(store, key)
    image = make_mixed_image(3 << 20)
    for _ in range(3):
        before = sum_sizes(store)
        manifest = back_up_image(repository, image)
        assert manifest.statistics.stored_bytes == sum_sizes(store) - before
        edit_at_random(image)


def test_an_unchanged_image_stores_a_manifest_and_next_to_nothing_else() -> None:
    repository = make_repository()
    image = make_mixed_image(8 << 20)
    back_up_image(repository, image)
    second = back_up_image(repository, image)
    assert second.statistics.changed_bytes == second.statistics.new_bytes == 0
    assert second.statistics.stored_bytes < 2000


def test_moved_data_costs_references_only() -> None:
    repository = make_repository()
    image = SyntheticImage(8 << 20)
    image.write_random(0, 2 << 20)
    back_up_image(repository, image)
    image.move(0, 5 << 20, 2 << 20)
    manifest = back_up_image(repository, image)
    assert manifest.statistics.new_bytes == 0
    assert manifest.statistics.referenced_bytes == 2 << 20
    assert manifest.statistics.stored_bytes < 3000
    assert_restores(repository, manifest, image.content)


def test_equal_blocks_of_one_run_are_stored_once() -> None:
    repository = make_repository()
    image = SyntheticImage(4 << 20)
    image.write(0, image.random.randbytes(64 * 1024) * 64)
    manifest = back_up_image(repository, image)
    assert manifest.statistics.new_bytes == 64 * 1024
    assert_restores(repository, manifest, image.content)


def test_fifty_guests_of_one_template_cost_little_more_than_one() -> None:
    repository = make_repository()
    template = make_incompressible_image(4 << 20)
    first = back_up_image(repository, template, "guest0").statistics.stored_bytes
    rest = 0
    for number in range(1, 50):
        guest = template.copy()
        guest.write(number * 8192, b"host%d" % number)
        rest += back_up_image(repository, guest, f"guest{number}").statistics.stored_bytes
    assert rest < first * 0.15, (rest, first)


def test_known_content_is_looked_for_within_a_budget() -> None:
    repository = make_repository()
    template = make_incompressible_image(4 << 20)
    back_up_image(repository, template, "guest0")
    manifest = back_up_image(repository, template, "guest1", match_budget_bytes=0)
    assert manifest.statistics.referenced_bytes == 0
    assert_restores(repository, manifest, template.content)


def test_holes_and_zeros_are_told_apart_in_the_map() -> None:
    repository = make_repository()
    image = SyntheticImage(64 * PAGE)
    image.write_random(0, 8 * PAGE)
    image.zero(16 * PAGE, 8 * PAGE)
    slots = []
    for _ in range(2):
        manifest = back_up_image(repository, image)
        table = SlotTable(repository, load_index(repository))
        slots.append([tuple(run) for run in resolve_map(repository, manifest, table).runs.tolist()])
        image.zero(40 * PAGE, 4 * PAGE)
        image.punch(0, 4 * PAGE)
    assert slots[0] == [(0, 8, 2), (8, 8, 0), (16, 8, 1), (24, 40, 0)]
    assert slots[1] == [(0, 4, 0), (4, 4, 6), (8, 8, 0), (16, 8, 1), (24, 16, 0), (40, 4, 1), (44, 20, 0)]


def test_what_does_not_compress_is_stored_as_it_is() -> None:
    repository = make_repository()
    manifest = back_up_image(repository, make_incompressible_image(2 << 20))
    assert (2 << 20) < manifest.statistics.stored_bytes < (2 << 20) + 20_000
    assert set(load_index(repository).entries["encoding"].tolist()) == {0}


def test_an_image_written_to_meanwhile_is_refused_or_marked() -> None:
    repository = make_repository()
    image = make_mixed_image(1 << 20)
    from deltaimg.engine.backup.run import back_up

    source = SyntheticSource(image)
    source.is_changed = True
    with pytest.raises(SourceChanged) as caught:
        back_up(repository, source, "vm1", clock=FixedClock())
    assert caught.value.hint
    assert repository.list_snapshots() == []
    manifest = back_up(repository, source, "vm1", BackupOptions(allow_live=True), clock=FixedClock())
    assert manifest.is_live


def test_an_interrupted_run_is_used_by_the_next() -> None:
    """Twelve megabytes were stored, then the source failed: the next run stores the rest only."""
    repository = make_repository()
    image = make_incompressible_image(16 << 20)
    source = SyntheticSource(image)
    source.fail_at, source.error = 12 << 20, KeyboardInterrupt()
    from deltaimg.engine.backup.run import back_up

    with pytest.raises(KeyboardInterrupt):
        back_up(repository, source, "vm1", BackupOptions(workers=1), clock=FixedClock())
    assert repository.list_snapshots() == []
    manifest = back_up_image(repository, image)
    assert manifest.statistics.referenced_bytes >= 8 << 20
    assert manifest.statistics.stored_bytes < 8 << 20
    assert_restores(repository, manifest, image.content)


def test_order_survives_a_clock_that_goes_back(clock: FixedClock) -> None:
    repository = make_repository()
    image = make_mixed_image(200_000)
    ids = []
    for step in (0, 3600, -7200, 0):
        clock.advance(seconds=step)
        ids.append(back_up_image(repository, image, clock=clock).id)
    assert [ref.id for ref in repository.list_snapshots("vm1")] == ids


def test_a_second_backup_of_an_image_is_refused_while_one_runs() -> None:
    repository = make_repository()
    image = make_mixed_image(100_000)
    with ImageLock(repository, "vm1", "backup of a.raw", START):
        with pytest.raises(RepositoryLocked, match=r"image 'vm1' is locked by process \d+"):
            back_up_image(repository, image)
        back_up_image(repository, image, "vm2")
    back_up_image(repository, image)


@pytest.mark.parametrize("size", [1000, 5000, 2 << 20, 0, -4096])
def test_absurd_block_sizes_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=r"power of two"):
        back_up_image(make_repository(), make_mixed_image(100_000), block_bytes=size)


def test_an_image_keeps_its_block_size() -> None:
    repository = make_repository()
    image = make_mixed_image(100_000)
    back_up_image(repository, image, block_bytes=16384)
    with pytest.raises(UsageError, match=r"has blocks of 16384 bytes"):
        back_up_image(repository, image, block_bytes=4096)
    assert back_up_image(repository, image).block_bytes == 16384


def test_a_damaged_base_costs_a_warning_and_never_the_backup() -> None:
    store = MemoryStore()
    repository = make_repository(store)
    image = make_mixed_image(1 << 20)
    first = back_up_image(repository, image)
    store.objects["maps/" + first.maps[0]] = b"garbage"
    progress = Warnings()
    manifest = back_up_image(repository, image, progress=progress)
    assert manifest.base is None
    assert "cannot be a base" in progress.messages[0]
    assert_restores(repository, manifest, image.content)


def test_a_real_file_is_backed_up_and_restored_with_its_holes(tmp_path: Path) -> None:
    repository = make_repository(LocalStore(str(tmp_path / "repo")))
    image = make_mixed_image(6_000_001)
    for number in range(3):
        path = image.save(tmp_path / f"state{number}.raw")
        backup(repository, path, "vm1")
        assert not compare(repository, "vm1", path).differing
        edit_at_random(image)
    path = image.save(tmp_path / "changed.raw")
    found = compare(repository, "vm1", path)
    old = (tmp_path / "state2.raw").read_bytes()
    expected = {
        block
        for block in range(-(-len(old) // PAGE))
        if old[block * PAGE :][:PAGE] != image.content[block * PAGE :][:PAGE]
    }
    assert {block for each in found.differing for block in range(each.start // PAGE, -(-each.end // PAGE))} == expected
