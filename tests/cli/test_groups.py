# SPDX-License-Identifier: Apache-2.0
"""Groups: frozen together, committed together, restored, kept, copied and forgotten together."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deltaimg.model import MIB
from tests.support.components import loop_file_system
from tests.support.program import deltaimg, fail, succeed

SIZES = {"xfs": 320 * MIB, "btrfs": 256 * MIB}
_WRITER = """
import os, sys
files = [os.open(path, os.O_RDWR) for path in sys.argv[1:]]
number = 0
os.write(1, b"ready")
while True:
    number += 1
    for file in files:
        os.pwrite(file, number.to_bytes(8, "little") * 512, 0)
"""


@pytest.fixture
def disks(tmp_path: Path) -> tuple[Path, Path]:
    return make_disks(tmp_path)


def make_disks(folder: Path) -> tuple[Path, Path]:
    for name in ("root.raw", "data.raw"):
        (folder / name).write_bytes(os.urandom(MIB))
    return folder / "root.raw", folder / "data.raw"


def back_up(repo: Path, disks: tuple[Path, Path], *options: object) -> dict:  # type: ignore[type-arg]
    named = (f"root={disks[0]}", f"data={disks[1]}")
    done: dict = succeed("backup", "--group", "web1", *named, *options, "--json", repo=repo).json  # type: ignore[type-arg]
    return done


def edit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(4096))


def list_times(repo: Path) -> dict[str, list[str]]:
    """Return the times of the snapshots of each image."""
    times: dict[str, list[str]] = {}
    for each in succeed("snapshots", "--json", repo=repo).json:
        times.setdefault(each["image"], []).append(each["time_exact"])
    return times


def remove_newest(repo: Path, image: str) -> None:
    """Remove a manifest, as a run that was cut off has not written it."""
    max((repo / "snapshots" / image).iterdir()).unlink()


# -- one moment --------------------------------------------------------------------------------------------------------


@contextmanager
def writing_to(*paths: Path) -> Iterator[int]:
    """Write a number to one after the other, without a pause; yields the number of the process."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, *map(str, paths)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("kind", SIZES)
def test_two_disks_are_of_one_instant_where_their_writer_is_stopped(repo: Path, tmp_path: Path, kind: str) -> None:
    with loop_file_system(kind, tmp_path / "mnt", SIZES[kind]) as made:
        disks = make_disks(made.folder)
        with writing_to(*disks) as writer:
            hooks = ("--pre-freeze", f"kill -STOP {writer}", "--post-freeze", f"kill -CONT {writer}")
            for number in range(3):
                time.sleep(0.02)
                done = back_up(repo, disks, *hooks)
                assert [each["freeze"]["method"] for each in done["members"]] == ["reflink", "reflink"]
                assert done["spread_s"] == 0
                assert 0 < done["frozen_s"] < 10
                (tmp_path / str(number)).mkdir()
                succeed("restore", "web1", "--into", tmp_path / str(number), repo=repo)
                first, second = (
                    int.from_bytes((tmp_path / str(number) / disk.name).read_bytes()[:8], "little") for disk in disks
                )
                assert first - 1 <= second <= first
        assert sorted(each.name for each in made.folder.iterdir() if each.is_file()) == ["data.raw", "root.raw"]


def test_without_commands_it_is_said_how_far_apart_disks_were_frozen(repo: Path, tmp_path: Path) -> None:
    with loop_file_system("xfs", tmp_path / "mnt", SIZES["xfs"]) as made:
        disks = make_disks(made.folder)
        named = (f"root={disks[0]}", f"data={disks[1]}")
        said = succeed("backup", "--group", "web1", *named, repo=repo).text
        assert said.count("frozen by reflink") == 1
        assert "one after another within" in said
        assert succeed("show", "web1", "--json", repo=repo).json["spread_s"] > 0
        tracked = back_up(repo, disks, "--track", "auto")
        edit(disks[0])
        tracked = back_up(repo, disks, "--track", "auto")
        assert [each["tracking"]["method"] for each in tracked["members"]] == ["reflink", "reflink"]
        assert tracked["members"][0]["changed_bytes"] == 4096


def test_commands_run_once_for_a_group(repo: Path, disks: tuple[Path, Path], tmp_path: Path) -> None:
    log = tmp_path / "log"
    back_up(
        repo,
        disks,
        *("--freeze", "hook", "--pre-freeze", f'echo "pre $DELTAIMG_IMAGE $DELTAIMG_SOURCE" >> {log}'),
        *("--post-freeze", f"echo post >> {log}"),
    )
    assert log.read_text() == f"pre web1 {disks[0]}\n{disks[1]}\npost\n"


