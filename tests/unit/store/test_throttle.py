# SPDX-License-Identifier: Apache-2.0
"""Limits on bytes and requests: right on average, smooth, and shared by threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from deltaimg.meter import Meter
from deltaimg.model import KIB, MIB
from deltaimg.options.bandwidth import parse_bandwidth
from deltaimg.options.store import StoreOptions
from deltaimg.store.compose import compose_store
from deltaimg.store.counted import find_traffic
from deltaimg.store.interface import Store
from deltaimg.store.memory import MemoryStore
from deltaimg.store.throttle import Throttle, ThrottledStore
from tests.support.sshd import SshServer


class Clock:
    """Time that passes when a caller sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_meter_grants_its_rate_and_no_more_after_a_pause() -> None:
    clock = Clock()
    meter = Meter(lambda: 1000.0, clock)
    moments = []
    for _ in range(100):
        clock.sleep(meter.take(50))
        moments.append(clock.now)
    assert moments[-1] - moments[0] == pytest.approx(99 * 0.05, rel=0.02)
    clock.sleep(3600)
    granted = 0.0
    start = clock.now
    while clock.now - start < 1:
        clock.sleep(meter.take(50))
        granted += 50
    assert granted <= 1150, "an hour without traffic is not saved up"


def test_a_rate_that_changes_holds_from_then_on() -> None:
    clock, rates = Clock(), [1000.0, None, 10.0]
    meter = Meter(lambda: rates[0], clock)
    for _ in range(10):
        clock.sleep(meter.take(100))
    rates.pop(0)
    assert meter.take(10**9) == 0
    rates.pop(0)
    clock.sleep(meter.take(10))
    assert meter.take(10) == pytest.approx(1.0, abs=0.1)


def test_threads_share_one_rate() -> None:
    meter = Meter(lambda: 200.0)
    started = time.monotonic()

    def work(_: int) -> None:
        for _ in range(5):
            time.sleep(meter.take(5))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert 0.4 < time.monotonic() - started < 0.9, "100 at 200 a second"


def test_a_timetable_is_looked_up_at_each_moment() -> None:
    now = [datetime(2026, 11, 23, 7)]
    throttle = Throttle(StoreOptions(bandwidth=parse_bandwidth("08:00,1K 20:00,off")), lambda: now[0])
    assert throttle.delay_sent(10 * MIB) == 0
    now[0] = datetime(2026, 11, 23, 8)
    throttle.delay_sent(KIB)
    assert throttle.delay_sent(1) == pytest.approx(1.0, abs=0.1)
    assert throttle.delay_received(1) == 0, "the other way is not used yet"


def test_a_store_of_another_kind_pays_for_whole_calls() -> None:
    slept: list[float] = []
    inner = MemoryStore()
    limits = StoreOptions(bandwidth=parse_bandwidth("1K"), max_requests=2.0)
    store = ThrottledStore(inner, Throttle(limits), slept.append)
    store.put("a", [bytes(1000), bytes(24)])
    store.get("a")
    assert not slept or max(slept) < 1
    slept.clear()
    store.replace("a", [bytes(1024)])
    assert max(slept) > 0.9
    for act in (
        lambda: store.get_range("a", 0, 9),
        lambda: list(store.list("")),
        lambda: store.move("a", "b"),
        lambda: store.delete_many(["b"]),
        lambda: store.delete("b"),
    ):
        slept.clear()
        act()
        assert slept, "every call is a request"


def measure_seconds(folder: Path, act: Callable[[], object]) -> list[float]:
    """Return how many bytes a folder's files grew by in each second while something was done."""
    sizes: list[tuple[float, int]] = []
    is_done = threading.Event()

    def sample() -> None:
        while not is_done.wait(0.02):
            sizes.append((time.monotonic(), sum(each.stat().st_size for each in folder.glob(".put-*"))))

    watching = threading.Thread(target=sample)
    watching.start()
    try:
        act()
    finally:
        is_done.set()
        watching.join()
    return [
        max(size for moment, size in sizes if start <= moment <= start + 1) - before
        for start, before in sizes
        if before and start + 1 <= sizes[-1][0]
    ]


def test_over_sftp_no_second_has_more_than_its_share(sshd: SshServer, tmp_path: Path) -> None:
    store = limited(sshd, tmp_path, "1M")
    store.put("small", [b""])
    data = bytes(int(3.5 * MIB))
    started = time.monotonic()
    seconds = measure_seconds(tmp_path, lambda: store.put("a", [data]))
    took = time.monotonic() - started
    assert len(data) / MIB / took == pytest.approx(1.0, rel=0.06)
    assert len(seconds) > 20
    assert max(seconds) < 1.3 * MIB
    started = time.monotonic()
    assert store.get("a") == data
    assert len(data) / MIB / (time.monotonic() - started) == pytest.approx(1.0, rel=0.06)
    store.close()


def limited(sshd: SshServer, folder: Path, bandwidth: str) -> Store:
    return compose_store(sshd.url(folder), StoreOptions(bandwidth=parse_bandwidth(bandwidth)), writer=lambda: "")


def test_calls_and_bytes_are_counted_by_kind(tmp_path: Path) -> None:
    store = compose_store(str(tmp_path / "r"), None, writer=lambda: "")
    store.put("maps/a", [b"12", b"345"])
    store.replace("maps/a", [b"123"])
    store.get("maps/a")
    store.get_range("maps/a", 1, 1)
    list(store.list("maps/"))
    store.move("maps/a", "maps/b")
    store.delete("maps/c")
    store.delete_many(["maps/c", "maps/d"])
    traffic = find_traffic(store)
    assert traffic is not None
    assert traffic.requests == {"delete": 2, "get": 1, "get_range": 1, "list": 1, "move": 1, "put": 1, "replace": 1}
    assert (traffic.sent_bytes, traffic.received_bytes) == (8, 4)
    assert find_traffic(MemoryStore()) is None
