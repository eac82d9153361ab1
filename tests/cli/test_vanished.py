# SPDX-License-Identifier: Apache-2.0
"""Folders of snapshots that were moved away or are not mounted: reported, and nothing is pruned because of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Backups
from tests.support.program import deltaimg, fail, read_tree, succeed

VANISHED = 37


def content_of(repo: Path) -> dict[str, bytes]:
    """Return what a prune could delete."""
    return {name: data for name, data in read_tree(repo).items() if name.startswith(("packs/", "maps/", "index/"))}


@pytest.mark.parametrize("lost", ["snapshots", "snapshots/vm1"])
@pytest.mark.parametrize("how", ["moved away", "a dangling link"])
def test_a_folder_that_vanishes_is_told_and_keeps_its_content(backups: Backups, lost: str, how: str) -> None:
    if lost == "snapshots/vm1":
        succeed("backup", backups.image, "--image", "vm2", "-q", repo=backups.repo)
    folder, away = backups.repo / lost, backups.repo.parent / "away"
    folder.rename(away)
    if how == "a dangling link":
        folder.symlink_to("/nowhere/at/all")
    before = content_of(backups.repo)
    for arguments in (("prune",), ("prune", "--dry-run")):
        run_code = VANISHED if how == "moved away" else None
        assert _fail(run_code, *arguments, repo=backups.repo)
    message = _fail(48 if how == "moved away" else None, "check", repo=backups.repo)
    assert "vm1" in message or "snapshots" in message
    assert content_of(backups.repo) == before
    if how == "a dangling link":
        folder.unlink()
    elif folder.exists():
        folder.rmdir()
    away.rename(folder)
    succeed("check", repo=backups.repo)
    succeed("prune", repo=backups.repo)
    succeed("verify", repo=backups.repo)


def test_a_list_without_them_does_not_look_like_that_of_a_new_repository(backups: Backups) -> None:
    folder, away = backups.repo / "snapshots", backups.repo.parent / "away"
    folder.rename(away)
    run = deltaimg("snapshots", repo=backups.repo)
    assert run.code == 0
    assert "image 'vm1' had snapshots on 20" in run.err
    assert "is a disk not mounted?" in run.err
    assert run.text == "no snapshot is there\n"
    away.rename(folder)
    assert deltaimg("snapshots", repo=backups.repo).err == ""


def _fail(code: int | None, *arguments: str, repo: Path) -> str:
    """Run a command that must fail, with this exit code or with that of any store that fails."""
    if code is not None:
        return fail(code, *arguments, repo=repo)
    return fail(54, *arguments, repo=repo)


def test_a_backup_into_the_empty_place_says_so_and_the_old_content_stays(backups: Backups) -> None:
    folder, away = backups.repo / "snapshots" / "vm1", backups.repo.parent / "away"
    folder.rename(away)
    before = content_of(backups.repo)
    run = succeed("backup", backups.image, "--image", "vm1", repo=backups.repo)
    assert "has none now: is a disk not mounted?" in run.err
    assert "had snapshots on" in fail(VANISHED, "prune", repo=backups.repo)
    assert before.items() <= content_of(backups.repo).items()
    for manifest in away.iterdir():
        manifest.rename(folder / manifest.name)
    succeed("snapshots", repo=backups.repo)
    succeed("prune", repo=backups.repo)
    succeed("verify", repo=backups.repo)


def test_what_was_forgotten_elsewhere_is_accepted_by_force_once(backups: Backups) -> None:
    succeed("backup", backups.image, "--image", "vm2", "-q", repo=backups.repo)
    for manifest in (backups.repo / "snapshots" / "vm2").iterdir():
        manifest.unlink()
    assert "image 'vm2'" in fail(VANISHED, "prune", repo=backups.repo)
    assert "snapshots/vm2/" in fail(48, "check", repo=backups.repo)
    succeed("prune", "--force", repo=backups.repo)
    succeed("prune", repo=backups.repo)
    succeed("check", repo=backups.repo)


def test_what_this_host_forgets_it_may_prune(backups: Backups) -> None:
    succeed("backup", backups.image, "--image", "vm2", "-q", repo=backups.repo)
    succeed("forget", "vm2@latest", "--force", "--prune", repo=backups.repo)
    succeed("check", repo=backups.repo)
    succeed("forget", "vm1~0", "vm1~1", "--force", repo=backups.repo)
    run = deltaimg("prune", repo=backups.repo)
    assert run.code == VANISHED
    assert "no snapshot that needs it" in run.err
    assert "Where a first backup was interrupted" in run.err
    assert "prune --force" in run.err
    succeed("prune", "--force", repo=backups.repo)
    assert not content_of(backups.repo)
    succeed("prune", repo=backups.repo)


def test_a_host_that_never_saw_the_repository_prunes_no_content_without_snapshots(
    backups: Backups, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another host"))
    (backups.repo / "snapshots").rename(tmp_path / "away")
    before = content_of(backups.repo)
    fail(VANISHED, "prune", repo=backups.repo)
    assert "no snapshot is there, but maps are" in succeed("check", repo=backups.repo).text
    assert content_of(backups.repo) == before
