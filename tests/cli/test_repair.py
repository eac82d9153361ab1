# SPDX-License-Identifier: Apache-2.0
"""`deltaimg repair`, as a user meets it."""

from __future__ import annotations

import shutil
from pathlib import Path

from deltaimg.errors import RepositoryDamaged
from tests.cli.conftest import Nights
from tests.support.program import deltaimg, fail, read_tree, succeed


def test_repair_from_a_copy_from_the_image_and_from_nothing(nights: Nights, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(nights.repo, copy)
    pack = max((nights.repo / "packs").rglob("?" * 64), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    before = read_tree(nights.repo)
    said = fail(RepositoryDamaged.exit_code, "repair", "--dry-run", repo=nights.repo)
    assert "damaged: vm1@" in said
    told = deltaimg("repair", "-n", "--json", repo=nights.repo).out.splitlines()[0]
    assert b'"lost_records": 1' in told
    assert read_tree(nights.repo) == before
    text = succeed("repair", "--from", copy, "-v", repo=nights.repo).text
    assert "1 object taken from the copy" in text
    assert "no snapshot is damaged" in text
    assert (nights.repo / "quarantine").is_dir()
    succeed("check", "--read-packs", repo=nights.repo)
    succeed("repair", "--from", nights.image, "-q", repo=nights.repo)
    for index in list((nights.repo / "index").iterdir()):
        index.unlink()
    assert succeed("repair", "--json", repo=nights.repo).json["indexed_packs"] == 2
    succeed("verify", "-q", repo=nights.repo)


def test_a_copy_of_another_repository_is_refused(nights: Nights, tmp_path: Path) -> None:
    succeed("init", "-r", tmp_path / "other")
    assert "no copy of" in fail(2, "repair", "--from", tmp_path / "other", repo=nights.repo)
    assert "no repository" in fail(31, "repair", "--from", tmp_path, repo=nights.repo).replace("not a repo", "no repo")