def test_a_failing_command_leaves_no_snapshot(repo: Path, disks: tuple[Path, Path]) -> None:
    named = (f"root={disks[0]}", f"data={disks[1]}")
    fail(62, "backup", "--group", "web1", *named, "--freeze", "hook", "--post-freeze", "exit 3", repo=repo)
    assert list_times(repo) == {}


def test_what_cannot_be_frozen_must_not_be_written_to_until_all_is_read(repo: Path, disks: tuple[Path, Path]) -> None:
    named = (f"root={disks[0]}", f"data={disks[1]}")
    with writing_to(disks[0]):
        # On a busy machine the writer may get no turn in the moment that a backup of so little takes: that one is right.
        codes = [deltaimg("backup", "--group", "web1", *named, repo=repo).code for _ in range(5)]
    assert codes.count(12) + codes.count(0) == 5
    assert 12 in codes
    assert {len(each) for each in list_times(repo).values()} <= {codes.count(0)} - {0}


# -- what is there -----------------------------------------------------------------------------------------------------


def test_a_group_is_restored_as_one(repo: Path, disks: tuple[Path, Path], tmp_path: Path) -> None:
    before = [disk.read_bytes() for disk in disks]
    first = back_up(repo, disks)
    edit(disks[0])
    second = back_up(repo, disks)
    assert [each["image"] for each in second["members"]] == ["web1.root", "web1.data"]
    assert second["members"][1]["changed_bytes"] == 0
    for selector, contents in (
        ("web1", [disk.read_bytes() for disk in disks]),
        ("web1~1", before),
        (f"web1@{first['members'][1]['snapshot'][:8]}", before),
        (first["members"][0]["snapshot"], before),
    ):
        out = tmp_path / "out"
        out.mkdir()
        done = succeed("restore", selector, "--into", out, "--json", repo=repo).json
        assert [Path(each["target"]).name for each in done["members"]] == ["root.raw", "data.raw"]
        assert [(out / disk.name).read_bytes() for disk in disks] == contents
        for each in out.iterdir():
            each.unlink()
        out.rmdir()
    shown = succeed("show", "web1", "--json", repo=repo).json
    assert shown["missing"] == []
    assert [each["snapshot"] for each in shown["members"]] == [each["snapshot"] for each in second["members"]]
    assert "web1.root@" in succeed("show", "web1", repo=repo).text
    assert (
        "2 images" in succeed("backup", "--group", "web1", *map("d{}={}".format, (1, 2), disks), "-n", repo=repo).text
    )


def test_nothing_is_written_where_one_place_is_taken(repo: Path, disks: tuple[Path, Path], tmp_path: Path) -> None:
    back_up(repo, disks)
    out = tmp_path / "out"
    out.mkdir()
    (out / "data.raw").write_bytes(b"mine")
    assert "data.raw: exists" in fail(13, "restore", "web1", "--into", out, repo=repo)
    assert [each.name for each in out.iterdir()] == ["data.raw"]
    succeed("restore", "web1", "--into", out, "--force", repo=repo)
    assert [(out / disk.name).read_bytes() for disk in disks] == [disk.read_bytes() for disk in disks]
    assert "is not a folder" in fail(2, "restore", "web1", "--into", tmp_path / "none", repo=repo)
    assert "is not there" in fail(10, "restore", "web1", "--into", "/dev", repo=repo)
    assert "TARGET cannot be given" in fail(2, "restore", "web1", tmp_path / "x", "--into", out, repo=repo)


def test_disks_of_the_same_name_are_restored_beside_each_other(repo: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "out"):
        (tmp_path / name).mkdir()
    paths = [tmp_path / name / "disk.raw" for name in ("a", "b")]
    for path in paths:
        path.write_bytes(os.urandom(70_000))
    succeed("backup", "--group", "web1", f"x={paths[0]}", f"y={paths[1]}", repo=repo)
    succeed("restore", "web1", "--into", tmp_path / "out", repo=repo)
    assert (tmp_path / "out" / "web1.x").read_bytes() == paths[0].read_bytes()
    assert (tmp_path / "out" / "web1.y").read_bytes() == paths[1].read_bytes()


