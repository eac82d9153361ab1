# SPDX-License-Identifier: Apache-2.0
"""A write-only host from the command line: what it can do, and the one error that all else ends with."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltaimg.errors import KeyNeeded, OnlyWrites, UsageError, WrongKey
from tests.cli.test_encryption import fail, succeed
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image


@pytest.fixture
def image(own_cache: None) -> SyntheticImage:
    return make_mixed_image(1_000_001)


def test_a_write_only_host_backs_up_and_is_refused_all_else(image: SyntheticImage, tmp_path: Path) -> None:
    repo, path, key, host = (tmp_path / name for name in ("repo", "vm1.raw", "key", "host.key"))
    image.save(path)
    succeed("init", "-r", repo, "--encryption", "keyfile", "--key-file", key, "-q")
    use, host_use = ("-r", repo, "--key-file", key), ("-r", repo, "--key-file", host)
    made = succeed("key", "add", *use, "--write-only", "--label", "web1", "--new-key-file", host, "--json").json
    assert made["type"] == "writeonly"
    first = succeed("backup", path, "--image", "vm1", *host_use, "--json").json
    edit_at_random(image)
    image.save(path)
    second = succeed("backup", path, "--image", "vm1", *host_use, "--json").json
    assert second["base"] == first["snapshot"]
    assert "would store" in succeed("backup", path, "--image", "vm1", *host_use, "--dry-run").text
    for words in (
        ("restore", "vm1", tmp_path / "restored"),
        ("verify",),
        ("snapshots",),
        ("forget", "--keep-last", "1"),
        ("prune",),
        ("repair",),
        ("check", "--accept-state"),
        ("key", "export"),
        ("sync", repo, tmp_path / "other"),
    ):
        message = fail(OnlyWrites, *words, *(host_use[2:] if words[0] == "sync" else host_use))
        assert "the key that was given only writes" in message, words
        assert message.count("\n") == 2, message
    # What needs no key takes it for none.
    assert succeed("check", "--read-packs", *host_use, "--json").json["errors"] == []
    assert {each["type"] for each in succeed("key", "list", "-r", repo, "--json").json} == {"keyfile", "writeonly"}
    restored = tmp_path / "restored"
    succeed("restore", "vm1", restored, *use, "-q")
    assert restored.read_bytes() == bytes(image.content)
    succeed("check", *use, "-q")


def test_the_key_of_a_host_is_removed(image: SyntheticImage, tmp_path: Path) -> None:
    repo, path, key, host = (tmp_path / name for name in ("repo", "vm1.raw", "key", "host.key"))
    image.save(path)
    succeed("init", "-r", repo, "--encryption", "keyfile", "--key-file", key, "-q")
    use, host_use = ("-r", repo, "--key-file", key), ("-r", repo, "--key-file", host)
    succeed("key", "add", *use, "--write-only", "--label", "web1", "--new-key-file", host, "-q")
    succeed("backup", path, "--image", "vm1", *host_use, "-q")
    succeed("key", "remove", "web1", *use, "-q")
    fail(WrongKey, "backup", path, "--image", "vm1", *host_use)
    succeed("verify", *use, "-q")
    fail(KeyNeeded, "verify", "-r", repo)


def test_what_does_not_go_with_write_only_is_refused(tmp_path: Path, own_cache: None) -> None:
    repo, key = tmp_path / "repo", tmp_path / "key"
    succeed("init", "-r", repo, "--encryption", "keyfile", "--key-file", key, "-q")
    use = ("-r", repo, "--key-file", key)
    assert "is for 'add'" in fail(UsageError, "key", "list", "--write-only", *use)
    (tmp_path / "words").write_text("a passphrase\n")
    for places in ((), ("--new-passphrase-file", tmp_path / "words")):
        assert "a write-only key is a key file" in fail(UsageError, "key", "add", "--write-only", *places, *use)
