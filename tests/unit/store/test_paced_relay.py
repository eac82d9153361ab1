# SPDX-License-Identifier: Apache-2.0
"""Object storage at a pace: every byte waits its turn, in small pieces, and strangers are not served."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from deltaimg.errors import StoreUnavailable
from deltaimg.model import MIB
from deltaimg.store.interface import KeepsPace, Store, TellsDigests
from deltaimg.store.open import open_store
from deltaimg.store.paced_relay import PacedRelay
from deltaimg.store.wrapped import find_innermost
from tests.support.s3_servers import S3Server

_CONTENT = random.Random(5).randbytes(12 * MIB + 3)
_HEADERS_BYTES = 64 << 10


class NotedPace:
    """Notes what waits, and lets it pass after `delay_s`."""

    piece_bytes = 1 << 16

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.sent: list[int] = []
        self.received: list[int] = []

    def delay_sent(self, count: int) -> float:
        self.sent.append(count)
        return self.delay_s

    def delay_received(self, count: int) -> float:
        self.received.append(count)
        return self.delay_s

    def delay_request(self) -> float:
        return 0.0


@pytest.fixture
def pace() -> NotedPace:
    return NotedPace()


@pytest.fixture
def open_paced(s3_server: S3Server, pace: NotedPace) -> Iterator[Callable[[str], Store]]:
    opened: list[Store] = []

    def open_it(place: str = "") -> Store:
        store = open_store(place or s3_server.make_place())
        opened.append(store)
        inner = find_innermost(store)
        assert isinstance(inner, KeepsPace)
        assert isinstance(inner, TellsDigests)
        inner.keep_pace(pace)
        inner.note_digests()
        return store

    yield open_it
    for store in opened:
        store.close()


@pytest.mark.parametrize("size", [0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 10 * MIB, len(_CONTENT)])
def test_each_byte_waits_its_turn(open_paced: Callable[[], Store], pace: NotedPace, size: int) -> None:
    store = open_paced()
    parts = [_CONTENT[: size // 3], memoryview(_CONTENT)[size // 3 : size]]
    assert store.put("packs/ab/object", parts) == size
    assert size <= sum(pace.sent) <= size + _HEADERS_BYTES
    assert max(pace.sent) <= pace.piece_bytes
    pace.received.clear()
    assert store.get("packs/ab/object") == _CONTENT[:size]
    assert size <= sum(pace.received) <= size + _HEADERS_BYTES
    assert max(pace.received) <= pace.piece_bytes
    (found,) = store.list("packs/")
    assert (found.size_bytes, found.is_as_sent) == (size, True), "the parts are those that its digest is of"


def test_no_more_is_read_than_a_range(open_paced: Callable[[], Store], pace: NotedPace) -> None:
    store = open_paced()
    store.put("object", [_CONTENT])
    pace.received.clear()
    assert store.get_range("object", 1000, 5000) == _CONTENT[1000:6000]
    assert sum(pace.received) <= 5000 + _HEADERS_BYTES


def test_a_store_at_a_pace_can_be_closed_while_it_sends(
    s3_server: S3Server, open_paced: Callable[[str], Store], pace: NotedPace
) -> None:
    store = open_paced("")
    inner = find_innermost(store)
    pace.delay_s = 0.2
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(inner.put, "object", [_CONTENT])
        while len(pace.sent) < 3:
            time.sleep(0.01)
        store.close()
        with pytest.raises(StoreUnavailable):
            sending.result(10)
    again = open_store(store.location)
    assert not list(again.list("")), "nothing became visible"


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 407 "),
        (b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\r\n", b"HTTP/1.1 407 "),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (b"CONNECT host:port HTTP/1.1\r\n\r\n", b""),
        (b"GET ftp://host/ HTTP/1.1\r\n\r\n", b""),
        (b"nonsense\r\n\r\n", b""),
        (b"\xff\xfe \r\n\r\n", b""),
        (b"x" * 300_000, b""),
    ],
)
def test_strangers_are_not_served(
    pace: NotedPace, request_: bytes, answer: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    relay = PacedRelay(pace)
    try:
        with socket.create_connection(("127.0.0.1", urlsplit(relay.url).port or 0), timeout=10) as stranger:
            stranger.sendall(request_)
            received = b""
            try:
                while data := stranger.recv(1000):
                    received += data
            except ConnectionResetError:
                pass
        assert received[: len(answer) or 1] == answer
    finally:
        relay.close()
    assert capfd.readouterr().err == ""


def test_the_word_is_another_each_time(pace: NotedPace) -> None:
    relays = [PacedRelay(pace) for _ in range(2)]
    words = {urlsplit(relay.url).password for relay in relays}
    for relay in relays:
        relay.close()
    assert len(words) == 2
    assert all(word is not None and len(word) == 32 for word in words)
