# SPDX-License-Identifier: Apache-2.0
"""Folders of snapshots that are moved away or not mounted: told, and nothing is pruned for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Nights
from tests.support.program import deltaimg, fail, read_tree, succeed

VANISHED = 37


def content_of(repo: Path) -> dict[str, bytes]:
    """Return what a prune could delete."""
    return {name: data for name, data in read_tree(repo).items() if name.startswith(("packs/", "maps/", "index/"))}


@pytest.mark.parametrize("lost", ["snapshots", "snapshots/vm1"])
@pytest.mark.parametrize("how", ["moved away", "a dangling link"])
def test_a_folder_that_vanishes_is_told_and_keeps_its_content(nights: Nights, lost: str, how: str) -> None:
    if lost == "snapshots/vm1":
        succeed("backup", nights.image, "--image", "vm2", "-q", repo=nights.repo)
    folder, away = nights.repo / lost, nights.repo.parent / "away"
    folder.rename(away)
    if how == "a dangling link":
        folder.symlink_to("/nowhere/at/all")
    before = content_of(nights.repo)
    for arguments in (("prune",), ("prune", "--dry-run")):
        run_code = VANISHED if how == "moved away" else None
        assert _fail(run_code, *arguments, repo=nights.repo)
    message = _fail(48 if how == "moved away" else None, "check", repo=nights.repo)
    assert "vm1" in message or "snapshots" in message
    assert content_of(nights.repo) == before
    if how == "a dangling link":
        folder.unlink()
    elif folder.exists():
        folder.rmdir()
    away.rename(folder)
    succeed("check", repo=nights.repo)
    succeed("prune", repo=nights.repo)
    succeed("verify", repo=nights.repo)


def _fail(code: int | None, *arguments: str, repo: Path) -> str:
    """Run a command that must fail, with this exit code or with that of any store that fails."""
    if code is not None:
        return fail(code, *arguments, repo=repo)
    return fail(54, *arguments, repo=repo)


def test_a_backup_into_the_empty_place_says_so_and_the_old_content_stays(nights: Nights) -> None:
    folder, away = nights.repo / "snapshots" / "vm1", nights.repo.parent / "away"
    folder.rename(away)
    before = content_of(nights.repo)
    run = succeed("backup", nights.image, "--image", "vm1", repo=nights.repo)
    assert "none is there: is a disk not mounted?" in run.err
    assert "had snapshots on" in fail(VANISHED, "prune", repo=nights.repo)
    assert before.items() <= content_of(nights.repo).items()
    for manifest in away.iterdir():
        manifest.rename(folder / manifest.name)
    succeed("snapshots", repo=nights.repo)
    succeed("prune", repo=nights.repo)
    succeed("verify", repo=nights.repo)


def test_what_was_forgotten_elsewhere_is_accepted_by_force_once(nights: Nights) -> None:
    succeed("backup", nights.image, "--image", "vm2", "-q", repo=nights.repo)
    for manifest in (nights.repo / "snapshots" / "vm2").iterdir():
        manifest.unlink()
    assert "image 'vm2'" in fail(VANISHED, "prune", repo=nights.repo)
    assert "snapshots/vm2/" in fail(48, "check", repo=nights.repo)
    succeed("prune", "--force", repo=nights.repo)
    succeed("prune", repo=nights.repo)
    succeed("check", repo=nights.repo)


def test_what_this_host_forgets_it_may_prune(nights: Nights) -> None:
    succeed("backup", nights.image, "--image", "vm2", "-q", repo=nights.repo)
    succeed("forget", "vm2@latest", "--force", "--prune", repo=nights.repo)
    succeed("check", repo=nights.repo)
    succeed("forget", "vm1~0", "vm1~1", "--force", repo=nights.repo)
    run = deltaimg("prune", repo=nights.repo)
    assert run.code == VANISHED
    assert "not a single snapshot" in run.err
    assert "prune --force" in run.err
    succeed("prune", "--force", repo=nights.repo)
    assert not content_of(nights.repo)
    succeed("prune", repo=nights.repo)


def test_a_host_that_never_saw_the_repository_prunes_no_content_without_snapshots(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another host"))
    (nights.repo / "snapshots").rename(tmp_path / "away")
    before = content_of(nights.repo)
    fail(VANISHED, "prune", repo=nights.repo)
    assert "no snapshot is there, but maps are" in succeed("check", repo=nights.repo).text
    assert content_of(nights.repo) == before
