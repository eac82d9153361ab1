# SPDX-License-Identifier: Apache-2.0
"""What a host remembers of a repository's images: in whose folders, how much, and when it is of no use."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from deltaimg.repo import host_memory
from deltaimg.repo.repository import SnapshotRef
from tests.support.clock import START
from tests.support.components import requires_root

REPOSITORY = "0f" * 16


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the files are to be."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "deltaimg"


def refs_of(*images: str, newest: int = 1) -> list[SnapshotRef]:
    return [
        SnapshotRef(image, f"20261123T02300{n}.000000Z", f"{n:016x}") for image in images for n in range(newest + 1)
    ]


def remember(*images: str, days: int = 0, newest: int = 1) -> None:
    host_memory.remember(REPOSITORY, refs_of(*images, newest=newest), START + timedelta(days=days))


def test_an_image_that_was_seen_and_is_gone_has_vanished(folder: Path) -> None:
    assert host_memory.find_vanished(REPOSITORY, []) == {}
    remember("vm1", "vm2")
    assert host_memory.find_vanished(REPOSITORY, ["vm1", "vm2", "vm3"]) == {}
    assert host_memory.find_vanished(REPOSITORY, ["vm2"]) == {"vm1": START}
    assert host_memory.find_vanished("1f" * 16, []) == {}, "another repository"
    host_memory.forget(REPOSITORY, ["vm1", "never"])
    assert host_memory.find_vanished(REPOSITORY, []) == {"vm2": START}
    assert [path.name for path in folder.iterdir()] == [f"{REPOSITORY}.json"]
    assert (folder / f"{REPOSITORY}.json").stat().st_mode & 0o777 == 0o600


def test_what_began_again_after_a_loss_stays_lost_until_the_old_is_back(folder: Path) -> None:
    remember("vm1", newest=3)
    assert host_memory.note_loss(REPOSITORY, "vm2") is None
    assert host_memory.note_loss(REPOSITORY, "vm1") == START
    new = [SnapshotRef("vm1", "20270101T000000.000000Z", "f" * 16)]
    host_memory.remember(REPOSITORY, new, START + timedelta(days=3))
    assert host_memory.find_vanished(REPOSITORY, ["vm1"]) == {"vm1": START + timedelta(days=3)}
    host_memory.remember(REPOSITORY, [*refs_of("vm1", newest=3), *new], START + timedelta(days=4))
    assert host_memory.find_vanished(REPOSITORY, ["vm1"]) == {}


def test_looking_again_on_the_same_day_writes_nothing(folder: Path) -> None:
    remember("vm1")
    file = folder / f"{REPOSITORY}.json"
    before = file.stat()
    remember("vm1")
    assert file.stat().st_ino == before.st_ino
    remember("vm1", days=2)
    assert host_memory.find_vanished(REPOSITORY, []) == {"vm1": START + timedelta(days=2)}


def test_only_so_many_images_are_remembered_those_seen_last(folder: Path) -> None:
    remember(*(f"old{number}" for number in range(100)))
    remember(*(f"vm{number}" for number in range(4096)), days=2)
    known = host_memory.find_vanished(REPOSITORY, [])
    assert len(known) == 4096
    assert not any(image.startswith("old") for image in known)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"images": {"vm1": 5}}',
        b'{"images": {"vm1": {"seen": "never", "newest": "x"}}}',
        b" " * 2**21,
    ],
)
def test_a_damaged_file_is_none_and_is_written_again(folder: Path, content: bytes) -> None:
    remember("vm1")
    (folder / f"{REPOSITORY}.json").write_bytes(content)
    assert host_memory.find_vanished(REPOSITORY, []) == {}
    remember("vm2")
    assert list(host_memory.find_vanished(REPOSITORY, [])) == ["vm2"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_not_read(folder: Path, tmp_path: Path, kind: str) -> None:
    remember("vm1")
    file = folder / f"{REPOSITORY}.json"
    good = file.read_bytes()
    file.unlink()
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(good)
        file.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    assert host_memory.find_vanished(REPOSITORY, []) == {}
    remember("vm2")
    if kind == "link":
        assert (tmp_path / "elsewhere").read_bytes() == good, "nothing is written through a link"


def test_a_folder_that_others_can_write_to_is_not_used(folder: Path) -> None:
    remember("vm1")
    folder.chmod(0o777)
    assert host_memory.find_vanished(REPOSITORY, []) == {}
    folder.chmod(0o700)
    folder.rename(folder.with_name("real"))
    folder.symlink_to(folder.with_name("real"))
    assert host_memory.find_vanished(REPOSITORY, []) == {}


def test_root_makes_nothing_in_the_home_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requires_root()
    os.chown(tmp_path, 1000, 1000)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    remember("vm1")
    assert list(tmp_path.iterdir()) == []
    assert host_memory.find_vanished(REPOSITORY, []) == {}


@pytest.mark.parametrize("home", ["", "relative", "/dev/null/x", "/proc/nobody"])
def test_without_a_home_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", home or "relative")
    remember("vm1")
    assert host_memory.find_vanished(REPOSITORY, []) == {}
    assert host_memory.note_loss(REPOSITORY, "vm1") is None
