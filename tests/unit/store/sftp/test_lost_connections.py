# SPDX-License-Identifier: Apache-2.0
"""Connections that are cut: at every request of every call, before it is sent and after it took effect."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from deltaimg.errors import LockLost, ObjectExists, ObjectNotFound, PermissionDenied, StoreFull, StoreUnavailable
from deltaimg.store.file_names import find_writer, name_claim
from deltaimg.store.interface import Store
from deltaimg.store.sftp import publish, transfer
from deltaimg.store.sftp.address import parse_sftp_address
from deltaimg.store.sftp.session import Link, SessionLimits
from deltaimg.store.sftp.store import SftpStore
from tests.support.components import requires_root, small_tmpfs
from tests.support.sshd import SshServer, ssh_server


class Cuts:
    """Cuts the connection at one request, counted from 0; it has no answer then."""

    def __init__(self, server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self.cut_at, self.is_after_effect, self.requests = server, -1, False, 0
        original = Link.ask
        cuts = self

        async def ask(link: Link, request: Awaitable[Any]) -> Any:
            number, cuts.requests = cuts.requests, cuts.requests + 1
            if number != cuts.cut_at:
                return await original(link, request)
            if cuts.is_after_effect:
                await original(link, request)
            else:
                unsent = asyncio.ensure_future(request)
                unsent.cancel()
                await asyncio.wait([unsent])
            cuts.server.cut_connections()
            raise asyncssh.SFTPConnectionLost("cut by the test")

        monkeypatch.setattr(Link, "ask", ask)

    def arm(self, cut_at: int, *, is_after_effect: bool) -> None:
        self.cut_at, self.is_after_effect, self.requests = cut_at, is_after_effect, 0


@pytest.fixture
def cuts(sshd: SshServer, monkeypatch: pytest.MonkeyPatch) -> Cuts:
    return Cuts(sshd, monkeypatch)


@pytest.fixture
def store(sshd: SshServer, tmp_path: Path) -> Iterator[SftpStore]:
    opened = SftpStore(parse_sftp_address(sshd.url(tmp_path / "repository")), writer=lambda: "me-1-2")
    yield opened
    opened.close()


BIG = bytes(range(256)) * 4096


def check_put(store: Store, folder: Path) -> None:
    assert store.put("packs/ab/new", [BIG, b"end"]) == len(BIG) + 3
    assert store.get("packs/ab/new") == BIG + b"end"


def check_put_again(store: Store, folder: Path) -> None:
    with pytest.raises(ObjectExists):
        store.put("maps/there", [b"another"])
    assert store.get("maps/there") == b"content"


def check_replace(store: Store, folder: Path) -> None:
    assert store.replace("maps/there", [b"newer"]) == 5
    assert store.get("maps/there") == b"newer"


def check_move(store: Store, folder: Path) -> None:
    store.move("maps/there", "quarantine/maps/there")
    assert store.get("quarantine/maps/there") == b"content"
    with pytest.raises(ObjectNotFound):
        store.get("maps/there")


def check_delete(store: Store, folder: Path) -> None:
    store.delete("maps/there")
    assert not (folder / "maps/there").exists()


def check_reads(store: Store, folder: Path) -> None:
    assert store.get("maps/there", 100) == b"content"
    assert store.get_range("maps/there", 2, 3) == b"nte"
    assert [each.name for each in store.list("")] == ["maps/there"]


@pytest.mark.filterwarnings("ignore:coroutine")  # of what the test does not send
@pytest.mark.parametrize("is_after_effect", [False, True], ids=["before", "after effect"])
@pytest.mark.parametrize("check", [check_put, check_put_again, check_replace, check_move, check_delete, check_reads])
def test_a_cut_at_any_request_changes_nothing_of_the_result(
    store: SftpStore,
    cuts: Cuts,
    tmp_path: Path,
    check: Callable[[Store, Path], None],
    is_after_effect: bool,
    record_property: Callable[[str, object], None],
) -> None:
    folder = tmp_path / "repository"
    cut_at = 0
    while True:
        cuts.arm(-1, is_after_effect=False)
        for each in [*folder.rglob("*")] if folder.exists() else []:
            if each.is_file():
                each.unlink()
        store.put("maps/there", [b"content"])
        cuts.arm(cut_at, is_after_effect=is_after_effect)
        check(store, folder)
        assert not list(folder.rglob(".put-*")), f"something was left after a cut at request {cut_at}"
        if cuts.requests <= cut_at:
            break
        cut_at += 1
    assert cut_at >= 3
    record_property("requests cut", cut_at)


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize("is_after_effect", [False, True], ids=["before", "after effect"])
def test_a_cut_where_there_are_no_hard_links_leaves_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_after_effect: bool
) -> None:
    with ssh_server(tmp_path / "server", subsystem="internal-sftp -P hardlink") as server, server.reached():
        store = SftpStore(parse_sftp_address(server.url()))
        cuts = Cuts(server, monkeypatch)
        try:
            store.put("maps/a", [b"1"])
            for cut_at in range(4, 16):
                cuts.arm(cut_at, is_after_effect=is_after_effect)
                started = time.monotonic()
                store.put(f"maps/{cut_at}", [b"2"])
                store.move(f"maps/{cut_at}", f"maps/moved-{cut_at}")
                assert time.monotonic() - started < 30
                assert store.get(f"maps/moved-{cut_at}") == b"2"
                assert not list(server.root.rglob(".put-*")), cut_at
            assert cuts.requests > cut_at
        finally:
            store.close()


def note_continued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of from where each file is continued after a cut."""
    found: list[int] = []
    original = transfer._find_start

    async def find_start(link: Link, upload: transfer.Upload) -> int:
        assert upload.written_bytes > 0
        found.append(await original(link, upload))
        return found[-1]

    monkeypatch.setattr(transfer, "_find_start", find_start)
    return found


