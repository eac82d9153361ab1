# SPDX-License-Identifier: Apache-2.0
"""A repository on an SFTP server, through the program: the same commands, and one clear error where it cannot be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltaimg.errors import HostNotVerified, RepositoryNotFound, StoreUnavailable, UsageError
from tests.support.images import make_mixed_image
from tests.support.program import deltaimg, fail, succeed
from tests.support.sshd import SshServer


def test_a_repository_on_a_server_goes_through_all_it_goes_through_on_a_disk(sshd: SshServer, tmp_path: Path) -> None:
    repo = ("-r", sshd.url(tmp_path / "new" / "repository"))
    image = make_mixed_image(3 << 20, seed=7)
    image.save(tmp_path / "vm1.raw")
    succeed("init", *repo)
    succeed("backup", tmp_path / "vm1.raw", "-i", "vm1", *repo)
    first = (tmp_path / "vm1.raw").read_bytes()
    second = bytearray(first)
    second[1 << 20 : (1 << 20) + 5000] = b"changed" * 714 + b"xy"
    (tmp_path / "vm1.raw").write_bytes(second)
    assert succeed("backup", tmp_path / "vm1.raw", "-i", "vm1", "--json", *repo).json["base"]
    assert len(succeed("snapshots", "--json", *repo).json) == 2
    succeed("check", "--read-packs", *repo)
    succeed("verify", *repo)
    succeed("restore", "vm1~1", tmp_path / "old", *repo)
    assert (tmp_path / "old").read_bytes() == first
    succeed("forget", "vm1~1", *repo)
    succeed("prune", *repo)
    succeed("parity", "add", *repo)
    succeed("check", *repo)
    succeed("restore", "vm1", tmp_path / "new.raw", *repo)
    assert (tmp_path / "new.raw").read_bytes() == second
    [kept] = succeed("cache", "show", "--json", repo[0], repo[1]).json["images"]
    assert (kept["repository"], kept["is_leftover"]) == (repo[1], False)
    # What is on the server is a repository as on any disk.
    succeed("check", "--read-packs", "-r", tmp_path / "new" / "repository")


def test_what_is_wrong_with_a_server_is_one_error(sshd: SshServer, tmp_path: Path) -> None:
    assert "there is no repository" in fail(
        RepositoryNotFound.exit_code, "snapshots", "-r", sshd.url(tmp_path / "none")
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"")
    said = fail(RepositoryNotFound.exit_code, "snapshots", "-r", sshd.url(tmp_path / "other"))
    assert "is not a repository" in said
    fail(StoreUnavailable.exit_code, "snapshots", "-r", "sftp://127.0.0.1:1/x")
    fail(UsageError.exit_code, "snapshots", "-r", "sftp://ann:secret@127.0.0.1/x")
    fail(UsageError.exit_code, "init", "--group", "0", "-r", sshd.url(tmp_path / "none"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        said = fail(HostNotVerified.exit_code, "snapshots", "-r", f"sftp://127.0.0.1:{sshd.port}/x")
        assert f"[127.0.0.1]:{sshd.port}" in said


def test_images_of_a_server_that_cannot_be_reached_are_no_leftovers(sshd: SshServer, tmp_path: Path) -> None:
    """Cleaning the cache while a line is down removed what the next backup needs."""
    repo = ("-r", sshd.url(tmp_path / "repository"))
    make_mixed_image(3 << 20, seed=8).save(tmp_path / "vm1.raw")
    succeed("init", *repo)
    succeed("backup", tmp_path / "vm1.raw", "-i", "vm1", *repo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        assert deltaimg("snapshots", *repo).code != 0
        assert not succeed("cache", "show", "--json").json["images"][0]["is_leftover"]


def test_limits_and_traffic_of_a_command(sshd: SshServer, tmp_path: Path) -> None:
    repo = ("-r", sshd.url(tmp_path / "repository"))
    make_mixed_image(3 << 20, seed=9).save(tmp_path / "vm1.raw")
    succeed("init", *repo, "--bwlimit", "10M")
    made = succeed("backup", tmp_path / "vm1.raw", "-i", "vm1", "--json", *repo, "--max-requests", "600/min").json
    assert made["traffic"]["requests"]["put"] >= 4
    assert made["traffic"]["sent_bytes"] >= made["stored_bytes"]
    said = succeed("check", "-v", *repo).text
    assert "store: " in said
    assert "received" in said
    for option, value, example in (
        ("--bwlimit", "512", "512K"),
        ("--bwlimit", "8:00", "08:00,512K"),
        ("--max-requests", "30", "30/s"),
    ):
        run = deltaimg("snapshots", *repo, option, value)
        assert run.code == UsageError.exit_code
        assert example in run.err


def test_metadata_of_a_server_is_fetched_once_and_never_trusted_by_a_check(sshd: SshServer, tmp_path: Path) -> None:
    repo = ("-r", sshd.url(tmp_path / "repository"))
    make_mixed_image(3 << 20, seed=10).save(tmp_path / "vm1.raw")
    succeed("init", *repo)
    succeed("backup", tmp_path / "vm1.raw", "-i", "vm1", *repo)
    succeed("cache", "clean", "--all")
    first = succeed("show", "vm1", "--json", *repo).json["traffic"]["requests"]
    second = succeed("show", "vm1", "--json", *repo).json["traffic"]["requests"]
    assert first["get"] - second["get"] == 2, "index and map"
    assert succeed("cache", "show", "--json").json["metadata_bytes"] > 0
    said = succeed("cache", "show").text
    assert " metadata " in said
    assert "of remote repositories" in said
    for lost in (tmp_path / "repository" / "signatures").rglob("*"):
        lost.write_bytes(b"damaged")
    assert deltaimg("check", *repo).code != 0
    succeed("cache", "clean", "--all")
    assert succeed("cache", "show", "--json").json["metadata_bytes"] == 0
