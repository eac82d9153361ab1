# SPDX-License-Identifier: Apache-2.0
"""A store over a network, whose calls are made again while that may help.

While the store has not answered yet, or has just failed for as long as `_PATIENT` says, calls are tried a few times only: a
wrong address is reported within seconds, and a run that ends because its store is gone ends soon.

A listing is read whole before its first object is returned, about 150 bytes an object.

Always  what a failed call may have done nevertheless is looked for before it is done again: a `put` whose answer was lost
        succeeds if its bytes are there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from deltaimg.errors import DeltaimgError, ObjectExists, ObjectNotFound, ObjectTooLarge, StoreError, StoreUnavailable
from deltaimg.store.interface import ANY_NAME, Confirm, Layout, ObjectInfo, Parts, Store, always
from deltaimg.store.retry import Backoff, is_worth_retrying, retry
from deltaimg.store.wrapped import WrappedStore

_PATIENT = Backoff(tries=10)
"""Ten tries take a minute and a half: long enough for a server that restarts, and for a line that is dialled again."""
_BRIEF = Backoff(tries=3)
_SILENT_S = 2.0
"""Shorter pauses are not worth a message."""

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class RetryingStore(WrappedStore):
    """Makes calls of `inner` again whose error says that this is worth it."""

    def __init__(self, inner: Store, patient: Backoff = _PATIENT, brief: Backoff = _BRIEF) -> None:
        super().__init__(inner)
        self._patient, self._brief = patient, brief
        self._is_well = False
        self._is_reported = False

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        """As of `Store`. An object that a lost answer was about is compared, and counts as put if it has the same bytes."""
        return self._write(name, parts, lambda: self.inner.put(name, parts, confirm))

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        """As of `Store`, made again while that helps."""
        return self._try(lambda: self.inner.replace(name, parts, confirm))

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        """As of `Store`, made again while that helps."""
        return self._try(lambda: self.inner.get(name, max_bytes))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """As of `Store`, made again while that helps."""
        return self._try(lambda: self.inner.get_range(name, offset, length))

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        """As of `Store`, read whole before the first object is returned."""
        yield from self._try(lambda: [*self.inner.list(prefix, layout)])

    def move(self, name: str, new_name: str) -> None:
        """As of `Store`; what an earlier try moved is moved."""
        failed: list[StoreError] = []

        def attempt() -> None:
            try:
                self.inner.move(name, new_name)
            except ObjectNotFound:
                if not failed or not self._is_there(new_name):
                    raise
            except ObjectExists:
                if not failed or self.inner.get(name) != self.inner.get(new_name):
                    raise
                self.inner.delete(name)
            except StoreUnavailable as error:
                failed.append(error)
                raise

        self._try(attempt)

    def delete(self, name: str) -> None:
        """As of `Store`, made again while that helps."""
        self._try(lambda: self.inner.delete(name))

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        """As of `Store`; those are tried again that may succeed."""
        remaining, refused = [*names], dict[str, StoreError]()

        def attempt() -> None:
            nonlocal remaining
            failed = self.inner.delete_many(remaining)
            refused.update({name: error for name, error in failed.items() if not is_worth_retrying(error)})
            remaining = [name for name in failed if name not in refused]
            if remaining:
                raise failed[remaining[0]]

        try:
            self._try(attempt)
        except StoreError as error:
            refused.update(dict.fromkeys(remaining, error))
        return refused

    def make_folder(self, name: str) -> None:
        """As of `Store`, made again while that helps."""
        self._try(lambda: self.inner.make_folder(name))

    # -- parts -------------------------------------------------------------------------------------------------------

    def _write(self, name: str, parts: Parts, put: Callable[[], int]) -> int:
        """Put an object; one that exists after a try whose outcome is unknown was put by that try, if it has the same bytes."""
        is_in_doubt = False

        def attempt() -> int:
            nonlocal is_in_doubt
            try:
                return put()
            except ObjectExists:
                data = b"".join(parts)
                if is_in_doubt and self._has(name, data):
                    return len(data)
                raise
            except StoreUnavailable:
                is_in_doubt = True
                raise

        return self._try(attempt)

    def _try(self, call: Callable[[], Result]) -> Result:
        try:
            result = retry(call, self._choose_backoff(), self._report)
        except DeltaimgError as error:
            self._is_well = not isinstance(error, StoreUnavailable)
            raise
        self._note_success()
        return result

    def _choose_backoff(self) -> Backoff:
        return self._patient if self._is_well else self._brief

    def _note_success(self) -> None:
        self._is_well, self._is_reported = True, False

    def _report(self, error: DeltaimgError, pause_s: float) -> None:
        """Say once what is being waited for."""
        if pause_s >= _SILENT_S and not self._is_reported:
            self._is_reported = True
            _log.warning("%s; it is tried again for a while", error)

    def _has(self, name: str, data: bytes) -> bool:
        with suppress(ObjectNotFound, ObjectTooLarge):
            return self.inner.get(name, len(data)) == data
        return False

    def _is_there(self, name: str) -> bool:
        with suppress(ObjectNotFound):
            self.inner.get_range(name, 0, 1)
            return True
        return False
