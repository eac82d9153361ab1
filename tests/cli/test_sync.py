# SPDX-License-Identifier: Apache-2.0
"""`deltaimg sync`: what it prints, and one clear error for each thing that is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Backups
from tests.support.program import deltaimg, fail, succeed
from tests.support.sshd import SshServer


@pytest.fixture
def offsite(backups: Backups, tmp_path: Path) -> Path:
    folder = tmp_path / "offsite"
    succeed("init", "--like", backups.repo, "-r", folder)
    return folder


def back_up(backups: Backups, text: bytes) -> None:
    with backups.image.open("r+b") as file:
        file.write(text * 5000)
    succeed("backup", backups.image, "--image", "vm1", "-q", repo=backups.repo)


def test_snapshots_are_copied_and_the_copy_restores(backups: Backups, offsite: Path, tmp_path: Path) -> None:
    plan = succeed("sync", backups.repo, offsite, "--dry-run").text
    assert plan.count("copy") == 3  # two rows and a summary
    assert not (offsite / "packs").exists()
    done = succeed("sync", backups.repo, offsite, "-v")
    assert "2 snapshots copied, 0 there before" in done.text
    assert "copying 2 snapshots: about" in done.text
    succeed("check", "--read-packs", repo=offsite)
    succeed("restore", "vm1", tmp_path / "out", repo=offsite)
    assert (tmp_path / "out").read_bytes() == backups.image.read_bytes()
    assert "nothing to copy; 2 snapshots there already" in succeed("sync", backups.repo, offsite, "--dry-run").text


def test_json_says_what_was_copied(backups: Backups, offsite: Path) -> None:
    plan = succeed("sync", backups.repo, offsite, "--dry-run", "--json").json
    found = succeed("sync", backups.repo, offsite, "--json").json
    assert (plan["dry_run"], found["dry_run"]) == (True, False)
    assert [each["image"] for each in found["copied"]] == ["vm1", "vm1"] == [each["image"] for each in plan["copied"]]
    assert found["stored_bytes"] * 0.9 < plan["sent_bytes"] < found["stored_bytes"] * 1.1
    assert (found["there"], found["failed"], found["forgotten"]) == (0, [], [])


def list_ids(repo: Path) -> list[str]:
    return [each["id"] for each in succeed("snapshots", "--json", repo=repo).json]


def test_snapshots_that_are_named_are_copied_and_no_others(backups: Backups, offsite: Path, tmp_path: Path) -> None:
    back_up(backups, b"third")
    ids = list_ids(backups.repo)
    plan = succeed("sync", backups.repo, offsite, "--snapshot", "vm1~1", "--dry-run", "--json").json
    assert [each["snapshot"] for each in plan["copied"]] == ids[1:2]
    succeed("sync", backups.repo, offsite, "--snapshot", "vm1~1")
    assert list_ids(offsite) == ids[1:2]
    succeed("restore", "vm1", tmp_path / "out", repo=offsite)
    assert (tmp_path / "out").read_bytes() == backups.second
    # One that is there, and one by its id.
    done = succeed("sync", backups.repo, offsite, "--snapshot", "vm1~1", "--snapshot", ids[0][:8], "--json").json
    assert ([each["snapshot"] for each in done["copied"]], done["there"]) == (ids[:1], 1)
    assert list_ids(offsite) == ids[:2]
    succeed("check", "--read-packs", repo=offsite)
    for words, code, said in (
        (("--snapshot", "vm9"), 21, f"{backups.repo}: no snapshot matches 'vm9'"),
        (("--snapshot", "vm1~3"), 21, "no snapshot matches 'vm1~3'"),
        (("--snapshot", "vm1@2026-02-31"), 2, "is not a valid date"),
        (("--snapshot", "vm1", "--image", "vm1"), 2, "--snapshot and --image cannot both be given"),
        (("--snapshot", "vm1", "--keep-last", "1"), 2, "--snapshot and a --keep option cannot both be given"),
    ):
        assert said in fail(code, "sync", backups.repo, offsite, *words)
    assert list_ids(offsite) == ids[:2]


def test_a_damaged_snapshot_that_is_named_is_not_copied_and_said(backups: Backups, offsite: Path) -> None:
    ids = list_ids(backups.repo)
    max((backups.repo / "snapshots" / "vm1").iterdir()).write_bytes(b"damaged")
    said = fail(39, "sync", backups.repo, offsite, "--snapshot", "vm1", "--snapshot", "vm1~1")
    assert f"vm1@{ids[1][:8]} not copied" in said
    assert list_ids(offsite) == ids[:1]


def test_delete_beside_named_snapshots_is_about_their_images(backups: Backups, offsite: Path) -> None:
    succeed("backup", backups.image, "--image", "vm2", "-q", repo=backups.repo)
    back_up(backups, b"third")
    succeed("sync", backups.repo, offsite)
    succeed("backup", backups.image, "--image", "vm2", "-q", repo=backups.repo)
    succeed("forget", "vm1~1", "vm2~1", repo=backups.repo)
    done = succeed("sync", backups.repo, offsite, "--snapshot", "vm1", "--delete", "--json").json
    assert [each["image"] for each in done["forgotten"]] == ["vm1"]


def test_delete_forgets_what_the_source_has_forgotten_but_for_what_is_pinned(backups: Backups, offsite: Path) -> None:
    back_up(backups, b"third")
    succeed("sync", backups.repo, offsite)
    succeed("pin", "vm1@latest~1", repo=offsite)
    succeed("forget", "vm1@latest~2", "vm1@latest~1", repo=backups.repo)
    assert succeed("sync", backups.repo, offsite, "--json").json["forgotten"] == []
    assert "2 snapshots" in fail(26, "sync", backups.repo, offsite, "--delete", "--max-delete", "1")
    plan = succeed("sync", backups.repo, offsite, "--delete", "--dry-run", "--json").json
    assert len(plan["forgotten"]) == 2
    found = succeed("sync", backups.repo, offsite, "--delete", "--json").json
    assert len(found["forgotten"]) == 1
    assert len(succeed("snapshots", "--json", repo=offsite).json) == 2


def test_delete_is_refused_for_an_empty_or_foreign_source(backups: Backups, offsite: Path, tmp_path: Path) -> None:
    succeed("sync", backups.repo, offsite)
    succeed("init", "--like", backups.repo, "-r", tmp_path / "empty")
    assert "has no snapshot at all" in fail(26, "sync", tmp_path / "empty", offsite, "--delete")
    foreign = tmp_path / "empty"
    succeed("backup", backups.image, "--image", "vm1", "-q", repo=foreign)
    assert "none of the 2 snapshots of image 'vm1'" in fail(26, "sync", foreign, offsite, "--delete")
    assert len(succeed("snapshots", "--json", repo=offsite).json) == 2


def test_what_a_damaged_source_cannot_give_is_named(backups: Backups, offsite: Path) -> None:
    succeed("sync", backups.repo, offsite)
    before = set((backups.repo / "packs").glob("*/*"))
    back_up(backups, b"a")
    back_up(backups, b"b")
    new = sorted(set((backups.repo / "packs").glob("*/*")) - before, key=lambda path: path.stat().st_mtime)
    data = bytearray(new[-1].read_bytes())
    data[len(data) // 2] ^= 1
    new[-1].chmod(0o600)
    new[-1].write_bytes(data)
    text = fail(39, "sync", backups.repo, offsite)
    assert "not copied" in text
    assert str(backups.repo) in text
    assert f"packs/{new[-1].parent.name}/{new[-1].name}" in text
    assert len(succeed("snapshots", "--json", repo=offsite).json) == 3
    succeed("check", "--read-packs", repo=offsite)


def test_bad_input_is_one_clear_error(backups: Backups, offsite: Path, tmp_path: Path) -> None:
    assert "one repository" in fail(2, "sync", backups.repo, backups.repo)
    assert "one repository" in fail(2, "sync", backups.repo, f"{offsite}/../{backups.repo.name}")
    succeed("init", "-r", tmp_path / "stranger")
    assert "different families" in fail(2, "sync", backups.repo, tmp_path / "stranger", "--delete")
    assert "there is no repository here" in fail(31, "sync", backups.repo, tmp_path / "nothing")
    said = deltaimg("sync", backups.repo, tmp_path / "nothing").err
    assert f"'deltaimg init -r {tmp_path / 'nothing'} --like {backups.repo}' creates one" in said
    assert "there is no repository here" in fail(31, "sync", tmp_path / "nothing", offsite)
    assert "no snapshot matches 'vm9'" in fail(21, "sync", backups.repo, offsite, "--image", "vm9")
    assert "is no time and no span" in fail(2, "sync", backups.repo, offsite, "--since", "yesterday")
    assert "no repositories of kind 'gopher://'" in fail(2, "sync", backups.repo, "gopher://host/x")


def test_one_id_with_two_keys_and_a_newer_format_are_named(backups: Backups, offsite: Path, tmp_path: Path) -> None:
    from deltaimg.format.config import Config, build_config, parse_config

    config = parse_config((backups.repo / "config").read_bytes())
    shutil.copytree(offsite, tmp_path / "fake")
    (tmp_path / "fake" / "config").unlink()
    fake = Config(repository_id=config.repository_id, created="", digest_key="7" * 64)
    (tmp_path / "fake" / "config").write_bytes(build_config(fake))
    text = fail(38, "sync", backups.repo, tmp_path / "fake")
    assert str(backups.repo) in text
    assert "different keys" in text
    newer = bytearray((offsite / "config").read_bytes())
    newer[8] = 9
    from deltaimg.format.framing import digest_bytes

    newer[56:64] = digest_bytes(bytes(newer[:56]), length=8)
    (offsite / "config").unlink()
    (offsite / "config").write_bytes(newer)
    text = fail(34, "sync", backups.repo, offsite)
    assert str(offsite) in text
    assert "version 9" in text


def test_another_family_is_said_before_anything_is_stored(backups: Backups, tmp_path: Path) -> None:
    succeed("init", "-r", tmp_path / "stranger")
    plan = succeed("sync", backups.repo, tmp_path / "stranger", "--dry-run", "--json")
    assert plan.json["is_other_family"]
    assert "decoded and stored again" in plan.err
    done = succeed("sync", backups.repo, tmp_path / "stranger", "--verify", "all")
    assert "decoded and stored again" in done.err
    assert "2 snapshots copied" in done.text
    succeed("restore", "vm1", tmp_path / "out", repo=tmp_path / "stranger")
    assert (tmp_path / "out").read_bytes() == backups.image.read_bytes()


def test_the_estimate_says_how_long_it_takes_at_the_limit(backups: Backups, offsite: Path) -> None:
    plan = succeed("sync", backups.repo, offsite, "--dry-run", "--json").json
    assert plan["limit_s"] is None
    slow = succeed("sync", backups.repo, offsite, "--dry-run", "--json", "--bwlimit", "20K").json
    assert slow["limit_s"] == pytest.approx(slow["sent_bytes"] / 20480, abs=0.2)
    assert "at the limit" in succeed("sync", backups.repo, offsite, "--dry-run", "--max-requests", "1200/min").text
    done = succeed("sync", backups.repo, offsite, "--bwlimit", "100M", "--json").json
    assert done["traffic"]["sent_bytes"] >= done["stored_bytes"]


def test_a_sync_to_a_server_and_a_restore_from_there(backups: Backups, sshd: SshServer, tmp_path: Path) -> None:
    offsite = sshd.url(tmp_path / "offsite")
    succeed("init", "--like", backups.repo, "-r", offsite)
    first = succeed("sync", backups.repo, offsite, "--json", "--verify", "all").json
    assert len(first["copied"]) == 2
    back_up(backups, b"once more")
    second = succeed("sync", backups.repo, offsite, "--json").json
    assert len(second["copied"]) == 1
    assert sum(second["traffic"]["requests"].values()) <= 24
    assert second["traffic"]["sent_bytes"] <= second["stored_bytes"] + 4096
    succeed("restore", "vm1", tmp_path / "out", repo=offsite)
    assert (tmp_path / "out").read_bytes() == backups.image.read_bytes()
    shutil.rmtree(backups.repo / "packs")
    succeed("repair", "--from", offsite, repo=backups.repo)
    succeed("verify", repo=backups.repo)
    succeed("sync", offsite, backups.repo)