def test_a_group_that_is_not_whole_says_so(repo: Path, disks: tuple[Path, Path], tmp_path: Path) -> None:
    back_up(repo, disks)
    back_up(repo, disks)
    remove_newest(repo, "web1.data")
    out = tmp_path / "out"
    out.mkdir()
    assert "is incomplete: there is no snapshot of web1.data" in fail(27, "restore", "web1", "--into", out, repo=repo)
    assert "INCOMPLETE GROUP: web1.data missing" in succeed("snapshots", repo=repo).text
    listed = succeed("snapshots", "web1.root", "--json", repo=repo).json
    assert [each["group_missing"] for each in listed] == [[], ["web1.data"]]
    assert succeed("show", "web1", "--json", repo=repo).json["missing"] == ["web1.data"]
    checked = succeed("check", "--json", repo=repo).json
    assert any("web1 is incomplete" in each["problem"] for each in checked["warnings"])
    succeed("restore", "web1.root", out / "alone", repo=repo)
    assert (out / "alone").read_bytes() == disks[0].read_bytes()
    succeed("restore", "web1~1", "--into", out, repo=repo)
    back_up(repo, disks)
    succeed("restore", "web1", "--into", out, "--force", repo=repo)


def test_names_that_are_groups_are_explained(repo: Path, disks: tuple[Path, Path], tmp_path: Path) -> None:
    back_up(repo, disks)
    succeed("backup", disks[0], "-i", "vm1", repo=repo)
    assert "is a group of images" in fail(2, "restore", "web1", tmp_path / "x", repo=repo)
    assert "in no group" in fail(2, "restore", "vm1", "--into", tmp_path, repo=repo)
    fail(21, "restore", "web2", "--into", tmp_path, repo=repo)
    assert len(succeed("snapshots", "web1", "--json", repo=repo).json) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no disk"),
        (("{0}",), "is not a disk of a group"),
        (("a={0}", "a={1}"), "two disks"),
        (("a={0}", "b={0}"), "are the same"),
        (("config={0}",), "can be called 'config'"),
        (("a/b={0}",), "has /"),
        (("a={0}", "--image", "x"), "--image"),
        (("a={0}", "--hints", "-"), "--hints"),
    ],
)
def test_words_that_make_no_group(repo: Path, disks: tuple[Path, Path], words: tuple[str, ...], said: str) -> None:
    assert said in fail(2, "backup", "--group", "web1", *(word.format(*disks) for word in words), repo=repo)


def test_streams_and_what_is_not_there_are_no_disks_of_a_group(repo: Path, tmp_path: Path) -> None:
    fail(10, "backup", "--group", "web1", f"a={tmp_path / 'none'}", repo=repo)
    os.mkfifo(tmp_path / "pipe")
    assert "a group is made of" in fail(11, "backup", "--group", "web1", f"a={tmp_path / 'pipe'}", repo=repo)
    assert "a group is made of" in fail(11, "backup", "--group", "web1", "a=nbd://localhost/vm1", repo=repo)


# -- kept, copied and forgotten together -------------------------------------------------------------------------------


def test_a_policy_keeps_of_one_member_what_it_keeps_of_another(repo: Path, disks: tuple[Path, Path]) -> None:
    runs = [back_up(repo, disks) for _ in range(4)]
    succeed("pin", f"web1.data@{runs[1]['members'][1]['snapshot']}", repo=repo)
    planned = succeed("forget", "web1.root", "--keep-last", "1", "-n", "--json", repo=repo).json
    rules = {each["image"]: [tuple(v["rules"]) for v in each["snapshots"]] for each in planned["images"]}
    assert rules["web1.root"] == [(), ("group",), (), ("newest", "last")]
    assert rules["web1.data"] == [(), ("pinned",), (), ("newest", "last")]
    succeed("forget", "--keep-last", "1", repo=repo)
    times = list_times(repo)
    assert times["web1.root"] == times["web1.data"] == [runs[1]["time_exact"], runs[3]["time_exact"]]


def test_what_is_said_of_a_group_is_said_of_all_its_members(repo: Path, disks: tuple[Path, Path]) -> None:
    """Its name, and a moment of it, are as good as those of an image."""
    first, _ = back_up(repo, disks), back_up(repo, disks)
    ids = {each["snapshot"] for each in first["members"]}
    pinned = succeed("pin", "web1~1", "--reason", "before the upgrade", "--json", repo=repo).json
    assert {each["snapshot"] for each in pinned} == ids
    assert {each["pinned"] for each in pinned} == {"before the upgrade"}
    assert succeed("tag", "add", "web1@latest~1", "weekly", repo=repo).text.count("weekly") == 2
    assert {each["id"] for each in succeed("snapshots", "--tag", "weekly", "--json", repo=repo).json} == ids
    succeed("unpin", "web1~1", repo=repo)
    assert not any(each["pinned"] for each in succeed("snapshots", "--json", repo=repo).json)
    verified = succeed("verify", "web1~1", repo=repo).text
    assert all(f"@{each[:8]}  verified" in verified for each in ids)
    assert len(succeed("flatten", "web1", "--json", repo=repo).json) == 2
    assert "no snapshot matches 'web2'" in fail(21, "verify", "web2", repo=repo)


