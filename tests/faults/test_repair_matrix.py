# SPDX-License-Identifier: Apache-2.0
"""Each kind of object is damaged in each way that a disk, a tool or a person may damage it, and is repaired.

A lost manifest is as good as a forgotten one where nothing lies in its place and others are left; all the rest is recovered.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deltaimg.api.repair import open_for_repair
from deltaimg.api.repair import repair as api_repair
from deltaimg.engine.check.findings import FindingKind, Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.repair.run import RepairReport, repair
from deltaimg.errors import DeltaimgError, UsageError
from tests.support.damage import HARMS, KINDS, assert_has_all, describe_deeds, harmed, make_original, open_folder

GONE = {("missing", "snapshots"), ("renamed_in_capitals", "snapshots")}
NAMED = KINDS[:6]
"""Kinds that snapshots need; the others are tried in few ways."""
USUAL = ("truncated", "missing", "swapped", "dangling_link", "replaced_by_a_folder")


def list_scenes(usual_kinds: tuple[str, ...]) -> list[object]:
    """Return all scenes, those of the usual ways or of kinds that are not among these in the long run only."""
    scenes = [(how, kind) for how in HARMS for kind in KINDS if (how, kind) not in GONE]
    return [
        pytest.param(how, kind, marks=() if kind in usual_kinds or how in USUAL else pytest.mark.long)
        for how, kind in scenes
    ]


@pytest.mark.parametrize(("how", "kind"), list_scenes(NAMED))
def test_a_copy_makes_everything_whole_and_the_dry_run_says_what_is_done(how: str, kind: str, tmp_path: Path) -> None:
    repository, copy = harmed(tmp_path, how, kind), open_folder(make_original().folder)
    before = sorted(path for path in (tmp_path / "repo").rglob("*") if not path.is_symlink())
    told = repair(repository, copy=copy, is_dry_run=True)
    assert sorted(path for path in (tmp_path / "repo").rglob("*") if not path.is_symlink()) == before
    report = repair(repository, copy=copy)
    assert describe_deeds(report) == describe_deeds(told)
    assert_has_all(open_folder(tmp_path / "repo"))
    if (how, kind) != ("beside_those_of_another_repository", "snapshots"):
        assert report.damage == ()
        assert not check(repository, read_packs=True).of(Severity.ERROR)
    again = repair(repository, copy=copy)
    assert (again.copied, again.quarantined, again.new_indexes) == ([], [], 0)


@pytest.mark.parametrize(("how", "kind"), list_scenes(()))
def test_a_repair_without_help_loses_nothing_that_a_copy_would_have_saved(how: str, kind: str, tmp_path: Path) -> None:
    repository, copy = harmed(tmp_path, how, kind), open_folder(make_original().folder)
    told = repair(repository, is_dry_run=True)
    assert describe_deeds(repair(repository)) == describe_deeds(told)
    report = repair(repository, copy=copy)
    assert_has_all(open_folder(tmp_path / "repo"))
    if (how, kind) != ("beside_those_of_another_repository", "snapshots"):
        assert report.damage == ()
        assert not check(repository, read_packs=True).of(Severity.ERROR)


@pytest.mark.parametrize("kind", ["deletions", "verified"])
def test_what_the_repository_makes_again_by_itself_is_quarantined(kind: str, tmp_path: Path) -> None:
    repository = harmed(tmp_path, "flipped", kind)
    repair(repository)
    found = check(repository, read_packs=True).findings
    assert not [each for each in found if each.kind is FindingKind.DAMAGED and each.object_name.startswith(kind)]
    assert [each for each in found if each.kind is FindingKind.QUARANTINE and f"quarantine/{kind}" in each.object_name]


@pytest.mark.parametrize("how", ["truncated", "emptied", "missing", "replaced_by_foreign", "dangling_link", "folder"])
def test_a_config_is_recovered_from_a_copy_and_from_no_other_repository(how: str, tmp_path: Path) -> None:
    original, repo = make_original(), tmp_path / "repo"
    shutil.copytree(original.folder, repo)
    config = repo / "config"
    good = config.read_bytes()
    config.unlink()
    if how == "folder":
        config.mkdir()
    elif how == "dangling_link":
        config.symlink_to(repo / "nowhere")
    elif how != "missing":
        foreign = (original.other / "config").read_bytes()
        config.write_bytes({"truncated": good[:70], "emptied": b"", "replaced_by_foreign": foreign}[how])
    if how == "replaced_by_foreign":
        # It is a good config, by which all else is damaged: only whoever has the copy can tell.
        with pytest.raises(UsageError, match="config"):
            repair_at(str(repo), str(original.folder))
        return
    with pytest.raises(DeltaimgError):
        repair_at(str(repo), str(original.other))
    report = repair_at(str(repo), str(original.folder))
    assert report.copied[0] == "config"
    assert config.read_bytes() == good
    assert not config.is_symlink()
    assert_has_all(open_folder(repo))


def repair_at(location: str, from_path: str) -> RepairReport:
    return api_repair(open_for_repair(location, from_path), from_path)
