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


def test_a_config_comes_back_from_a_copy(nights: Nights, tmp_path: Path) -> None:
    copy, config = tmp_path / "copy", nights.repo / "config"
    shutil.copytree(nights.repo, copy)
    config.unlink()
    assert "repair --from COPY" in deltaimg("repair", repo=nights.repo).err
    assert "1 object taken from the copy" in succeed("repair", "--from", copy, repo=nights.repo).text
    assert config.read_bytes() == (copy / "config").read_bytes()


def test_whoever_asks_for_a_damaged_snapshot_gets_no_older_one(nights: Nights, tmp_path: Path) -> None:
    """A repair moves the newest manifest to quarantine: `latest` still means that snapshot."""
    newest = max((nights.repo / "snapshots" / "vm1").iterdir())
    newest.write_bytes(newest.read_bytes()[:100])
    out = tmp_path / "out"
    assert newest.name in fail(41, "restore", "vm1", out, repo=nights.repo)
    succeed("stats", repo=nights.repo)
    fail(RepositoryDamaged.exit_code, "repair", repo=nights.repo)
    for verb in (("restore", "vm1", out), ("cat", "vm1"), ("diff", "vm1@latest~1", "vm1"), ("tag", "add", "vm1", "x")):
        run = deltaimg(*verb, repo=nights.repo)
        assert run.code == 40, verb
        assert newest.name in run.err, verb
    assert not out.exists()
    succeed("stats", repo=nights.repo)
    run = deltaimg("verify", repo=nights.repo)
    assert run.code == 44
    assert "all of it: " in run.err + run.text
    assert "--keep-going" not in run.err
    succeed("forget", "vm1@latest", "--force", repo=nights.repo)
    succeed("verify", repo=nights.repo)


def test_a_copy_of_another_repository_is_refused(nights: Nights, tmp_path: Path) -> None:
    succeed("init", "-r", tmp_path / "other")
    assert "no copy of" in fail(2, "repair", "--from", tmp_path / "other", repo=nights.repo)
    assert "no repository" in fail(31, "repair", "--from", tmp_path, repo=nights.repo).replace("not a repo", "no repo")
