# SPDX-License-Identifier: Apache-2.0
"""A backup of a frozen image, killed at each step: the next one finds and removes what is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deltaimg.model import MIB
from tests.support.components import loop_file_system
from tests.support.killed import run_killed_at
from tests.support.program import succeed

SIZES = {"xfs": 320 * MIB, "btrfs": 256 * MIB}


@pytest.mark.parametrize(("kind", "method"), [("xfs", "reflink"), ("btrfs", "reflink"), ("btrfs", "btrfs")])
def test_what_a_killed_backup_leaves_of_a_frozen_image_is_removed_by_the_next(
    tmp_path: Path, kind: str, method: str
) -> None:
    repo = tmp_path / "repo"
    succeed("init", "-r", repo)
    with loop_file_system(kind, tmp_path / "mnt", SIZES[kind]) as made:
        image = made.folder / "vm1.raw"
        image.write_bytes(os.urandom(MIB))
        arguments = ("backup", image, "-i", "vm1", "--freeze", method, "-q")
        were_left, number = 0, 0
        while (call := run_killed_at(number, tmp_path / "hook", repo, *arguments)) is not None:
            left = [each.name for each in made.folder.iterdir() if each != image]
            assert len(left) <= 1, (number, call, left)
            were_left += len(left)
            number += 1
        assert number > 3
        assert (were_left > 0) == (method == "btrfs")  # clones have no name
        assert [each.name for each in made.folder.iterdir()] == [image.name]
        succeed("check", "-q", repo=repo)
