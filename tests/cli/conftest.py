# SPDX-License-Identifier: Apache-2.0
"""A new repository, and one with two backups of one image, both made by the program itself."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.program import succeed


@dataclass(frozen=True, slots=True)
class Backups:
    """The folder of the repository, the image file, and the content that each backup read."""

    repo: Path
    image: Path
    first: bytes
    second: bytes


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Backups:
    """What each test gets a copy of; never to be changed. Beside it is what the host keeps of it."""
    folder = tmp_path_factory.mktemp("backups")
    repo, path = folder / "repo", folder / "vm1.raw"
    image: SyntheticImage = make_mixed_image(2_000_001, seed=4)
    first = bytes(image.content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        succeed("init", "-r", repo)
        image.save(path)
        succeed("backup", path, "--image", "vm1", "--tag", "one", "-r", repo, "-q")
        edit_at_random(image)
        image.save(path)
        succeed("backup", path, "--image", "vm1", "-r", repo, "-q")
    return Backups(repo, path, first, bytes(image.content))


@pytest.fixture
def backups(made_once: Backups, own_cache: None, tmp_path: Path) -> Backups:
    folder = made_once.repo.parent
    places = {
        "repo": tmp_path / "repo",
        "vm1.raw": tmp_path / "vm1.raw",
        "cache/.": os.environ["XDG_CACHE_HOME"],
        "state/.": os.environ["XDG_STATE_HOME"],
    }
    for name, place in places.items():
        # Holes, modes and times as well. A path would lose the dot of `state/.`, and so copy into the folder that is there.
        subprocess.run(["cp", "-a", f"{folder}/{name}", place], check=True)
    return Backups(tmp_path / "repo", tmp_path / "vm1.raw", made_once.first, made_once.second)


@pytest.fixture
def repo(own_cache: None, tmp_path: Path) -> Path:
    """The folder of a new repository."""
    succeed("init", "-r", tmp_path / "repo")
    return tmp_path / "repo"