class SlowPace:
    """Lets 25 MB a second through."""

    piece_bytes = 128 << 10

    def delay_sent(self, count: int) -> float:
        return 0.005

    def delay_received(self, count: int) -> float:
        return 0.0

    def delay_request(self) -> float:
        return 0.0


def test_an_object_whose_transfer_is_cut_over_and_over_is_continued(
    store: SftpStore, sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    continued = note_continued(monkeypatch)
    parts = [bytes([number]) * 262_144 for number in range(96)]
    store.put("x", [b""])
    store.keep_pace(SlowPace())
    is_done = threading.Event()
    cut_sizes: list[int] = []

    def keep_cutting() -> None:
        while not is_done.wait(0.01):
            found = [each.stat().st_size for each in (tmp_path / "repository").glob(".put-*")]
            if found and found[0] > (cut_sizes[-1] if cut_sizes else 0) + (4 << 20):
                sshd.cut_connections()
                cut_sizes.append(found[0])

    cutting = threading.Thread(target=keep_cutting)
    cutting.start()
    try:
        store.put("big", parts)
    finally:
        is_done.set()
        cutting.join()
    assert len(cut_sizes) >= 2
    assert continued == sorted(continued)
    assert continued[-1] > 6 << 20
    assert store.get("big") == b"".join(parts)
    assert sorted(each.name for each in (tmp_path / "repository").iterdir()) == ["big", "x"]


def test_what_an_earlier_connection_wrote_is_used_only_if_the_server_still_has_it(
    store: SftpStore, cuts: Cuts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that crashed may have kept a file's length without its content."""
    folder = tmp_path / "repository"
    store.put("x", [b""])
    cuts.arm(5, is_after_effect=True)  # the last but one of six writes, after opening the file
    cut = cuts.server.cut_connections

    def lose_content() -> None:
        cut()
        for each in folder.glob(".put-*"):
            each.write_bytes(bytes(each.stat().st_size))

    monkeypatch.setattr(cuts.server, "cut_connections", lose_content)
    continued = note_continued(monkeypatch)
    store.put("second", [BIG])
    assert continued == [0]
    assert store.get("second") == BIG


def test_a_put_whose_file_was_removed_by_another_process_says_that_its_lock_is_lost(
    store: SftpStore, tmp_path: Path
) -> None:
    def remove() -> None:
        [temporary] = (tmp_path / "repository" / "maps").glob(".put-*")
        assert find_writer(temporary.name) == "me-1-2"
        temporary.unlink()

    for write in (store.put, store.replace):
        with pytest.raises(LockLost):
            write("maps/a", [b"1"], remove)
    assert list(store.list("")) == []


def test_a_confirmation_that_fails_leaves_nothing(store: SftpStore, tmp_path: Path) -> None:
    def refuse() -> None:
        raise LockLost("x")

    with pytest.raises(LockLost):
        store.put("maps/a", [b"1"], refuse)
    assert [each.name for each in (tmp_path / "repository").rglob("*")] == ["maps"]


def test_what_dead_writers_left_is_listed_with_its_writer_and_removed(store: SftpStore, tmp_path: Path) -> None:
    store.put("maps/a", [b"1"])
    left = tmp_path / "repository" / "maps" / ".put-tag-7-9-0123456789ab"
    left.write_bytes(b"half")
    [found] = store.list_unfinished()
    assert (found.name, found.size_bytes, found.writer) == (f"maps/{left.name}", 4, "tag-7-9")
    assert abs(found.modified_s - left.stat().st_mtime) < 2
    store.remove_unfinished(found.name)
    assert not left.exists()


def test_a_full_disk_and_a_read_only_one_are_said(sshd: SshServer, tmp_path: Path) -> None:
    requires_root()
    with small_tmpfs(tmp_path / "small", 1 << 20) as folder:
        store = SftpStore(parse_sftp_address(sshd.url(folder / "repository")))
        try:
            store.put("maps/a", [b"1"])
            with pytest.raises(StoreFull, match="no space left"):
                store.put("maps/b", [bytes(4 << 20)])
            assert sorted(each.name for each in folder.rglob("*")) == ["a", "maps", "repository"]
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            with pytest.raises(PermissionDenied, match="read-only"):
                store.put("maps/c", [b"1"])
        finally:
            store.close()


def test_a_server_that_stays_away_is_given_up_and_then_tried_once(sshd: SshServer, tmp_path: Path) -> None:
    with ssh_server(tmp_path / "server") as server, server.reached():
        store = SftpStore(parse_sftp_address(server.url()), limits=SessionLimits(reconnect_s=1.5))
        try:
            store.put("x", [b"1"])
            server.stop()
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.get("x")
            assert 0.4 < time.monotonic() - started < 6
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.get("x")
            assert time.monotonic() - started < 1
            server.start()
            assert store.get("x") == b"1"
        finally:
            store.close()


def test_a_name_that_a_dead_process_claimed_is_given_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no hard links, the one that creates a file beside a name may give that name."""
    monkeypatch.setattr(publish, "_CLAIM_S", 0.3)
    with ssh_server(tmp_path / "server", subsystem="internal-sftp -P hardlink") as server, server.reached():
        store = SftpStore(parse_sftp_address(server.url()))
        try:
            store.put("maps/a", [b"1"])
            claim = server.root / "repository" / "maps" / name_claim(b"b")
            assert find_writer(claim.name) == "claim", "a claim is nothing that a listing has"
            claim.touch()
            started = time.monotonic()
            store.put("maps/b", [b"2"])
            assert time.monotonic() - started > 0.3
            with pytest.raises(ObjectExists):
                store.put("maps/b", [b"3"])
            assert sorted(each.name for each in claim.parent.iterdir()) == ["a", "b"]
        finally:
            store.close()
