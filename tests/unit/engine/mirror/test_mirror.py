# SPDX-License-Identifier: Apache-2.0
"""A copy is made equal to its image, whatever either is, by no more bytes than that takes."""

from __future__ import annotations

import fcntl
import os
import random
from pathlib import Path

import numpy as np
import pytest

from deltaimg.engine.mirror import batches
from deltaimg.engine.mirror.working_copy import WorkingCopy
from deltaimg.errors import (
    DeltaimgError,
    FarSideUnusable,
    ImageError,
    ImageInUse,
    MirrorBusy,
    MirrorDiffers,
    SourceChanged,
    TargetExists,
    TargetTooSmall,
    UnsupportedImage,
)
from deltaimg.format.mirror import BLOCK_BYTES
from tests.support.components import loop_device, loop_file_system, requires_root, small_tmpfs
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.mirror import Mirror
from tests.support.repositories import Warnings


@pytest.fixture
def image() -> SyntheticImage:
    return make_mixed_image(3_000_001)


@pytest.fixture
def pair(image: SyntheticImage, tmp_path: Path) -> Mirror:
    image.save(tmp_path / "image")
    return Mirror(tmp_path / "image", tmp_path / "copy")


def test_a_copy_is_made_sparse_and_kept_current(image: SyntheticImage, pair: Mirror) -> None:
    first = pair.run()
    assert first.mode == "new"
    assert pair.is_equal()
    assert pair.copy.stat().st_blocks <= pair.image.stat().st_blocks + 8
    assert 0 < first.sent_bytes < first.literal_bytes

    again = pair.run()
    assert (again.changed_blocks, again.copy_read_bytes) == (0, 0)
    assert again.sent_bytes + again.received_bytes < 1000

    image.write(500_000, b"some new bytes")
    image.move(40960, 1_024_000, 5 * BLOCK_BYTES)
    image.zero(81920, 3 * BLOCK_BYTES)
    image.resize(3_500_000)
    image.save(pair.image)
    planned, done = pair.run(is_dry=True), pair.run()
    assert pair.is_equal()
    assert planned.changed_blocks == done.changed_blocks >= 9
    assert done.moved_blocks >= 4
    assert done.zeroed_blocks >= 3
    assert done.copy_read_bytes == 0
    assert done.sent_bytes < 2 * BLOCK_BYTES

    image.resize(1_000_100)
    image.save(pair.image)
    assert pair.run(is_verified=True, is_in_place=True).verified_bytes == 1_000_100
    assert pair.is_equal()


@pytest.mark.parametrize("is_in_place", [True, False])
def test_whatever_changes_the_copy_becomes_equal(
    is_in_place: bool, image: SyntheticImage, pair: Mirror, seed: int
) -> None:
    random.seed(seed)
    chance = random.Random(seed)
    for _ in range(6):
        edit_at_random(image)
        if chance.random() < 0.5:
            image.resize(chance.randrange(0, 4_000_000))
        image.save(pair.image)
        pair.run(is_in_place=is_in_place, is_verified=True)
        assert pair.is_equal()


@pytest.mark.parametrize("by", [5, -7])
def test_an_image_whose_content_moved_as_a_whole_needs_none_of_it(by: int, tmp_path: Path) -> None:
    """Also where what is needed was overwritten before: it is in the journal."""
    pair = Mirror(tmp_path / "image", tmp_path / "copy")
    blocks = [random.Random(number).randbytes(BLOCK_BYTES) for number in range(300)]
    pair.image.write_bytes(b"".join(blocks))
    pair.run()
    shifted = [random.Random(1000 + number).randbytes(BLOCK_BYTES) for number in range(1, by + 1)] + blocks[
        max(0, -by) :
    ]
    pair.image.write_bytes(b"".join(shifted))
    done = pair.run(is_in_place=True)
    assert pair.is_equal()
    assert done.literal_bytes == max(0, by) * BLOCK_BYTES
    assert done.moved_blocks == len(shifted) - max(0, by)


