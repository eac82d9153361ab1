# SPDX-License-Identifier: Apache-2.0
"""`deltaimg repair`, as a user meets it."""

from __future__ import annotations

import shutil
from pathlib import Path

from deltaimg.errors import RepositoryDamaged
from tests.cli.conftest import Backups
from tests.support.flips import flip_file
from tests.support.program import deltaimg, fail, read_tree, succeed


def test_repair_from_a_copy_from_the_image_and_from_nothing(backups: Backups, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(backups.repo, copy)
    pack = max((backups.repo / "packs").rglob("?" * 64), key=lambda path: path.stat().st_size)
    flip_file(pack)
    before = read_tree(backups.repo)
    said = fail(RepositoryDamaged.exit_code, "repair", "--dry-run", repo=backups.repo)
    assert "damaged: vm1@" in said
    told = deltaimg("repair", "-n", "--json", repo=backups.repo).out.splitlines()[0]
    assert b'"lost_records": 1' in told
    assert read_tree(backups.repo) == before
    text = succeed("repair", "--from", copy, "-v", repo=backups.repo).text
    assert "1 object taken from the copy" in text
    assert "no snapshot is damaged" in text
    assert (backups.repo / "quarantine").is_dir()
    succeed("check", "--read-packs", repo=backups.repo)
    succeed("repair", "--from", backups.image, "-q", repo=backups.repo)
    for index in list((backups.repo / "index").iterdir()):
        index.unlink()
    assert succeed("repair", "--json", repo=backups.repo).json["indexed_packs"] == 2
    succeed("verify", "-q", repo=backups.repo)


def test_a_config_is_recovered_from_a_copy(backups: Backups, tmp_path: Path) -> None:
    copy, config = tmp_path / "copy", backups.repo / "config"
    shutil.copytree(backups.repo, copy)
    config.unlink()
    assert "repair --from COPY" in deltaimg("repair", repo=backups.repo).err
    assert "1 object taken from the copy" in succeed("repair", "--from", copy, repo=backups.repo).text
    assert config.read_bytes() == (copy / "config").read_bytes()


def test_whoever_asks_for_a_damaged_snapshot_gets_no_older_one(backups: Backups, tmp_path: Path) -> None:
    """A repair moves the newest manifest to quarantine: `latest` still means that snapshot."""
    newest = max((backups.repo / "snapshots" / "vm1").iterdir())
    newest.write_bytes(newest.read_bytes()[:100])
    out = tmp_path / "out"
    assert newest.name in fail(41, "restore", "vm1", out, repo=backups.repo)
    succeed("stats", repo=backups.repo)
    fail(RepositoryDamaged.exit_code, "repair", repo=backups.repo)
    for verb in (("restore", "vm1", out), ("cat", "vm1"), ("diff", "vm1@latest~1", "vm1"), ("tag", "add", "vm1", "x")):
        run = deltaimg(*verb, repo=backups.repo)
        assert run.code == 40, verb
        assert newest.name in run.err, verb
    assert not out.exists()
    succeed("stats", repo=backups.repo)
    run = deltaimg("verify", repo=backups.repo)
    assert run.code == 44
    assert "all of it: " in run.err + run.text
    assert "--keep-going" not in run.err
    succeed("forget", "vm1@latest", "--force", repo=backups.repo)
    succeed("verify", repo=backups.repo)


def test_a_copy_of_another_repository_is_refused(backups: Backups, tmp_path: Path) -> None:
    succeed("init", "-r", tmp_path / "other")
    assert "is no copy of" in fail(2, "repair", "--from", tmp_path / "other", repo=backups.repo)
    assert "no repository" in fail(31, "repair", "--from", tmp_path, repo=backups.repo).replace("not a repo", "no repo")
