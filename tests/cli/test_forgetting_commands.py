# SPDX-License-Identifier: Apache-2.0
"""`forget`, `pin` and `unpin` from the command line, where they succeed and where they are refused."""

from __future__ import annotations

import os
from pathlib import Path

from deltaimg.describe.text import format_bytes
from tests.cli.conftest import Backups
from tests.support.program import fail, read_tree, succeed


def ids_of(backups: Backups, *arguments: str) -> list[str]:
    return [each["snapshot"] for each in succeed("snapshots", *arguments, "--json", repo=backups.repo).json]


def test_a_dry_run_shows_rules_and_bytes_and_changes_nothing(backups: Backups) -> None:
    backups.image.write_bytes(os.urandom(400_000))
    succeed("backup", backups.image, "--image", "vm1", "-q", repo=backups.repo)
    before = read_tree(backups.repo)
    first, second, third = ids_of(backups)
    text = succeed("forget", "--keep-last", "1", "--dry-run", repo=backups.repo).text
    assert "kept by" in text
    assert "frees" in text
    assert "would forget 2 of 3 snapshots, which frees" in text
    (found,) = succeed("forget", "vm1", "--keep-last", "1", "-n", "--json", repo=backups.repo).json["images"]
    assert found["dry_run"] is True
    assert [(each["snapshot"], each["keep"], each["rules"]) for each in found["snapshots"]] == [
        (first, False, []),
        (second, False, []),
        (third, True, ["newest", "last"]),
    ]
    (group,) = found["groups"]
    assert group["snapshots"] == [first, second]
    assert group["frees_bytes"] == found["frees_bytes"] > 0
    assert "with the next" in text
    assert read_tree(backups.repo) == before


def test_several_images_are_summed_up(backups: Backups) -> None:
    succeed("backup", backups.image, "--image", "vm2", "-q", repo=backups.repo)
    said = succeed("forget", "--keep-last", "1", "--dry-run", repo=backups.repo)
    freed_bytes = succeed("forget", "--keep-last", "1", "--dry-run", "--json", repo=backups.repo).json["frees_bytes"]
    assert (
        said.text.splitlines()[-1]
        == f"2 images: would forget 1 of 3 snapshots, which frees {format_bytes(freed_bytes)}"
    )
    succeed("forget", "vm1", "--keep-last", "1", repo=backups.repo)
    assert succeed("forget", "--keep-last", "1", repo=backups.repo).text.splitlines()[-1] == (
        "2 images: forgot 0 of 2 snapshots"
    )


def test_forgetting_by_policy_says_what_stays_and_the_rest_restores(backups: Backups, tmp_path: Path) -> None:
    text = succeed("forget", "--keep-daily", "1", "--time-zone", "UTC", "--keep-tag", "none", repo=backups.repo).text
    assert "vm1: forgot 1 of 2 snapshots" in text
    assert "deltaimg prune" in text
    listed = succeed("snapshots", "--json", repo=backups.repo).json
    assert [each["base_forgotten"] for each in listed] == [True]
    assert "(forgotten)" in succeed("snapshots", repo=backups.repo).text
    assert "forgotten" in succeed("show", "vm1", repo=backups.repo).text
    succeed("restore", "vm1", tmp_path / "back.raw", repo=backups.repo)
    assert (tmp_path / "back.raw").read_bytes() == backups.second
    succeed("verify", repo=backups.repo)
    assert succeed("forget", "--keep-daily", "1", "-q", repo=backups.repo).text == ""


def test_forgetting_by_name_forgets_what_is_named(backups: Backups, tmp_path: Path) -> None:
    first, second = ids_of(backups)
    (found,) = succeed("forget", second[:10], "--json", repo=backups.repo).json["images"]
    assert (found["kept"], found["forgotten"]) == (1, 1)
    assert ids_of(backups) == [first]
    assert "that would forget the last snapshot of image 'vm1'" in fail(25, "forget", "vm1@latest", repo=backups.repo)
    run = succeed("forget", "vm1@latest", "--force", repo=backups.repo)
    assert "forgot 1 of 1 snapshot" in run.text
    assert ids_of(backups) == []
    assert "nothing to forget" in succeed("forget", "--keep-last", "1", repo=backups.repo).text


def test_the_newest_may_go_with_a_warning(backups: Backups) -> None:
    run = succeed("forget", "vm1@latest", repo=backups.repo)
    assert "warning: the newest snapshot of 'vm1' is forgotten" in run.err