def test_a_digest_that_begins_like_another_costs_its_batch_again(pair: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """The far side is made to find a wrong block, as if its digest began in the same way."""
    pair.run()
    pair.image.write_bytes(random.Random(1).randbytes(300_000))
    monkeypatch.setattr(
        "deltaimg.engine.mirror.moved.BlockFinder.find",
        lambda self, prefixes: (np.ones(len(prefixes), np.bool_), memoryview(bytes(len(prefixes) * BLOCK_BYTES))),
    )
    done = pair.run(is_in_place=True)
    assert pair.is_equal()
    assert done.literal_bytes == 74 * BLOCK_BYTES
    assert batches.BATCH_BLOCKS > 74


@pytest.mark.parametrize("is_in_place", [True, False])
def test_new_content_that_resembles_what_both_sides_have_costs_little(is_in_place: bool, pair: Mirror) -> None:
    """Also what resembles a batch that is not written there yet."""
    chance = random.Random(6)
    old = chance.randbytes(1_000_000)
    pair.image.write_bytes(old + bytes(2_000_000))
    pair.run()
    new = chance.randbytes(600_000)
    pair.image.write_bytes(old + chance.randbytes(100) + old[:900_000] + new + b"shifted" + new)
    done = pair.run(is_in_place=is_in_place)
    assert pair.is_equal()
    assert done.literal_bytes > 2_000_000
    assert done.sent_bytes < 680_000


def test_sources_that_the_far_side_has_otherwise_cost_their_batches_again(
    pair: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    old = chance.randbytes(1_000_000)
    pair.image.write_bytes(old + bytes(1_000_000))
    pair.run()
    pair.image.write_bytes(old + b"x" + old)
    read_now = WorkingCopy.read_now
    monkeypatch.setattr(WorkingCopy, "read_now", lambda self, blocks: memoryview(bytes(len(read_now(self, blocks)))))
    assert pair.run(is_in_place=True).sent_bytes > 1_000_000
    assert pair.is_equal()


def test_a_clone_takes_the_place_of_the_copy(image: SyntheticImage, pair: Mirror, tmp_path: Path) -> None:
    with loop_file_system("xfs", tmp_path / "xfs", 320 << 20) as there:
        copy = Path(there.folder) / "copy"
        cloned = Mirror(pair.image, copy)
        cloned.run()
        copy.chmod(0o640)
        with open(copy, "rb") as reader:
            before = copy.read_bytes()
            image.write(500_000, b"some new bytes")
            image.move(40960, 1_024_000, 5 * BLOCK_BYTES)
            image.save(pair.image)
            done = cloned.run()
            assert (done.mode, done.copy_read_bytes) == ("clone", 0)
            assert reader.read() == before
        assert cloned.is_equal()
        assert copy.stat().st_mode & 0o777 == 0o640
        assert os.listdir(copy.parent / ".copy.mirror") in (["lock", "state"], ["state", "lock"])
        again = cloned.run()
        assert (again.changed_blocks, again.copy_read_bytes) == (0, 0)

        edit_at_random(image)
        image.write_random(100_000, 50_000)
        image.save(pair.image)
        before, step = copy.read_bytes(), 0
        while True:
            try:
                cloned.run(kill_at=step)
                break
            except FarSideUnusable:
                assert copy.read_bytes() in (before, pair.image.read_bytes())
            if step % 2:
                assert cloned.recover() in ("removed", "nothing")
                assert copy.read_bytes() in (before, pair.image.read_bytes())
            step += 1
        assert cloned.is_equal()
        assert step > 5


def test_what_is_no_mirror_yet_is_overwritten_only_by_force(pair: Mirror) -> None:
    pair.copy.write_bytes(b"of somebody")
    for options in ({}, {"is_dry": True}, {}):
        with pytest.raises(DeltaimgError, match="is no mirror") as refused:
            pair.run(**options)
        assert refused.value.exit_code == TargetExists.exit_code
    assert pair.copy.read_bytes() == b"of somebody"
    assert pair.run(is_forced=True).copy_read_bytes > 0
    assert pair.is_equal()
    assert pair.run().changed_blocks == 0


def test_a_copy_that_someone_else_wrote_to_is_read_and_repaired(pair: Mirror) -> None:
    pair.run()
    with open(pair.copy, "r+b") as file:
        file.seek(200_000)
        file.write(b"other")
    assert pair.run().copy_read_bytes > 0
    assert pair.is_equal()


def test_a_change_without_a_trace_is_found_by_a_comparison_of_all(
    pair: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.run()
    times = pair.copy.stat()
    with open(pair.copy, "r+b") as file:
        file.seek(2_000_000)
        file.write(b"other")
    os.utime(pair.copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    monkeypatch.setattr("deltaimg.engine.mirror.recovery._SAMPLE_BLOCKS", 0)
    assert pair.run(is_in_place=True).copy_read_bytes == 0
    assert not pair.is_equal()
    with pytest.raises(DeltaimgError, match="1 block") as found:
        pair.run(is_in_place=True, is_verified=True)
    assert found.value.exit_code == MirrorDiffers.exit_code
    assert pair.run(is_in_place=True).copy_read_bytes > 0
    assert pair.is_equal()


def test_a_state_that_is_damaged_only_costs_reading_the_copy(pair: Mirror, tmp_path: Path) -> None:
    pair.run()
    state = tmp_path / ".copy.mirror" / "state"
    whole = state.read_bytes()
    for damaged in (b"", whole[:-1], whole + b"x", whole[:100] + b"\xff" + whole[101:], b"x" * 1000):
        state.write_bytes(damaged)
        done = pair.run()
        assert (done.changed_blocks, done.copy_read_bytes > 0) == (0, True)


def test_two_mirrors_at_once_are_refused(pair: Mirror, tmp_path: Path) -> None:
    pair.run()
    with open(tmp_path / ".copy.mirror" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for act in (pair.run, pair.recover):
            with pytest.raises(DeltaimgError, match="another mirror") as refused:
                act()
            assert refused.value.exit_code == MirrorBusy.exit_code
    assert pair.run().changed_blocks == 0


def test_an_image_that_changes_meanwhile_is_refused(pair: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.run()
    before = pair.copy.read_bytes()
    pair.image.write_bytes(random.Random(2).randbytes(2_000_000))
    monkeypatch.setattr(
        "deltaimg.engine.mirror.run.digest_blocks", lambda key, content, size: np.zeros((1, 16), np.uint8)
    )
    with pytest.raises(SourceChanged, match="while it was mirrored"):
        pair.run(is_in_place=True)
    pair.recover()
    assert pair.copy.read_bytes() == before


class Growing(Warnings):
    """A progress that lets an image grow once it was read."""

    def __init__(self, image: Path) -> None:
        super().__init__()
        self._image = image

    def begin(self, task: str, total_bytes: int | None) -> None:
        super().begin(task, total_bytes)
        if task.startswith("sending"):
            os.truncate(self._image, 9_000_000)


def test_an_image_that_grows_meanwhile_is_warned_of_where_changes_are_accepted(pair: Mirror) -> None:
    old_bytes = pair.image.stat().st_size
    progress = Growing(pair.image)
    pair.run(allow_live=True, progress=progress)
    (warning,) = progress.messages
    assert f"from {old_bytes} to 9000000 bytes; the copy has the size from before" in warning
    assert pair.copy.stat().st_size == old_bytes


def test_what_cannot_be_mirrored_is_refused_and_nothing_is_made(pair: Mirror, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for kind, image, copy in (
        (ImageError, tmp_path / "none", pair.copy),
        (ImageError, pair.image, tmp_path / "none" / "copy"),
        (TargetExists, pair.image, tmp_path / "link"),
        (UnsupportedImage, pair.image, tmp_path),
        (UnsupportedImage, "-", pair.copy),
    ):
        with pytest.raises(DeltaimgError) as refused:
            Mirror(image, copy).run()
        assert refused.value.exit_code == kind.exit_code
    assert sorted(os.listdir(tmp_path)) == ["image", "link"]


def test_where_nothing_can_be_kept_of_the_copy_it_says_what_to_do(pair: Mirror) -> None:
    folder = pair.copy.with_name(f".{pair.copy.name}.mirror")
    folder.write_bytes(b"")
    with pytest.raises(DeltaimgError, match=r"cannot be used: Not a directory") as refused:
        pair.run()
    assert "move what has its name elsewhere" in str(refused.value.hint)
    folder.unlink()
    missing = Mirror(pair.image, pair.copy.parent / "missing" / "copy")
    with pytest.raises(DeltaimgError, match=r"cannot be used: No such file or directory") as refused:
        missing.run()
    assert f"make the folder {missing.copy.parent} first" in str(refused.value.hint)


def test_no_room_is_said_before_anything_is_written(pair: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.run()
    before = pair.copy.read_bytes()
    pair.image.write_bytes(random.Random(3).randbytes(1_000_000))
    full = os.statvfs_result((4096, 4096, 1000, 10, 10, 1, 1, 1, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(DeltaimgError, match="room for") as refused:
        pair.run()
    assert refused.value.exit_code == TargetTooSmall.exit_code
    assert pair.copy.read_bytes() == before
    monkeypatch.undo()
    pair.run()
    assert pair.is_equal()


def test_a_disk_that_is_full_meanwhile_costs_the_run_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_tmpfs(tmp_path / "there", 5 << 20) as there:
        pair = Mirror(tmp_path / "image", there / "copy")
        pair.image.write_bytes(random.Random(8).randbytes(2_500_000))
        pair.run()
        before = pair.copy.read_bytes()
        pair.image.write_bytes(random.Random(9).randbytes(3_000_000))
        free = os.statvfs_result((4096, 4096, 10**6, 10**6, 10**6, 1, 1, 1, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda _: free)
        with pytest.raises(DeltaimgError, match="no space left") as refused:
            pair.run(is_in_place=True)
        assert refused.value.exit_code == TargetTooSmall.exit_code
        assert pair.recover() == "undone"
        assert pair.copy.read_bytes() == before


def test_a_copy_that_a_loop_device_lies_on_is_not_written_to(image: SyntheticImage, pair: Mirror) -> None:
    requires_root()
    pair.run()
    before = pair.copy.read_bytes()
    image.write(500_000, b"some new bytes")
    image.save(pair.image)
    with loop_device(pair.copy) as device:
        for is_in_place in (False, True):
            with pytest.raises(DeltaimgError, match=f"is attached to {device}") as refused:
                pair.run(is_in_place=is_in_place)
            assert refused.value.exit_code == ImageInUse.exit_code
        assert pair.copy.read_bytes() == before
    pair.run()
    assert pair.copy.read_bytes() == pair.image.read_bytes()


def test_a_block_device_is_a_copy_as_well(image: SyntheticImage, pair: Mirror, tmp_path: Path) -> None:
    requires_root()
    backing = tmp_path / "backing"
    backing.write_bytes(random.Random(4).randbytes(4 << 20))
    with loop_device(backing) as device:
        there = Mirror(pair.image, Path(device))
        with pytest.raises(DeltaimgError, match="block device"):
            there.run()
        assert there.run(is_forced=True).mode == "in-place"
        assert backing.read_bytes()[:3_000_001] == pair.image.read_bytes()
        image.write(500_000, b"some new bytes")
        image.save(pair.image)
        done = there.run()
        assert (done.changed_blocks, done.copy_read_bytes) == (1, 0)
        image.resize(5 << 20)
        image.save(pair.image)
        with pytest.raises(DeltaimgError, match="needs") as refused:
            there.run()
        assert refused.value.exit_code == TargetTooSmall.exit_code
