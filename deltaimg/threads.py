# SPDX-License-Identifier: Apache-2.0
"""Threads, and what happens where the system starts no more of them: limits of processes, of memory, of a container."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from deltaimg.errors import Interrupted, OutOfResources, UsageError

Result = TypeVar("Result")
MAX_THREADS = 256
_STACK_BYTES = 9 << 20
"""The usual stack of a thread, and its overhead."""


class _Limit:
    """What `limit_workers` set."""

    threads = MAX_THREADS


def count_workers() -> int:
    """Return how many threads to work on: one for each core that this process may use, within the limit that was set."""
    return max(1, min(_Limit.threads, len(os.sched_getaffinity(0))))


def limit_workers(count: int) -> None:
    """Let this process work on at most `count` threads from now on; raises UsageError."""
    if not 1 <= count <= MAX_THREADS:
        raise UsageError(f"{count} threads: it must be 1 to {MAX_THREADS}")
    _Limit.threads = count


class _Delay:
    """What the main thread does that a signal handler must not interrupt by raising anything."""

    is_under_way = False
    held: Interrupted | None = None
    last: Interrupted | None = None


def raise_when_safe(error: Interrupted) -> None:
    """Raise an error from a signal handler: at once, or at the end of a `delaying_interruption`."""
    _Delay.last = error
    if _Delay.is_under_way:
        _Delay.held = error
    else:
        raise error


def last_raised() -> Interrupted | None:
    """Return what a signal handler raised last, or None."""
    return _Delay.last


_is_ending = threading.Event()


def end_pauses() -> None:
    """Let no thread wait any more for better times: the process is to end."""
    _is_ending.set()


def pause(seconds: float) -> bool:
    """Wait; return whether that ended early, since the process is to end."""
    return _is_ending.wait(seconds)


@contextmanager
def delaying_interruption() -> Iterator[None]:
    """Keep signal handlers from raising anything inside the context: what they would raise is raised at its end.

    For what takes a moment: a process or thread that is being started would be lost track of.
    """
    if threading.current_thread() is not threading.main_thread() or _Delay.is_under_way:
        yield
        return
    _Delay.is_under_way = True
    try:
        yield
    finally:
        _Delay.is_under_way = False
        held, _Delay.held = _Delay.held, None
        if held is not None:
            raise held


def start_thread(function: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread that does not keep the process alive; raises OutOfResources."""
    thread = threading.Thread(target=function, name=name, daemon=True)
    try:
        # Interrupted, it would leave Python's own list of threads half updated, and the new thread would print a traceback.
        with delaying_interruption():
            thread.start()
    except RuntimeError as error:
        raise OutOfResources("threads" if _has_room_for_stack() else "memory") from error
    return thread


def _has_room_for_stack() -> bool:
    """Whether a limit of memory leaves room for a thread's stack: the system gives the same answer for both limits."""
    try:
        mmap.mmap(-1, _STACK_BYTES).close()
    except OSError:
        return False
    return True


class Workers:
    """Up to `count` threads, which take work in the order in which it was given.

    Where the system starts fewer threads, those do all the work; where it starts none, `submit` does it itself.
    """

    def __init__(self, count: int, name: str, *, only_reads: bool = False) -> None:
        """Args: only_reads: what was begun needs no end, and `close` does not wait for it: a line may be slow, or dead."""
        self._count, self._name, self._only_reads = count, name, only_reads
        self._threads: list[threading.Thread] = []
        self._work: SimpleQueue[_Work | None] = SimpleQueue()

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Have a function called; the future has its result, or what it raised."""
        if len(self._threads) < self._count:
            self._start_another()
        work = _Work(function, arguments)
        if self._threads:
            self._work.put(work)
        else:
            work.run()
        return work.future

    def close(self) -> None:
        """Cancel what has not begun, and wait for what has, unless it only reads; a signal does not keep it from that."""
        with delaying_interruption():
            while self._threads:
                try:
                    if work := self._work.get_nowait():
                        work.future.cancel()
                except Empty:
                    break
            for _ in self._threads:
                self._work.put(None)
            for thread in self._threads if not self._only_reads else ():
                thread.join()
            self._threads = []

    def _start_another(self) -> None:
        try:
            # A thread that runs and is not in the list would take what is to end another, and `close` would wait forever.
            with delaying_interruption():
                self._threads.append(start_thread(_Loop(self._work), self._name))
        except OutOfResources:
            self._count = len(self._threads)


class _Work:
    """A function, its arguments, and where its result goes."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.future: Future[Any] = Future()
        self._function, self._arguments = function, arguments

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._function(*self._arguments)
        except BaseException as error:  # noqa: BLE001  whoever asks for the result gets it
            self.future.set_exception(error)
            # The error's traceback holds this frame: without the reference, nothing waits for the collector.
            del self
        else:
            self.future.set_result(result)


class _Loop:
    """What a thread does: work until there is None. It has no reference to its `Workers`, and so does not keep them alive."""

    def __init__(self, work: SimpleQueue[_Work | None]) -> None:
        self._work = work

    def __call__(self) -> None:
        while (work := self._work.get()) is not None:
            work.run()
            del work


class ThreadBuffer(threading.local):
    """Memory of at least `size` bytes for each thread that asks, kept for its next piece of work."""

    _buffer: memoryview | None = None

    def get(self, size: int) -> memoryview:
        """Return this thread's memory, which the next call from the same thread returns again."""
        if self._buffer is None or len(self._buffer) < size:
            self._buffer = memoryview(mmap.mmap(-1, size))
        return self._buffer
