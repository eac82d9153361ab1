# SPDX-License-Identifier: Apache-2.0
"""The local store: what is on the disk when, and what each failure of the operating system becomes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from deltaimg.errors import (
    NameNotKept,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from deltaimg.store.file_port import FilePort
from deltaimg.store.local import LocalStore
from tests.support.components import as_ordinary_user
from tests.support.faults import FaultyPort

NAME = "packs/ab/" + "ab" * 32


class RecordingPort(FilePort):
    """Notes what is done to which name, in order."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def create(self, path: str) -> int:
        self.steps.append("create")
        return super().create(path)

    def write(self, descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
        self.steps.append("write")
        super().write(descriptor, parts)

    def sync(self, descriptor: int) -> None:
        self.steps.append("sync")
        super().sync(descriptor)

    def link(self, source: str, target: str) -> None:
        self.steps.append("link")
        super().link(source, target)

    def rename(self, source: str, target: str) -> None:
        self.steps.append("rename")
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self.steps.append("unlink")
        super().unlink(path)

    def sync_folder(self, path: str) -> None:
        self.steps.append(f"sync {os.path.basename(path)}")
        super().sync_folder(path)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_object_is_synced_before_and_its_folder_after_it_gets_its_name(tmp_path: Path) -> None:
    port = RecordingPort()
    store = LocalStore(str(tmp_path / "repository"), port)
    store.put("config", [b"first"])
    port.steps.clear()
    store.put(NAME, [b"x"])
    steps = [step for step in port.steps if step != "unlink"]
    assert steps[-5:] == ["create", "write", "sync", "link", "sync ab"]
    assert steps[:-5] == ["sync repository", "sync packs"], "a new folder is as durable as what is put in it"


def test_a_replaced_object_is_synced_before_and_its_folder_after_it_gets_its_name(tmp_path: Path) -> None:
    port = RecordingPort()
    store = LocalStore(str(tmp_path), port)
    store.put(NAME, [b"old"])
    port.steps.clear()
    store.replace(NAME, [b"new"])
    assert [step for step in port.steps if step != "unlink"] == ["create", "write", "sync", "rename", "sync ab"]
    assert files_below(tmp_path) == [NAME]


def test_a_moved_object_has_its_new_name_durably_before_it_loses_the_old_one(tmp_path: Path) -> None:
    port = RecordingPort()
    store = LocalStore(str(tmp_path), port)
    store.put(NAME, [b"x"])
    store.put("quarantine/other", [b""])
    port.steps.clear()
    store.move(NAME, "quarantine/" + "ab" * 32)
    assert port.steps == ["link", "sync quarantine", "rename", "unlink", "sync ab"]


@pytest.mark.parametrize("step", ["link", "rename"])
def test_what_took_the_name_of_an_object_while_it_was_moved_stays(tmp_path: Path, step: str) -> None:
    """A repair that was frozen there removed the good object that another had put in the place of a damaged one."""

    class Frozen(FilePort):
        is_armed = False

        def link(self, source: str, target: str) -> None:
            self._freeze("link")
            super().link(source, target)

        def rename(self, source: str, target: str) -> None:
            self._freeze("rename")
            super().rename(source, target)

        def _freeze(self, name: str) -> None:
            if self.is_armed and name == step:
                self.is_armed = False
                LocalStore(str(tmp_path)).replace(NAME, [b"good"])

    port = Frozen()
    store = LocalStore(str(tmp_path), port)
    store.put(NAME, [b"damaged"])
    port.is_armed = True
    store.move(NAME, "quarantine/" + "ab" * 32)
    assert not port.is_armed
    assert store.get(NAME) == b"good"


def test_what_a_put_leaves_is_the_object_alone(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put(NAME, [b"x"])
    with pytest.raises(ObjectExists):
        store.put(NAME, [b"y"])
    assert files_below(tmp_path) == [NAME]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_file_system_without_hard_links_will_do(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.link", refuse)
    store = LocalStore(str(tmp_path))
    store.put(NAME, [b"x"])
    with pytest.raises(ObjectExists):
        store.put(NAME, [b"y"])
    assert store.get(NAME) == b"x"
    assert files_below(tmp_path) == [NAME]


def test_short_writes_are_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.writev
    monkeypatch.setattr("os.writev", lambda descriptor, parts: whole(descriptor, [parts[0][:7]]))
    store = LocalStore(str(tmp_path))
    data = [b"0123456789", b"", b"abc" * 50, b"z"]
    assert store.put(NAME, data) == 161
    assert store.get(NAME) == b"".join(data)


def test_short_reads_are_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pread
    store = LocalStore(str(tmp_path))
    store.put(NAME, [b"0123456789" * 20])
    monkeypatch.setattr("os.pread", lambda descriptor, length, offset: whole(descriptor, min(length, 9), offset))
    assert store.get(NAME) == b"0123456789" * 20
    assert store.get_range(NAME, 15, 7) == b"5678901"
    assert store.get_range(NAME, 10, 40) == b"0123456789" * 4


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EIO, StoreUnavailable),
        (errno.EACCES, PermissionDenied),
        (errno.EROFS, PermissionDenied),
        (errno.ESTALE, StoreUnavailable),
        (errno.ENAMETOOLONG, StoreError),
    ],
)
def test_each_failure_of_a_put_is_a_store_error_and_leaves_nothing(
    tmp_path: Path, number: int, expected: type[StoreError]
) -> None:
    counting = FaultyPort(errno.EIO)
    LocalStore(str(tmp_path / "count"), counting).put(NAME, [b"x" * 100])
    for step, call in enumerate(counting.calls):
        folder = tmp_path / f"{step}"
        port = FaultyPort(number, fail_at=step)
        store = LocalStore(str(folder), port)
        if call == "unlink":
            store.put(NAME, [b"x" * 100])
            continue
        with pytest.raises(StoreError) as caught:
            store.put(NAME, [b"x" * 100])
        is_naming = number == errno.ENAMETOOLONG and call in ("make_folder", "link") and step > 0  # 0 is the root
        assert type(caught.value) is (NameNotKept if is_naming else expected)
        named = str(caught.value).split(":")[0]
        assert named in (NAME, "packs", "packs/ab") or named.startswith(str(folder)) or expected is PermissionDenied
        assert "\n" not in str(caught.value)
        whole = [NAME] if call == "sync_folder" and step == len(counting.calls) - 1 else []
        assert files_below(folder) == whole
        if not whole:
            assert store.put(NAME, [b"y"]) == 1
        assert LocalStore(str(folder)).get(NAME) in (b"y", b"x" * 100)


