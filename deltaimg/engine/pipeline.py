# SPDX-License-Identifier: Apache-2.0
"""Work on all cores, results in order, bounded memory: the one way in which the engine uses threads.

Threads suffice because kernels, codecs and reads release the interpreter; each piece of work is megabytes large, so
that passing it around costs nothing beside doing it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from deltaimg.threads import ThreadBuffer, Workers, count_workers

__all__ = ["OrderedPool", "ThreadBuffer", "count_workers"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class OrderedPool:
    """Does work on several threads and gives the results back in the order of submission.

    A context manager: on the way out it drops what has not begun, and waits for what has. It is given the function with each
    piece of work, not once: a pool that refers to its owner would keep it, and all its memory, until a collection.
    """

    def __init__(self, *, workers: int | None = None, window: int | None = None, only_reads: bool = False) -> None:
        """Args: only_reads: as `Workers` takes it."""
        workers = workers or count_workers()
        self._window = window or workers + 2
        self._workers = Workers(workers, "deltaimg", only_reads=only_reads)
        self._pending: deque[Future[Any]] = deque()

    def __enter__(self) -> OrderedPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workers.close()
        self._pending.clear()

    def submit(self, function: Callable[[Item], Result], item: Item) -> Iterator[Result]:
        """Queue one item; yield results for as long as more than the window are waiting. To be exhausted."""
        self._pending.append(self._workers.submit(function, item))
        while len(self._pending) > self._window:
            yield self._pending.popleft().result()

    def drain(self) -> Iterator[Any]:
        """Yield all results that are left."""
        while self._pending:
            yield self._pending.popleft().result()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result of each item, in order, never more than the window ahead."""
        for item in items:
            yield from self.submit(function, item)
        yield from self.drain()
