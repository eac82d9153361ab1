# SPDX-License-Identifier: Apache-2.0
"""Work on threads where the system starts as many as are asked for, fewer, or none."""

from __future__ import annotations

import threading
import weakref

import pytest

from deltaimg.engine.pipeline import OrderedPool
from deltaimg.errors import Interrupted, OutOfResources, UsageError
from deltaimg.threads import Workers, _Limit, count_workers, limit_workers, raise_when_safe, start_thread


def allow_threads(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let only so many threads start, as a limit of processes does."""
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_if_allowed(thread: threading.Thread) -> None:
        if len(started) >= count:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_allowed)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_work_is_done_in_order_however_few_threads_start(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    allow_threads(monkeypatch, count)
    names = set()

    def square(number: int) -> int:
        names.add(threading.current_thread().name)
        return number * number

    with OrderedPool(workers=4) as pool:
        assert list(pool.map(square, range(100))) == [number * number for number in range(100)]
    assert (threading.current_thread().name in names) == (count == 0)


@pytest.mark.parametrize("count", [0, 2])
def test_what_work_raises_is_raised_where_its_result_is_asked_for(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    allow_threads(monkeypatch, count)
    with OrderedPool(workers=2) as pool:
        results = pool.map(lambda number: 1 // number, [1, 0])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_closing_cancels_what_has_not_begun_and_waits_for_what_has() -> None:
    begun, may_end = threading.Event(), threading.Event()
    workers = Workers(1, "test")

    def work() -> str:
        begun.set()
        may_end.wait(10)
        return "done"

    first, second = workers.submit(work), workers.submit(work)
    begun.wait(10)
    threading.Timer(0.05, may_end.set).start()
    workers.close()
    assert first.result() == "done"
    assert second.cancelled()


def test_neither_results_nor_errors_keep_what_they_were_made_of() -> None:
    class Memory:
        pass

    def fail(memory: Memory) -> None:
        raise ValueError

    workers = Workers(1, "test")
    memory = Memory()
    watched = weakref.ref(memory)
    future = workers.submit(fail, memory)
    assert isinstance(future.exception(), ValueError)
    del memory, future
    workers.close()
    assert watched() is None


def test_a_thread_that_cannot_be_started_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_threads(monkeypatch, 0)
    with pytest.raises(OutOfResources, match="no more threads"):
        start_thread(lambda: None, "test")


def test_the_number_of_threads_can_be_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Limit, "threads", _Limit.threads)
    limit_workers(1)
    assert count_workers() == 1
    for count in (0, 257):
        with pytest.raises(UsageError, match=f"{count} threads"):
            limit_workers(count)


def test_a_signal_while_a_thread_starts_waits_until_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started, start = [], threading.Thread.start

    def start_slowly(thread: threading.Thread) -> None:
        raise_when_safe(Interrupted(15))
        start(thread)
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    with pytest.raises(Interrupted):
        start_thread(lambda: None, "test")
    assert len(started) == 1
    with pytest.raises(Interrupted):
        raise_when_safe(Interrupted(15))


def test_a_signal_while_a_worker_starts_or_ends_loses_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ran, and was not in the list, took what was to end another, and the process waited for that forever."""
    start, join = threading.Thread.start, threading.Thread.join
    workers = Workers(2, "test-worker")
    workers.submit(int)

    def start_interrupted(thread: threading.Thread) -> None:
        raise_when_safe(Interrupted(15))
        start(thread)

    def join_interrupted(thread: threading.Thread, timeout: float | None = 10) -> None:
        raise_when_safe(Interrupted(15))
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "start", start_interrupted)
    with pytest.raises(Interrupted):
        workers.submit(int)
    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(threading.Thread, "join", join_interrupted)
    with pytest.raises(Interrupted):
        workers.close()
    assert not [each for each in threading.enumerate() if each.name == "test-worker"]
