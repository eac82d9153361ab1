# SPDX-License-Identifier: Apache-2.0
"""Whoever stores things in the repository of another user is warned that this one cannot read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deltaimg.store.local import LocalStore
from tests.support.components import requires_root
from tests.support.images import make_mixed_image
from tests.support.repositories import back_up_image, make_repository

ALICE = 30_001


@pytest.mark.parametrize(
    ("owner", "mode", "is_warned"),
    [(ALICE, 0o750, True), (ALICE, 0o2770, False), (0, 0o755, False)],
    ids=["another user", "shared by a group", "the same user"],
)
def test_a_run_in_the_repository_of_another_user_is_warned_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, owner: int, mode: int, is_warned: bool
) -> None:
    requires_root()
    folder = tmp_path / "repo"
    repository = make_repository(LocalStore(str(folder)))
    os.chown(folder, owner, -1)
    os.chmod(folder, mode)
    for seed in range(2):
        back_up_image(repository, make_mixed_image(100_000, seed=seed))
    expected = [f"{folder} belongs to user {ALICE}, who cannot read what root stores there"] if is_warned else []
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == expected
