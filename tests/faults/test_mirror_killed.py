# SPDX-License-Identifier: Apache-2.0
"""The far side of a mirror, killed before each of its steps: the copy is the old or the new image after the next run or a
`--recover`, whichever it is.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from deltaimg.errors import FarSideUnusable
from deltaimg.format.mirror import BLOCK_BYTES
from tests.support.mirror import Mirror

BLOCKS = 40


def make_image(seed: int, blocks: int = BLOCKS, tail: int = 0) -> bytes:
    chance = random.Random(seed)
    made = [chance.randbytes(BLOCK_BYTES) if chance.random() < 0.7 else bytes(BLOCK_BYTES) for _ in range(blocks)]
    return b"".join(made) + chance.randbytes(tail)


def change(image: bytes, seed: int) -> bytes:
    """Write new blocks, move some, and make some zero."""
    chance = random.Random(seed)
    made = bytearray(image)
    for block in chance.sample(range(len(image) // BLOCK_BYTES), 18):
        start = block * BLOCK_BYTES
        source = chance.randrange(BLOCKS // 2) * BLOCK_BYTES
        made[start : start + BLOCK_BYTES] = chance.choice(
            (chance.randbytes(BLOCK_BYTES), image[source : source + BLOCK_BYTES], bytes(BLOCK_BYTES))
        )
    return bytes(made)


OLD = make_image(1, tail=100)
NEW = {
    "changed": change(OLD, 2),
    "larger": change(OLD, 3) + make_image(4, 3, tail=77),
    "smaller": change(OLD, 5)[: 31 * BLOCK_BYTES + 1000],
}


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several groups in a journal."""
    monkeypatch.setattr("deltaimg.engine.mirror.working_copy._FLUSH_BLOCKS", 8)
    monkeypatch.setattr("deltaimg.engine.mirror.batch_sender.BATCH_BLOCKS", 4)


def make_mirror(folder: Path) -> Mirror:
    """Return a mirror of the old image, with its state."""
    folder.mkdir()
    made = Mirror(folder / "image", folder / "copy")
    made.image.write_bytes(OLD)
    made.run()
    assert made.is_equal()
    return made


def copy_tree(source: Mirror, folder: Path) -> Mirror:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source.image.parent, folder)
    return Mirror(folder / "image", folder / "copy")


@pytest.mark.parametrize(("name", "turn"), [("changed", 0), ("larger", 1), ("smaller", 0), ("smaller", 1)])
def test_killed_at_every_step_in_place(name: str, turn: int, tmp_path: Path, is_long: bool) -> None:
    """Every other step is followed by a `--recover`, or by the next run; with --long each by both."""
    base = make_mirror(tmp_path / "base")
    seen, step = set(), 0
    while True:
        made = copy_tree(base, tmp_path / "trial")
        made.image.write_bytes(NEW[name])
        try:
            made.run(kill_at=step, is_in_place=True)
            break
        except FarSideUnusable:
            pass
        if is_long or step % 2 == turn:
            seen.add(assert_recovered(copy_tree(made, tmp_path / "other"), NEW[name]))
        if is_long or step % 2 != turn:
            seen.add(made.run(is_in_place=True, is_verified=True).recovered)
            assert made.is_equal()
            assert not os.path.exists(tmp_path / "trial" / ".copy.mirror" / "journal")
        step += 1
    assert made.is_equal()
    assert step > 20
    assert seen >= {"undone", "continued"}
    assert "finished" in seen


def assert_recovered(made: Mirror, new: bytes) -> str:
    """Recover, and return what was done; the copy is the old or the new image then, and what is kept of it is right."""
    done = made.recover()
    assert made.copy.read_bytes() == (new if done == "finished" else OLD) or done == "nothing"
    assert made.copy.read_bytes() in (OLD, new)
    assert made.run(is_in_place=True, is_verified=True).copy_read_bytes == 0
    assert made.is_equal()
    return done


def test_a_run_that_was_cut_is_continued_without_sending_again_what_arrived(tmp_path: Path) -> None:
    made = make_mirror(tmp_path / "base")
    made.image.write_bytes(NEW["changed"])
    with pytest.raises(FarSideUnusable):
        made.run(kill_at=20, is_in_place=True)
    again = made.run(is_in_place=True)
    assert again.recovered == "continued"
    assert again.changed_blocks < 18
    assert again.copy_read_bytes < len(OLD) // 2
    assert made.is_equal()


def test_killed_while_it_undoes(tmp_path: Path) -> None:
    base = make_mirror(tmp_path / "base")
    base.image.write_bytes(NEW["larger"])
    with pytest.raises(FarSideUnusable):
        base.run(kill_at=25, is_in_place=True)
    step = 0
    while True:
        made = copy_tree(base, tmp_path / "trial")
        try:
            made.recover(kill_at=step)
            break
        except FarSideUnusable:
            pass
        assert made.recover() in ("undone", "nothing")
        assert made.copy.read_bytes() == OLD
        step += 1
    assert made.copy.read_bytes() == OLD
    assert step > 10


@pytest.mark.parametrize("name", ["changed"])
def test_a_first_copy_killed_at_every_step_is_there_whole_or_not_at_all(name: str, tmp_path: Path) -> None:
    step = 0
    while True:
        folder = tmp_path / f"trial{step}"
        folder.mkdir()
        made = Mirror(folder / "image", folder / "copy")
        made.image.write_bytes(NEW[name])
        try:
            made.run(kill_at=step)
            break
        except FarSideUnusable:
            pass
        assert not made.copy.exists() or made.is_equal()
        assert made.run(is_verified=True).mode in ("new", "in-place")
        assert made.is_equal()
        step += 1
    assert made.is_equal()
    assert step > 6
