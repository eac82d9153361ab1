# SPDX-License-Identifier: Apache-2.0
"""A repository with two nights of one image, made by the program itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.program import succeed


@dataclass(frozen=True, slots=True)
class Nights:
    """The folder of the repository, the image file, and what each night was."""

    repo: Path
    image: Path
    first: bytes
    second: bytes


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    repo, path = tmp_path / "repo", tmp_path / "vm1.raw"
    image: SyntheticImage = make_mixed_image(2_000_001, seed=4)
    succeed("init", "-r", repo)
    image.save(path)
    first = bytes(image.content)
    succeed("backup", path, "--image", "vm1", "--tag", "one", "-r", repo, "-q")
    edit_at_random(image)
    image.save(path)
    succeed("backup", path, "--image", "vm1", "-r", repo, "-q")
    return Nights(repo, path, first, bytes(image.content))
