# SPDX-License-Identifier: Apache-2.0
"""Independent jobs on the workers of an existing cluster, by way of any `concurrent.futures.Executor`.

A job is a function of a module and an argument that says all that it needs, so that it may run in any process that has deltaimg
and sees the repository, and may run again where a worker died. Threads of this process are `OrderedPool`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from typing import Any, TypeVar

from msgspec import Struct

from deltaimg.errors import ClusterFailed, DeltaimgError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Cluster(Struct, frozen=True):
    """An executor, and how many jobs it is given at a time."""

    executor: Executor
    in_flight: int = 8
    address: str = "the executor"
    """For messages."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result of each item, in order, never more than `in_flight` ahead.

        Raises:
            ClusterFailed: a job could not be run; or what it raised, if that is an error of ours.
        """
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(self._submit(function, item))
                while len(pending) >= self.in_flight:
                    yield self._take(pending.popleft())
            while pending:
                yield self._take(pending.popleft())
        finally:
            for future in pending:
                future.cancel()

    def _submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        try:
            return self.executor.submit(function, item)
        except Exception as error:
            raise self._describe(error) from error

    def _take(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except DeltaimgError:
            raise
        except (Exception, CancelledError) as error:
            raise self._describe(error) from error

    def _describe(self, error: BaseException) -> ClusterFailed:
        text = str(error).partition("\n")[0]
        hint = "are its workers at work, with this version of deltaimg, and do they see the repository?"
        return ClusterFailed(
            self.address, f"a job failed: {type(error).__name__}{': ' if text else ''}{text}", hint=hint
        )
