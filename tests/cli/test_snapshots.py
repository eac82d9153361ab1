# SPDX-License-Identifier: Apache-2.0
"""`snapshots`, `tag` and selectors: what is listed, what is chosen, and what is known to be damaged."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from deltaimg import open_repository
from tests.cli.conftest import Backups
from tests.support.clock import FixedClock
from tests.support.images import make_mixed_image
from tests.support.program import deltaimg, fail, succeed
from tests.support.repositories import back_up_image

DAMAGED = 48


def labels(backups: Backups, *arguments: str) -> list[str]:
    return succeed("snapshots", "-q", *arguments, repo=backups.repo).text.split()


def test_tags_come_and_go_and_choose(backups: Backups) -> None:
    first, second = labels(backups)
    assert labels(backups, "--tag", "one") == [first]
    found = succeed("tag", "add", "vm1@latest", "weekly", "one", "--json", repo=backups.repo).json
    assert found["tags"] == ["weekly", "one"]
    assert labels(backups, "--tag", "one") == [first, second]
    assert labels(backups, "--tag", "one", "--tag", "weekly") == [second]
    assert labels(backups, "--tag", "one", "--latest", "1") == [second]
    assert labels(backups, "--latest", "0") == labels(backups, "--tag", "none") == []
    assert "weekly" in succeed("show", "vm1", repo=backups.repo).text
    assert second in succeed("tag", "remove", "vm1", "weekly", "never", repo=backups.repo).text
    assert labels(backups, "--tag", "weekly") == []
    kept = succeed("forget", "--keep-tag", "one", "--json", repo=backups.repo).json["images"][0]["snapshots"]
    assert [each["rules"] for each in kept] == [["tag one"], ["tag one", "newest"]]


def test_a_clock_that_was_ahead_is_pointed_out(backups: Backups) -> None:
    """One backup years ahead: those after it keep their order, and their dates are no longer those of the calendar."""
    with open_repository(str(backups.repo)) as repository:
        back_up_image(
            repository, make_mixed_image(100_000), "vm1", clock=FixedClock(datetime(2090, 3, 1, 12, tzinfo=UTC))
        )
    assert "by the clock" not in succeed("snapshots", repo=backups.repo).text
    today = datetime.now().astimezone().strftime("%Y-%m-%d")
    for arguments in (("--dry-run",), ()):
        run = deltaimg("backup", backups.image, "--image", "vm1", "-q", *arguments, repo=backups.repo)
        assert run.code == 0, run.err
        assert "is dated 2090-03-01" in run.err
        assert f"the clock of this host says {today}" in run.err
    listed = succeed("snapshots", "--latest", "1", repo=backups.repo).text
    assert "2090-03-01" in listed
    assert f"{today} " in listed
    assert "by the clock" in listed
    assert f"; {today} " in succeed("show", "vm1", repo=backups.repo).text


def test_a_choice_that_leaves_no_snapshot_is_answered_in_words(backups: Backups) -> None:
    assert succeed("snapshots", "--tag", "nowhere", repo=backups.repo).text == (
        "none of 2 snapshots was chosen; 'deltaimg snapshots' lists all\n"
    )
    assert succeed("snapshots", "--tag", "nowhere", "--json", repo=backups.repo).json == []
    assert succeed("snapshots", "--tag", "nowhere", "-q", repo=backups.repo).text == ""


def test_tags_that_make_no_sense_are_refused(backups: Backups) -> None:
    for arguments in (
        ("add", "vm1"),
        ("drop", "vm1", "x"),
        ("add", "vm1", "a,b"),
        ("add", "vm1", "a\nb"),
        ("add", "vm1", ""),
    ):
        fail(2, "tag", *arguments, repo=backups.repo)
    fail(21, "tag", "add", "vm2", "x", repo=backups.repo)
    for words in (("tag", "add", "vm1", "a,b"), ("backup", backups.image, "--image", "vm1", "--tag", "a,b")):
        assert "'backup --tag a --tag b', 'tag add SNAPSHOT a b'" in deltaimg(*words, repo=backups.repo).err


def test_latest_alone_is_the_newest_where_there_is_one_image(backups: Backups) -> None:
    newest = succeed("show", "vm1@latest", "--json", repo=backups.repo).json["snapshot"]
    assert succeed("show", "latest", "--json", repo=backups.repo).json["snapshot"] == newest
    assert succeed("show", "latest~1", "--json", repo=backups.repo).json["snapshot"] != newest
    fail(21, "show", "latest~2", repo=backups.repo)
    succeed("backup", backups.image, "--image", "vm2", "-q", repo=backups.repo)
    assert "vm1@latest" in deltaimg("show", "latest", repo=backups.repo).err


def test_how_deep_deltas_are_is_shown_on_request(backups: Backups) -> None:
    rows = succeed("snapshots", "-v", "--json", repo=backups.repo).json
    assert rows[0]["depth"] == 0
    assert "no deltas" in succeed("snapshots", "-v", repo=backups.repo).text


def test_damaged_snapshots_are_marked_before_and_after_a_repair(backups: Backups) -> None:
    first, second = sorted((backups.repo / "snapshots" / "vm1").iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    for _ in range(2):
        assert "1 snapshot is damaged; the first: vm1@" in fail(DAMAGED, "snapshots", repo=backups.repo)
        run = deltaimg("snapshots", "--json", repo=backups.repo)
        rows = json.loads(run.out.splitlines()[0])
        assert [row["snapshot"] for row in rows if row["damage"] is not None] == [first.name[-16:]]
        assert run.code == DAMAGED
        verified = deltaimg("verify", repo=backups.repo)
        assert verified.code == 44
        assert "1 snapshot is damaged; " in verified.text
        assert "all content was verified" not in verified.text
        assert "damaged" in succeed("stats", repo=backups.repo).text
        fail(DAMAGED, "repair", repo=backups.repo)
    assert succeed("snapshots", "--latest", "1", repo=backups.repo).text.count("vm1@") == 1, "of the sound one alone"
    succeed("forget", first.name[-16:], repo=backups.repo)
    succeed("snapshots", repo=backups.repo)
    succeed("prune", repo=backups.repo)
    assert second.exists()


def test_snapshots_whose_content_a_repair_could_not_recover_are_marked(backups: Backups) -> None:
    pack = max((backups.repo / "packs").glob("*/*"), key=lambda path: path.stat().st_size)
    pack.unlink()
    for _ in range(2):
        message = fail(DAMAGED, "snapshots", repo=backups.repo)
        assert "2 snapshots are damaged" in message
        assert pack.name in message
        verified = deltaimg("verify", repo=backups.repo)
        assert verified.code == 44
        assert "2 snapshots are damaged" in verified.text
        assert "all content was verified" not in verified.text
        fail(DAMAGED, "repair", repo=backups.repo)


def test_a_lost_map_marks_the_snapshots_that_list_it(backups: Backups) -> None:
    newest = succeed("show", "vm1", "--json", repo=backups.repo).json
    lost = backups.repo / "maps" / newest["maps"][-1]
    lost.unlink()
    assert "1 snapshot is damaged" in fail(DAMAGED, "snapshots", repo=backups.repo)
    assert lost.name in fail(23, "restore", "vm1", Path(backups.repo.parent / "out.raw"), repo=backups.repo)
    succeed("restore", "vm1~1", Path(backups.repo.parent / "out.raw"), "-q", repo=backups.repo)
    assert Path(backups.repo.parent / "out.raw").read_bytes() == backups.first
