# SPDX-License-Identifier: Apache-2.0
"""An encrypted repository without its key: what needs none works, and everything else ends with one clear error."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deltaimg.cli.app import COMMANDS, run
from deltaimg.errors import KeyNeeded, RepositoryDamaged
from tests.support.images import make_mixed_image
from tests.support.program import fail, read_tree, succeed

NEEDS_NO_KEY = [
    ("check",),
    ("check", "--read-packs"),
    ("parity", "show"),
    ("parity", "repair"),
    ("unlock",),
    ("key", "list"),
]
NEEDS_KEY = {
    "backup": ("{image}", "--image", "vm1"),
    "restore": ("vm1", "{out}"),
    "cat": ("vm1",),
    "verify": (),
    "check": ("--accept-state",),
    "snapshots": (),
    "show": ("vm1",),
    "stats": (),
    "inspect": ("vm1",),
    "diff": ("vm1", "vm1"),
    "forget": ("--keep-last", "1"),
    "prune": ("--dry-run",),
    "flatten": ("vm1@latest",),
    "pin": ("vm1",),
    "unpin": ("vm1",),
    "tag": ("add", "vm1@latest", "x"),
    "repair": ("--dry-run",),
    "parity": ("add",),
    "key": ("export",),
    "sync": ("{repo}", "{out}"),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without-key")
    make_mixed_image(1_000_001).save(folder / "vm1.raw")
    use = ("-r", folder / "repo", "--key-file", folder / "key", "-q")
    succeed("init", *use, "--encryption", "keyfile")
    succeed("backup", folder / "vm1.raw", "--image", "vm1", *use)
    succeed("parity", "add", "--percent", "50", *use)
    return folder


@pytest.fixture
def folder(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "copy"))


def test_the_commands_exist() -> None:
    assert set(NEEDS_KEY) | {words[0] for words in NEEDS_NO_KEY} <= set(COMMANDS)


def test_what_needs_no_key_works_without_one(folder: Path) -> None:
    before = read_tree(folder / "repo")
    for words in NEEDS_NO_KEY:
        succeed(*words, "-r", folder / "repo", *(["--json"] if words[0] == "check" else []))
    assert read_tree(folder / "repo") == before


def test_what_needs_a_key_says_so_and_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_tree(folder / "repo")
    places = {"image": folder / "vm1.raw", "out": folder / "out", "repo": folder / "repo"}
    for command, words in NEEDS_KEY.items():
        repo = [] if command == "sync" else ["-r", str(folder / "repo")]
        monkeypatch.setattr("sys.argv", ["deltaimg", command, *(word.format(**places) for word in words), *repo])
        with pytest.raises(KeyNeeded, match="the repository is encrypted, and no key was given") as caught:
            run()
        for way in ("--key-file", "DELTAIMG_KEY_FILE", "deltaimg key import"):
            assert way in (caught.value.hint or "")
    assert read_tree(folder / "repo") == before
    assert not (folder / "out").exists()
    assert KeyNeeded("x").exit_code == 63
    assert "no key was given" in fail(63, "snapshots", repo=folder / "repo")


def test_damage_is_found_and_packs_are_repaired_without_a_key(folder: Path) -> None:
    repo = folder / "repo"
    report = succeed("check", "-r", repo, "--json").json
    assert report["snapshots"] == 1
    assert report["records"] > 0
    assert report["unused_records"] is None
    assert any("no key was given" in each["problem"] for each in report["notes"])
    (pack,) = (repo / "packs").rglob("*/*")
    good = pack.read_bytes()
    damaged = good[:200] + bytes([good[200] ^ 1]) + good[201:]
    pack.chmod(0o644)
    pack.write_bytes(damaged)
    succeed("check", "-r", repo)
    assert pack.name in fail(RepositoryDamaged.exit_code, "check", "--read-packs", "-r", repo)
    succeed("parity", "repair", "-r", repo)
    assert pack.read_bytes() == good
    for name in ("maps", "index", "signatures", "snapshots"):
        (path,) = [each for each in (repo / name).rglob("*") if each.is_file()]
        data = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert f"{name}/" in fail(RepositoryDamaged.exit_code, "check", "-r", repo)
        path.write_bytes(data)
    succeed("verify", "-r", repo, "--key-file", folder / "key")
