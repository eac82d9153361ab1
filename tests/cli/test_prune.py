# SPDX-License-Identifier: Apache-2.0
"""`prune` and `flatten` from the command line."""

from __future__ import annotations

from pathlib import Path

from deltaimg.errors import ReachabilityUnknown, SnapshotNotFound, UsageError
from deltaimg.repo.repository import Repository
from deltaimg.store.local import LocalStore
from tests.cli.conftest import Backups
from tests.support.program import fail, succeed
from tests.support.retention import keep_only, list_manifests


def keep_newest(repo: Path) -> None:
    repository = Repository.open(LocalStore(str(repo)))
    keep_only(repository, [list_manifests(repository)[-1].id])


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_prune_says_what_it_freed(backups: Backups, tmp_path: Path) -> None:
    keep_newest(backups.repo)
    before = size_of(backups.repo)
    planned = succeed("prune", "--dry-run", "--json", repo=backups.repo).json
    assert planned["dry_run"] is True
    assert planned["total_bytes"] == before == size_of(backups.repo)
    found = succeed("prune", "--json", repo=backups.repo).json
    assert found["waiting"] == []
    assert before - size_of(backups.repo) == found["freed_bytes"] - found["written_bytes"]
    assert found.keys() > planned.keys()
    succeed("restore", "vm1", tmp_path / "out.raw", "-q", repo=backups.repo)
    assert (tmp_path / "out.raw").read_bytes() == backups.second
    assert "0 B freed: 0 B deleted" in succeed("prune", repo=backups.repo).text


def test_prune_prints_its_plan(backups: Backups) -> None:
    text = succeed("prune", "-n", repo=backups.repo).text
    for word in ("frees", "writes", "packs not needed", "leaves unused"):
        assert word in text


def test_bad_options_of_prune_are_refused(backups: Backups) -> None:
    for options in (("--max-unused", "x"), ("--max-unused", "101"), ("--max-repack", "-1"), ("--trim", "some")):
        fail(UsageError.exit_code, "prune", *options, repo=backups.repo)


def test_prune_refuses_where_a_map_is_damaged(backups: Backups) -> None:
    victim = next((backups.repo / "maps").iterdir())
    victim.write_bytes(b"?")
    assert victim.name in fail(ReachabilityUnknown.exit_code, "prune", repo=backups.repo)


def test_flatten_makes_a_snapshot_self_contained(backups: Backups, tmp_path: Path) -> None:
    before = succeed("snapshots", "--json", repo=backups.repo).json
    succeed("flatten", "vm1@latest", repo=backups.repo)
    assert succeed("show", "vm1@latest", "--json", repo=backups.repo).json["depth"] == 0
    (again,) = succeed("flatten", "vm1@latest", "--json", repo=backups.repo).json
    assert (again["recoded_records"], again["written_bytes"]) == (0, 0)
    assert succeed("snapshots", "--json", repo=backups.repo).json == before
    succeed("restore", "vm1", tmp_path / "out.raw", "-q", repo=backups.repo)
    assert (tmp_path / "out.raw").read_bytes() == backups.second


def test_flatten_all_bounds_the_depth(backups: Backups) -> None:
    results = succeed("flatten", "--all", "--max-depth", "0", "--json", repo=backups.repo).json
    assert len(results) == 2
    for snapshot in ("vm1~0", "vm1~1"):
        assert succeed("show", snapshot, "--json", repo=backups.repo).json["depth"] == 0


def test_bad_options_of_flatten_are_refused(backups: Backups) -> None:
    for options in ((), ("--all",), ("vm1", "--all", "--max-depth", "1"), ("vm1", "--max-depth", "65")):
        fail(UsageError.exit_code, "flatten", *options, repo=backups.repo)
    fail(SnapshotNotFound.exit_code, "flatten", "nobody", repo=backups.repo)
