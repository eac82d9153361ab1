# SPDX-License-Identifier: Apache-2.0
"""The power of the far side is cut before each step: the copy is the old or the new image after a `--recover`, and the new one
after the next run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.test_mirror_killed import NEW, OLD, copy_tree, make_mirror
from tests.faults.test_mirror_killed import small_groups as small_groups  # noqa: PLC0414  a fixture
from tests.support.mirror import Mirror
from tests.support.mirror_power import CutDisk


@pytest.mark.parametrize("name", NEW)
def test_no_power_cut_leaves_a_mixture(name: str, tmp_path: Path, is_long: bool, seed: int) -> None:
    """A part of the states, by chance; with --long all of them."""
    made = make_mirror(tmp_path / "base")
    made.image.write_bytes(NEW[name])
    states = tmp_path / "states"
    made.run(before=lambda: CutDisk(made.copy.parent, states, seed).watch(), is_in_place=True)
    assert made.is_equal()
    found = sorted(states.iterdir())
    assert len(found) > 40
    done = set()
    for state in found if is_long else found[seed % 4 :: 4]:
        cut = Mirror(made.image, state / "copy")
        again = copy_tree(Mirror(state / "image", state / "copy"), tmp_path / "again")
        done.add(cut.recover())
        assert cut.copy.read_bytes() in (OLD, NEW[name]), state.name
        again.image.write_bytes(NEW[name])
        again.run(is_in_place=True, is_verified=True)
        assert again.is_equal(), state.name
        shutil.rmtree(state)
    assert done >= {"undone", "nothing"}
