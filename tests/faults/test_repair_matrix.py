# SPDX-License-Identifier: Apache-2.0
"""Each kind of object comes to harm in each way that a disk, a tool or a person may harm it, and is repaired.

A lost manifest is as good as a forgotten one where nothing lies in its place and others are left; all the rest comes back.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from deltaimg.engine.check.findings import FindingKind, Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.repair.run import repair
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
