# SPDX-License-Identifier: Apache-2.0
"""Files of others in a repository: every verb does its work, warns once, and leaves them alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Backups
from tests.support.litter import strew
from tests.support.program import deltaimg, succeed

VERBS: list[tuple[object, ...]] = [
    ("backup", "IMAGE", "--image", "vm1"),
    ("backup", "IMAGE", "--image", "another"),
    ("snapshots",),
    ("show", "vm1"),
    ("diff", "vm1@latest~1", "vm1"),
    ("stats",),
    ("check", "--read-packs"),
    ("verify",),
    ("cat", "vm1", "--length", "10"),
    ("restore", "vm1", "TARGET"),
    ("pin", "vm1"),
    ("flatten", "vm1"),
    ("forget", "vm1", "--keep-last", "1"),
    ("forget", "--keep-last", "1", "--prune"),
    ("prune",),
    ("prune", "--max-unused", "0"),
    ("unlock",),
    ("parity", "add"),
    ("parity", "show"),
    ("parity", "repair"),
    ("repair",),
    ("benchmark",),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Backups:
    """A repository with a folder of each kind in it."""
    folder = tmp_path_factory.mktemp("foreign")
    image, repo = folder / "vm1.raw", folder / "repo"
    first, second = os.urandom(300_000), os.urandom(300_000)
    succeed("init", "-r", repo)
    for content in (first, second):
        image.write_bytes(content)
        succeed("backup", image, "--image", "vm1", "--no-cache", repo=repo)
    succeed("parity", "add", repo=repo)
    for each in ("deletions", "quarantine/packs/ab", "quarantine/snapshots/vm1", "locks"):
        (repo / each).mkdir(parents=True, exist_ok=True)
    return Backups(repo, image, first, second)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(map(str, verb)))
def test_every_verb_ignores_what_is_not_ours_with_one_warning(
    template: Backups, tmp_path: Path, verb: tuple[object, ...]
) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(template.repo, repo)
    left = strew(repo)
    places = {"IMAGE": template.image, "TARGET": tmp_path / "target"}
    arguments = [places.get(str(each), each) for each in verb]
    run = deltaimg(*arguments, "-q", *(("--no-cache",) if verb[0] == "backup" else ()), repo=repo)
    assert run.code == 0, run.err
    warned = [line for line in run.err.splitlines() if "not deltaimg's" in line]
    assert len(warned) <= 1
    if verb[0] == "check":
        assert not warned, "it lists them itself"
        assert "a file that is not deltaimg's" in run.text
    else:
        assert warned or verb[0] in ("unlock", "benchmark")
    assert all(os.path.lexists(path) for path in left)
    shutil.rmtree(tmp_path / "target", ignore_errors=True)


def test_a_repository_that_was_strewn_is_as_good_as_before(template: Backups, tmp_path: Path) -> None:
    """Lists that prune writes, indexes, plans and sums have none of it; once it is gone nothing of it is left."""
    repo, target = tmp_path / "repo", tmp_path / "target"
    shutil.copytree(template.repo, repo)
    before = succeed("stats", "--json", repo=repo).json
    left = strew(repo)
    assert succeed("stats", "--json", repo=repo).json == before
    succeed("forget", "--keep-last", "1", repo=repo)
    succeed("prune", "--max-unused", "0", repo=repo)
    succeed("parity", "add", "--percent", "20", repo=repo)
    succeed("repair", repo=repo)
    for path in left:
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    run = succeed("check", "--read-packs", "-q", repo=repo)
    assert not run.err, "quiet is without progress, not without warnings"
    succeed("backup", template.image, "--image", "vm1", repo=repo)
    succeed("prune", repo=repo)
    succeed("restore", "vm1", target, repo=repo)
    assert target.read_bytes() == template.second


def test_check_lists_everything_that_is_not_ours(template: Backups, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(template.repo, repo)
    left = strew(repo)
    found = succeed("check", "--json", repo=repo).json["warnings"]
    named = {each["object"] for each in found if each["kind"] == "foreign"}
    assert named == {os.fsdecode(os.path.relpath(path, os.fsencode(repo))) for path in left}


@pytest.mark.parametrize("name", ["lost+found", ".Trash-1000", "System Volume Information"])
def test_what_a_file_system_leaves_in_its_root_is_in_nobodys_way(tmp_path: Path, name: str) -> None:
    (tmp_path / "repo" / name).mkdir(parents=True)
    succeed("init", repo=tmp_path / "repo")
    succeed("snapshots", repo=tmp_path / "repo")


@pytest.mark.parametrize("name", ["notes.txt", ".bashrc", "folder/"])
def test_a_folder_with_something_of_others_in_it_becomes_no_repository(tmp_path: Path, name: str) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / name).mkdir() if name.endswith("/") else (repo / name).touch()
    run = deltaimg("init", repo=repo)
    assert run.code == 32
    assert "the folder is not empty" in run.err
    assert deltaimg("snapshots", repo=repo).code == 31
    assert os.listdir(repo) == [name.rstrip("/")]
