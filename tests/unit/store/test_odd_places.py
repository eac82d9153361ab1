# SPDX-License-Identifier: Apache-2.0
"""Stores of which a part is elsewhere, or is no longer where it was, or is something else."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.errors import ObjectExists, ObjectNotFound, ObjectTooLarge, StoreError, StoreUnavailable
from deltaimg.repo.objects import repository_layout
from deltaimg.store.file_port import FilePort
from deltaimg.store.interface import ANY_NAME
from deltaimg.store.local import LocalStore
from tests.support.components import requires_root

PACK = "packs/ab/" + "ab" * 32
FOLDERS = ["packs", "packs/ab", "snapshots", "snapshots/vm1"]


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def move_away(folder: Path, elsewhere: Path) -> None:
    """Move a folder to another disk and put a link in its place."""
    shutil.copytree(folder, elsewhere, dirs_exist_ok=True)
    shutil.rmtree(folder)
    folder.symlink_to(elsewhere)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    store = LocalStore(str(tmp_path / "repo"))
    store.put(PACK, [b"pack"])
    store.put("snapshots/vm1/a", [b"manifest"])
    store.put("locks/vm1", [b"lock"])
    return tmp_path / "repo"


@pytest.mark.parametrize("folder", FOLDERS)
def test_any_folder_can_be_on_another_disk(repo: Path, make_tmpfs: Callable[[int], Path], folder: str) -> None:
    """Temporary files were all on one disk, and a link from there ended with EXDEV."""
    elsewhere = make_tmpfs(1 << 20) / "moved"
    move_away(repo / folder, elsewhere)
    store = LocalStore(str(repo))
    name = f"{folder}/one"
    store.put(name, [b"new"])
    with pytest.raises(ObjectExists):
        store.put(name, [b"newer"])
    store.replace(name, [b"newest"])
    assert store.get(name) == b"newest"
    store.move(name, "quarantine/one")
    store.move("quarantine/one", f"{folder}/two")
    store.put("quarantine/one", [b"in the way"])
    with pytest.raises(ObjectExists):
        store.move(f"{folder}/two", "quarantine/one")
    assert store.get(f"{folder}/two") == b"newest"
    store.delete(f"{folder}/two")
    assert [each.name for each in store.list("")] == ["locks/vm1", PACK, "quarantine/one", "snapshots/vm1/a"]
    assert list(store.list_unfinished()) == []
    assert len(files_below(elsewhere)) == 1


def test_a_move_to_another_disk_that_fails_anywhere_leaves_the_object(
    repo: Path, make_tmpfs: Callable[[int], Path]
) -> None:
    elsewhere = make_tmpfs(1 << 20) / "moved"
    move_away(repo / "packs", elsewhere)
    with pytest.raises(StoreError):
        LocalStore(str(repo), _FullDisk()).move(PACK, "quarantine/pack")
    store = LocalStore(str(repo))
    assert store.get(PACK) == b"pack"
    assert list(store.list("quarantine/")) == []
    assert list(store.list_unfinished()) == []


class _FullDisk(FilePort):
    """Takes no byte."""

    def write(self, descriptor: int, parts: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_whose_disk_is_not_mounted_is_not_an_empty_one(repo: Path, tmp_path: Path, folder: str) -> None:
    """A prune that took it for empty deleted what its snapshots needed."""
    move_away(repo / folder, tmp_path / "disk")
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    store = LocalStore(str(repo))
    for act in (
        lambda: list(store.list("", repository_layout(lambda *_: None))),
        lambda: list(store.list(f"{folder}/")),
        lambda: store.get(f"{folder}/one"),
        lambda: store.get_range(f"{folder}/one", 0, 1),
        lambda: store.put(f"{folder}/one", [b"x"]),
        lambda: store.replace(f"{folder}/one", [b"x"]),
        lambda: store.delete(f"{folder}/one"),
        lambda: store.move(f"{folder}/one", "quarantine/one"),
    ):
        with pytest.raises(StoreUnavailable, match=rf"^{folder}: is a link to .*disk, which is not there") as caught:
            act()
        assert "mount" in (caught.value.hint or "")
    assert not list(store.list("locks/ab/"))
    (tmp_path / "unplugged").rename(tmp_path / "disk")
    assert len(list(store.list(""))) == 3


def test_a_folder_that_goes_while_it_is_listed_ends_no_listing(repo: Path) -> None:
    """All that came after it was left out as well."""
    store = LocalStore(str(repo))
    store.put("maps/one", [b""])
    names = []
    for each in store.list(""):
        names.append(each.name)
        if each.name == "maps/one":
            shutil.rmtree(repo / "packs" / "ab")
    assert names == ["locks/vm1", "maps/one", "snapshots/vm1/a"]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkdir, "a directory"),
        (os.mkfifo, "a named pipe"),
        (lambda path: os.symlink("/dev/zero", path), "a symbolic link"),
        (lambda path: os.symlink(path, path), "a symbolic link"),
        (lambda path: os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5)), "a character device"),
    ],
)
def test_what_is_no_file_is_not_opened_and_is_named(repo: Path, make: Callable[[str], None], what: str) -> None:
    requires_root()
    store = LocalStore(str(repo))
    make(str(repo / "config"))
    with pytest.raises(StoreError, match=f"^config: is {what}, where an object of the repository belongs"):
        store.get("config")
    with pytest.raises(StoreError):
        store.get_range("config", 0, 10)
    assert len(list(store.list(""))) == 3


def test_an_object_larger_than_allowed_is_not_read(repo: Path) -> None:
    os.truncate(repo / PACK, 1 << 40)
    with pytest.raises(ObjectTooLarge, match=r"has 1099511627776 bytes; an object of its kind has at most 100"):
        LocalStore(str(repo)).get(PACK, 100)


def test_unfinished_files_are_found_wherever_they_are(repo: Path, tmp_path: Path) -> None:
    move_away(repo / "packs", tmp_path / "disk")
    store = LocalStore(str(repo), _DeadWriter(), writer=lambda: "0123-45-6")
    for name in ("config", PACK[:-1] + "c", "snapshots/vm1/b", "snapshots/vm2/c"):
        with pytest.raises(StoreError):
            store.put(name, [b"twelve bytes"])
    found = list(store.list_unfinished())
    assert [os.path.dirname(each.name) for each in found] == ["", "packs/ab", "snapshots/vm1", "snapshots/vm2"]
    assert {(each.writer, each.size_bytes) for each in found} == {("0123-45-6", 12)}
    assert [each.name for each in store.list("")] == ["locks/vm1", PACK, "snapshots/vm1/a"]
    for each in found:
        LocalStore(str(repo)).remove_unfinished(each.name)
    assert list(store.list_unfinished(ANY_NAME)) == []


class _DeadWriter(FilePort):
    """Dies before it can link, or remove anything."""

    def link(self, source: str, target: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def unlink(self, path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_link_that_was_made_though_the_answer_was_lost_is_ours(repo: Path) -> None:
    """NFS sends a call again when no answer comes, and then says that the name is taken."""

    class LostAnswer(FilePort):
        def link(self, source: str, target: str) -> None:
            super().link(source, target)
            super().link(source, target)

    store = LocalStore(str(repo), LostAnswer())
    assert store.put("maps/one", [b"x"]) == 1
    assert store.get("maps/one") == b"x"


def test_a_missing_object_is_missing(repo: Path) -> None:
    with pytest.raises(ObjectNotFound):
        LocalStore(str(repo)).get("snapshots/vm1/none")