def test_a_forget_that_was_cut_off_is_finished_by_the_next(repo: Path, disks: tuple[Path, Path]) -> None:
    for _ in range(3):
        back_up(repo, disks)
    min((repo / "snapshots" / "web1.data").iterdir()).unlink()
    succeed("forget", "web1", "--keep-last", "1", repo=repo)
    assert [len(times) for times in list_times(repo).values()] == [1, 1]


def test_a_snapshot_of_a_group_is_forgotten_as_one(repo: Path, disks: tuple[Path, Path]) -> None:
    runs = [back_up(repo, disks) for _ in range(3)]
    first, second = (f"web1.root@{run['members'][0]['snapshot']}" for run in runs[:2])
    assert "is a part of web1@" in fail(2, "forget", first, repo=repo)
    assert "is a group" in fail(2, "forget", "web1", repo=repo)
    succeed("forget", first.replace(".root", ""), repo=repo)
    assert [len(times) for times in list_times(repo).values()] == [2, 2]
    succeed("forget", second, "--force", repo=repo)
    assert {image: len(times) for image, times in list_times(repo).items()} == {"web1.root": 1, "web1.data": 2}
    succeed("prune", repo=repo)
    succeed("check", "--read-packs", repo=repo)


@pytest.mark.parametrize("like", [True, False], ids=["family", "other family"])
def test_a_sync_keeps_groups(repo: Path, disks: tuple[Path, Path], tmp_path: Path, *, like: bool) -> None:
    back_up(repo, disks)
    back_up(repo, disks)
    succeed("backup", disks[0], "-i", "vm1", repo=repo)
    copy = tmp_path / "copy"
    succeed("init", "-r", copy, *(("--like", repo) if like else ()))
    succeed("sync", repo, copy, "--image", "web1")
    assert list_times(copy) == {image: times for image, times in list_times(repo).items() if image != "vm1"}
    out = tmp_path / "out"
    out.mkdir()
    succeed("restore", "web1", "--into", out, repo=copy)
    assert [(out / disk.name).read_bytes() for disk in disks] == [disk.read_bytes() for disk in disks]


@pytest.mark.parametrize("like", [True, False], ids=["family", "other family"])
def test_a_moment_of_a_group_is_copied_as_one(
    repo: Path, disks: tuple[Path, Path], tmp_path: Path, *, like: bool
) -> None:
    """Whether the group is named or one of its members."""
    runs = [back_up(repo, disks) for _ in range(3)]
    for number, selector in enumerate(("web1~1", f"web1.data@{runs[1]['members'][1]['snapshot']}")):
        copy = tmp_path / f"copy{number}"
        succeed("init", "-r", copy, *(("--like", repo) if like else ()))
        succeed("sync", repo, copy, "--snapshot", selector)
        assert list_times(copy) == {image: [runs[1]["time_exact"]] for image in ("web1.root", "web1.data")}


def test_what_is_damaged_of_a_moment_that_is_copied_is_named(
    repo: Path, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    """The rest of the group was left out in silence where one of its manifests was damaged."""
    made = back_up(repo, disks)
    max((repo / "snapshots" / "web1.data").iterdir()).write_bytes(b"damaged")
    copy = tmp_path / "copy"
    succeed("init", "-r", copy, "--like", repo)
    selector = f"web1.root@{made['members'][0]['snapshot']}"
    assert "web1.data@" in fail(39, "sync", repo, copy, "--snapshot", selector)
    assert list(list_times(copy)) == ["web1.root"]


def test_a_sync_forgets_what_was_forgotten_of_a_group(repo: Path, disks: tuple[Path, Path], tmp_path: Path) -> None:
    runs = [back_up(repo, disks) for _ in range(3)]
    copy = tmp_path / "copy"
    succeed("init", "-r", copy, "--like", repo)
    succeed("sync", repo, copy, "--image", "web1")
    succeed("forget", f"web1@{runs[0]['members'][0]['snapshot']}", repo=repo)
    succeed("sync", repo, copy, "--image", "web1", "--delete")
    assert list_times(copy) == list_times(repo)