def test_a_pin_shows_holds_and_goes(backups: Backups) -> None:
    first, _ = ids_of(backups)
    found = succeed("pin", "vm1~1", "--reason", "before the upgrade", "--json", repo=backups.repo).json
    assert (found["snapshot"], found["pinned"]) == (first, "before the upgrade")
    assert "pinned (before the upgrade)" in succeed("snapshots", repo=backups.repo).text
    assert "before the upgrade" in succeed("show", "vm1~1", repo=backups.repo).text
    (kept,) = succeed("forget", "--keep-last", "1", "--json", repo=backups.repo).json["images"]
    assert kept["snapshots"][0]["rules"] == ["pinned"]
    assert "is pinned (before the upgrade)" in fail(24, "forget", "vm1~1", repo=backups.repo)
    assert "unpinned" in succeed("unpin", "vm1~1", repo=backups.repo).text
    assert succeed("unpin", "vm1~1", "--json", repo=backups.repo).json["pinned"] is None
    succeed("forget", "vm1~1", repo=backups.repo)


def test_what_makes_no_sense_is_refused_and_changes_nothing(backups: Backups) -> None:
    before = read_tree(backups.repo)
    for code, arguments, said in (
        (2, (), "nothing says what to keep"),
        (2, ("vm1",), "is an image, and no single snapshot of it"),
        (2, ("vm1~1", "--time-zone", "UTC"), "--time-zone makes sense with a --keep option"),
        (2, ("--keep-last", "some"), "'some' is not a valid number"),
        (2, ("--keep-last", "-1"), "'-1' is not a valid number"),
        (2, ("--keep-last", "0"), "all --keep values are 0"),
        (2, ("--keep-last", "9999999999"), "is not a valid number"),
        (2, ("--keep-within", "30"), "is no span of time"),
        (2, ("--keep-within", "0d"), "is no span of time"),
        (2, ("--keep-tag", ""), "empty tag"),
        (2, ("--keep-tag", "a,,b"), "empty tag"),
        (2, ("--keep-last", "1", "--time-zone", "Mars/Olympus"), "is not a valid time zone"),
        (2, ("--keep-last", "1", "--time-zone", "../../etc/passwd"), "is not a valid time zone"),
        (2, ("--keep-last", "1", "vm1@latest"), "has @"),
        (21, ("--keep-last", "1", "vm2"), "no snapshot matches 'vm2'"),
        (21, ("vm1~1", "ffff"), "no snapshot matches 'ffff'"),
        (2, ("--keep-last", "1", "--force"), "--force is for snapshots that are named"),
        (25, ("vm1~1", "vm1~0"), "all 2 snapshots of image 'vm1'"),
    ):
        assert said in fail(code, "forget", *arguments, repo=backups.repo), arguments
    assert "has control characters" in fail(2, "pin", "vm1", "--reason", "a\nb", repo=backups.repo)
    fail(21, "pin", "ffff", repo=backups.repo)
    assert read_tree(backups.repo) == before


def test_a_damaged_snapshot_is_no_obstacle_and_is_forgotten_by_its_id(backups: Backups) -> None:
    first, second = ids_of(backups)
    manifest = next((backups.repo / "snapshots" / "vm1").glob(f"*-{second}"))
    manifest.write_bytes(manifest.read_bytes()[:-1])
    run = succeed("forget", "--keep-last", "1", "--json", repo=backups.repo)
    (image,) = run.json["images"]
    assert [each["rules"] for each in image["snapshots"]] == [["newest", "last"], ["damaged"]]
    assert f"vm1@{second[:8]} stays until it is repaired or forgotten by name" in run.err
    assert f"deltaimg forget vm1@{second[:8]}" in fail(36, "prune", repo=backups.repo)
    succeed("forget", second[:8], repo=backups.repo)
    assert ids_of(backups) == [first]
    succeed("prune", repo=backups.repo)
    succeed("verify", repo=backups.repo)


def test_an_image_that_fails_does_not_keep_others_from_it(backups: Backups) -> None:
    succeed("backup", backups.image, "--image", "vm2", "-q", repo=backups.repo)
    other = ids_of(backups, "vm2")[0]
    succeed("backup", backups.image, "--image", "vm2", "-q", repo=backups.repo)
    first, second = ids_of(backups, "vm1")
    assert "all 2 snapshots of image 'vm1'" in fail(25, "forget", first, second, other, repo=backups.repo)
    assert (len(ids_of(backups, "vm1")), len(ids_of(backups, "vm2"))) == (2, 1)


def test_forgetting_with_prune_gives_the_space_back_at_once(backups: Backups) -> None:
    backups.image.write_bytes(os.urandom(400_000))
    succeed("backup", backups.image, "--image", "vm1", "-q", repo=backups.repo)
    before = succeed("stats", "--json", repo=backups.repo).json["stored_bytes"]
    found = succeed("forget", "vm1", "--keep-last", "1", "--prune", "--json", repo=backups.repo).json
    assert found["images"][0]["kept"] == 1
    assert found["prune"]["freed_bytes"] > 0
    assert succeed("stats", "--json", repo=backups.repo).json["stored_bytes"] < before
    assert "--dry-run forgets nothing" in fail(
        2, "forget", "vm1", "--keep-last", "1", "--prune", "-n", repo=backups.repo
    )
