# SPDX-License-Identifier: Apache-2.0
"""The cache of packs on real servers: a second backup receives next to nothing, and what looks for damage reads the store."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.support.images import make_incompressible_image
from tests.support.program import command, deltaimg, environment, fail, succeed
from tests.support.s3_servers import S3Server
from tests.support.sshd import SshServer

MIB = 1 << 20
PAGES = 400


@pytest.fixture(params=["s3", "sftp"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A repository on a server, as options name it."""
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        place = server.make_place()
    else:
        sshd: SshServer = request.getfixturevalue("sshd")
        place = sshd.url(tmp_path / "repository")
    succeed("init", "-r", place)
    return "-r", place


class Guest:
    """An image whose pages change in place: what they were is in the repository alone."""

    def __init__(self, path: Path) -> None:
        self.path, self.image, self._chance = path, make_incompressible_image(8 * MIB, seed=3), random.Random(4)
        self.save()

    def save(self) -> None:
        self.path.unlink(missing_ok=True)
        self.image.save(self.path)

    def work(self) -> None:
        """Change a few bytes of many pages."""
        for page in self._chance.sample(range(self.image.size_bytes // 4096), PAGES):
            self.image.write(page * 4096 + self._chance.randrange(4000), self._chance.randbytes(8))
        self.save()

    def back_up(self, *options: object) -> dict[str, int]:
        """Back it up; return what was sent, received and stored."""
        made = succeed("backup", self.path, "--image", "vm1", "--json", *options).json
        return {**made["traffic"], "stored_bytes": made["stored_bytes"]}

    def is_restored(self, folder: Path, *options: object) -> bool:
        target = folder / "restored"
        target.unlink(missing_ok=True)
        succeed("restore", "vm1", target, *options)
        return target.read_bytes() == bytes(self.image.content)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "vm1.raw")


def test_the_second_backup_receives_next_to_nothing(repo: tuple[str, str], guest: Guest, tmp_path: Path) -> None:
    guest.back_up(*repo)
    guest.work()
    second = guest.back_up(*repo)
    assert second["received_bytes"] < 20_000
    assert second["stored_bytes"] < PAGES * 4096 / 4, "stored as deltas against what was there"
    guest.work()
    without = guest.back_up(*repo, "--pack-cache", "none")
    assert without["received_bytes"] > 5 * MIB
    guest.work()
    third = guest.back_up(*repo)
    assert third["received_bytes"] < without["received_bytes"] / 4
    assert guest.is_restored(tmp_path, *repo)
    succeed("verify", *repo)


def test_a_host_that_has_nothing_yet_reads_it_once(repo: tuple[str, str], guest: Guest) -> None:
    guest.back_up(*repo, "--pack-cache", "none")
    assert succeed("cache", "show", "--json").json["packs_bytes"] == 0
    guest.work()
    first = guest.back_up(*repo)
    guest.work()
    assert guest.back_up(*repo)["received_bytes"] < first["received_bytes"] / 4


def test_what_looks_for_damage_reads_the_store(sshd: SshServer, guest: Guest, tmp_path: Path) -> None:
    repo = ("-r", sshd.url(tmp_path / "repository"))
    succeed("init", *repo)
    guest.back_up(*repo)
    [pack] = (path for path in (tmp_path / "repository" / "packs").rglob("*") if path.is_file())
    whole = pack.read_bytes()
    pack.write_bytes(whole[:MIB] + bytes(1000) + whole[MIB + 1000 :])
    assert deltaimg("check", "--read-packs", *repo).code == 48
    assert deltaimg("verify", *repo).code != 0
    assert guest.is_restored(tmp_path, *repo), "this host has it"
    pack.unlink()
    assert deltaimg("check", *repo).code == 48
    assert deltaimg("verify", *repo).code != 0
    # Repair judges the store as well, though a backup before it could read what is gone.
    assert deltaimg("repair", *repo).code != 0
    assert deltaimg("verify", *repo).code != 0


def test_the_cache_is_shown_bounded_and_removed(sshd: SshServer, guest: Guest, tmp_path: Path) -> None:
    repo = ("-r", sshd.url(tmp_path / "repository"))
    succeed("init", *repo)
    guest.back_up(*repo, "--pack-cache", "4M")
    assert succeed("cache", "show", "--json").json["packs_bytes"] <= 4 * MIB
    succeed("restore", "vm1", tmp_path / "restored", *repo)
    shown = succeed("cache", "show", "--json").json
    assert 8 * MIB < shown["packs_bytes"] < 9 * MIB
    assert shown["total_bytes"] >= shown["packs_bytes"] + shown["metadata_bytes"]
    assert " packs of remote repositories" in succeed("cache", "show").text
    assert succeed("cache", "clean", "--all", "--json").json["freed_bytes"] > 8 * MIB
    assert succeed("cache", "show", "--json").json["packs_bytes"] == 0
    for size in ("much", "-1"):
        assert f"'{size}' is not a valid size" in fail(2, "snapshots", *repo, "--pack-cache", size)


def test_a_variable_names_the_size_and_a_folder_has_no_such_cache(
    guest: Guest, sshd: SshServer, tmp_path: Path
) -> None:
    remote = sshd.url(tmp_path / "repository")
    succeed("init", "-r", remote)
    kept = environment(None) | {"DELTAIMG_PACK_CACHE": "none"}
    subprocess.run(command("backup", guest.path, "-i", "vm1", "-q", "-r", remote), env=kept, check=True)
    assert succeed("cache", "show", "--json").json["packs_bytes"] == 0
    succeed("init", "-r", tmp_path / "folder")
    guest.back_up("-r", tmp_path / "folder")
    assert succeed("cache", "show", "--json").json["packs_bytes"] == 0


def test_a_cache_that_cannot_be_written_is_one_warning(sshd: SshServer, guest: Guest, tmp_path: Path) -> None:
    repo = ("-r", sshd.url(tmp_path / "repository"))
    succeed("init", *repo)
    place = Path(os.environ["XDG_CACHE_HOME"]) / "deltaimg"
    place.mkdir(parents=True, exist_ok=True)
    (place / "packs").write_bytes(b"a file in the way")
    run = succeed("backup", guest.path, "--image", "vm1", *repo)
    assert run.err.count("packs are no longer kept") == 1
    assert guest.is_restored(tmp_path, *repo)


def test_a_write_only_host_keeps_nothing_that_it_cannot_open(sshd: SshServer, guest: Guest, tmp_path: Path) -> None:
    repo, readers, host = ("-r", sshd.url(tmp_path / "repository")), tmp_path / "readers.key", tmp_path / "host.key"
    succeed("init", *repo, "--encryption", "keyfile", "--key-file", readers)
    succeed("key", "add", "--write-only", "--new-key-file", host, *repo, "--key-file", readers)
    guest.back_up(*repo, "--key-file", host)
    assert succeed("cache", "show", "--json").json["packs_bytes"] == 0
    assert guest.is_restored(tmp_path, *repo, "--key-file", readers)
    assert succeed("cache", "show", "--json").json["packs_bytes"] > 8 * MIB


def test_an_encrypted_repository_stays_encrypted_in_the_cache(sshd: SshServer, tmp_path: Path) -> None:
    repo, key = ("-r", sshd.url(tmp_path / "repository")), tmp_path / "key"
    succeed("init", *repo, "--encryption", "keyfile", "--key-file", key)
    image = random.Random(1).randbytes(2 * MIB)
    (tmp_path / "vm1.raw").write_bytes(image)
    succeed("backup", tmp_path / "vm1.raw", "-i", "vm1", *repo, "--key-file", key)
    packs = [path for path in (Path(os.environ["XDG_CACHE_HOME"]) / "deltaimg" / "packs").rglob("*") if path.is_file()]
    stored = [path for path in (tmp_path / "repository" / "packs").rglob("*") if path.is_file()]
    assert {path.name for path in packs} == {path.name for path in stored}
    for pack, same in zip(
        sorted(packs, key=lambda path: path.name), sorted(stored, key=lambda path: path.name), strict=True
    ):
        assert pack.read_bytes()[256 << 10 :] == same.read_bytes()
        assert image[:4096] not in pack.read_bytes()