def test_reading_failures_are_store_errors(tmp_path: Path) -> None:
    LocalStore(str(tmp_path)).put(NAME, [b"x"])
    for act in (
        lambda store: store.get(NAME),
        lambda store: store.get_range(NAME, 0, 1),
        lambda store: list(store.list("packs/")),
        lambda store: store.delete(NAME),
    ):
        with pytest.raises(StoreUnavailable, match=r"Input/output error"):
            act(LocalStore(str(tmp_path), FaultyPort(errno.EIO, fail_at=0)))


def test_what_others_may_not_read_is_permission_denied(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "repository"))
    store.put(NAME, [b"x"])
    if os.geteuid() != 0:
        (tmp_path / "repository").chmod(0)
    with as_ordinary_user(), pytest.raises(PermissionDenied) as caught:
        store.get(NAME)
    (tmp_path / "repository").chmod(0o700)
    assert str(caught.value).endswith(": permission denied")
    assert str(caught.value.hint).startswith("it belongs to ")


def test_a_full_disk_is_store_full(make_tmpfs: Callable[[int], Path]) -> None:
    folder = make_tmpfs(1 << 20)
    store = LocalStore(str(folder))
    store.put("small", [b"x" * 1000])
    with pytest.raises(StoreFull, match=r"No space left on device"):
        store.put(NAME, [b"x" * (2 << 20)])
    assert files_below(folder) == ["small"]
    store.put(NAME, [b"x" * 1000])


def test_folders_and_links_are_no_objects(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put(NAME, [b"x"])
    (tmp_path / "packs" / "ab" / "link").symlink_to(tmp_path / NAME)
    (tmp_path / "packs" / "ab" / "folder").mkdir()
    os.mkfifo(tmp_path / "packs" / "ab" / "pipe")
    assert [found.name for found in store.list("")] == [NAME]
    for name in ("packs/ab", "packs/ab/link", f"{NAME}/below"):
        with pytest.raises(StoreError):
            store.get(name)
    with pytest.raises(StoreError):
        store.put(f"{NAME}/below", [b"x"])


def test_a_folder_moved_to_another_disk_and_linked_is_listed_as_it_is_read(tmp_path: Path) -> None:
    """Snapshots below it could be read and added to, and a prune that did not see them took their content."""
    store = LocalStore(str(tmp_path / "repository"))
    store.put("snapshots/vm/one", [b"x"])
    (tmp_path / "repository" / "snapshots" / "vm").rename(tmp_path / "elsewhere")
    (tmp_path / "repository" / "snapshots" / "vm").symlink_to(tmp_path / "elsewhere")
    assert [found.name for found in store.list("snapshots/")] == ["snapshots/vm/one"]
    assert store.get("snapshots/vm/one") == b"x"


def test_a_link_to_a_folder_above_is_no_way_to_list_for_ever(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put(NAME, [b"x"])
    (tmp_path / "packs" / "ab" / "up").symlink_to(tmp_path)
    with pytest.raises(StoreError, match=r"Too many levels of symbolic links"):
        list(store.list(""))


def test_a_pipe_in_the_place_of_an_object_does_not_hold_a_reader_up(tmp_path: Path) -> None:
    """Opening it waited for a writer, for ever."""
    store = LocalStore(str(tmp_path))
    os.mkfifo(tmp_path / "config")
    with pytest.raises(StoreError):
        store.get("config")


def test_a_place_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    store = LocalStore(str(tmp_path / "file"))
    for act in (lambda: store.put(NAME, [b"x"]), lambda: store.get(NAME), lambda: list(store.list(""))):
        with pytest.raises(StoreError):
            act()
    with pytest.raises(ObjectNotFound):
        LocalStore(str(tmp_path / "none")).get(NAME)


def test_what_was_only_read_ahead_with_a_bad_sector_is_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On XFS the pages beside a bad sector failed as well, until the cache forgot what it had tried."""
    store, pread, advise, given = LocalStore(str(tmp_path)), os.pread, os.posix_fadvise, list[int]()
    store.put(NAME, [b"x" * 10_000])

    def fail_with_read_ahead(descriptor: int, length: int, offset: int) -> bytes:
        if os.POSIX_FADV_RANDOM not in given:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, length, offset)

    def note(descriptor: int, offset: int, length: int, advice: int) -> None:
        given.append(advice)
        advise(descriptor, offset, length, advice)

    monkeypatch.setattr(os, "pread", fail_with_read_ahead)
    monkeypatch.setattr(os, "posix_fadvise", note)
    assert store.get_range(NAME, 4096, 5000) == b"x" * 5000
    assert given == [os.POSIX_FADV_DONTNEED, os.POSIX_FADV_RANDOM]
