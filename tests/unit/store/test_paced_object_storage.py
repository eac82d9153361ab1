# SPDX-License-Identifier: Apache-2.0
"""Object storage under a limit: no request is sent before its bytes are paid for, and none has more than 5 MiB."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from deltaimg.errors import ObjectExists
from deltaimg.model import MIB
from deltaimg.store.interface import KeepsPace, Store, TellsDigests
from deltaimg.store.open import open_store
from deltaimg.store.wrapped import find_innermost
from tests.support.s3_servers import S3Server

_CONTENT = random.Random(5).randbytes(12 * MIB + 3)
_MOST = 5 * MIB


class NotedPace:
    """Lets everything pass, and notes what was paid for."""

    piece_bytes = 1 << 16

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.received: list[int] = []

    def delay_sent(self, count: int) -> float:
        self.sent.append(count)
        return 0.0

    def delay_received(self, count: int) -> float:
        self.received.append(count)
        return 0.0

    def delay_request(self) -> float:
        return 0.0


@pytest.fixture
def pace() -> NotedPace:
    return NotedPace()


@pytest.fixture
def store(s3_server: S3Server, pace: NotedPace) -> Iterator[Store]:
    opened = open_store(s3_server.make_place())
    inner = find_innermost(opened)
    assert isinstance(inner, KeepsPace)
    assert isinstance(inner, TellsDigests)
    inner.keep_pace(pace)
    inner.note_digests()
    yield opened
    opened.close()


@pytest.mark.parametrize("size", [0, 1, _MOST - 1, _MOST, _MOST + 1, 2 * _MOST, len(_CONTENT)])
def test_each_request_is_paid_for_before(store: Store, pace: NotedPace, size: int) -> None:
    parts = [_CONTENT[: size // 3], memoryview(_CONTENT)[size // 3 : size]]
    assert store.put("packs/ab/object", parts) == size
    whole, rest = divmod(size, _MOST)
    assert pace.sent == [_MOST] * whole + [rest] * (rest > 0 or not whole)
    assert store.get("packs/ab/object") == _CONTENT[:size]
    assert sum(pace.received) == size
    (found,) = store.list("packs/")
    assert (found.size_bytes, found.is_as_sent) == (size, True), "the parts are those that its digest is of"


def test_an_object_that_is_there_is_paid_for_by_a_look(store: Store, pace: NotedPace) -> None:
    store.put("object", [_CONTENT])
    pace.sent.clear()
    with pytest.raises(ObjectExists):
        store.put("object", [_CONTENT])
    assert not pace.sent


def test_a_range_is_paid_for(store: Store, pace: NotedPace) -> None:
    store.put("object", [_CONTENT])
    assert store.get_range("object", 1000, 5000) == _CONTENT[1000:6000]
    assert pace.received == [5000]
