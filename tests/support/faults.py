# SPDX-License-Identifier: Apache-2.0
"""Stores and file systems that fail on command: the n-th call, before or after it took effect."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from deltaimg.errors import DeltaimgError
from deltaimg.store.file_port import FilePort
from deltaimg.store.interface import Store
from tests.support.wrapping import WrappedStore


class _Countdown:
    """Counts calls; True for the one that is to fail. Calls are counted from 0; `fail_at` None never fails."""

    def __init__(self, fail_at: int | None) -> None:
        self.fail_at = fail_at
        self.calls: list[str] = []
        self._lock = threading.Lock()

    def is_due(self, what: str) -> bool:
        with self._lock:
            self.calls.append(what)
            return len(self.calls) - 1 == self.fail_at


class FaultyStore(WrappedStore):
    """One call raises `error`, and all after it too where `is_lasting`."""

    def __init__(
        self,
        inner: Store,
        error: DeltaimgError,
        *,
        fail_at: int | None = None,
        after_effect: bool = False,
        is_lasting: bool = False,
    ) -> None:
        super().__init__(inner)
        self.error = error
        self._countdown = _Countdown(fail_at)
        self._after_effect, self._is_lasting = after_effect, is_lasting
        self._is_broken = False

    def fail_after(self, count: int) -> None:
        """Have the call fail that comes after `count` more."""
        self._countdown.fail_at = len(self.calls) + count

    @property
    def calls(self) -> list[str]:
        """The calls so far, such as `put maps/3f…`."""
        return self._countdown.calls

    @property
    def has_failed(self) -> bool:
        return self._is_broken

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        is_due = self._countdown.is_due(call)
        if self._is_broken and self._is_lasting:
            raise self.error
        if is_due:
            self._is_broken = True
            if not self._after_effect:
                raise self.error
        yield
        if is_due:
            raise self.error


class FaultyPort(FilePort):
    """A file system of which one call fails with an errno; where that is None, one read ends early, as if the file did.

    A failing write leaves half of its bytes behind.
    """

    def __init__(
        self,
        error_number: int | None,
        *,
        fail_at: int | None = None,
        is_lasting: bool = False,
        inner: FilePort | None = None,
    ) -> None:
        self._countdown = _Countdown(fail_at)
        self._error_number = error_number
        self._is_lasting = is_lasting
        self._inner = inner or FilePort()
        self.has_failed = False

    @property
    def calls(self) -> list[str]:
        return self._countdown.calls

    def create(self, path: str) -> int:
        self._check("create")
        return self._inner.create(path)

    def write(self, descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
        try:
            self._check("write")
        except OSError:
            whole = b"".join(parts)
            self._inner.write(descriptor, [whole[: len(whole) // 2]])
            raise
        self._inner.write(descriptor, parts)

    def sync(self, descriptor: int) -> None:
        self._check("sync")
        self._inner.sync(descriptor)

    def close(self, descriptor: int) -> None:
        self._inner.close(descriptor)
        self._check("close")

    def link(self, source: str, target: str) -> None:
        self._check("link")
        self._inner.link(source, target)

    def rename(self, source: str, target: str) -> None:
        self._check("rename")
        self._inner.rename(source, target)

    def rename_exclusively(self, source: str, target: str) -> None:
        self._check("rename_exclusively")
        self._inner.rename_exclusively(source, target)

    def unlink(self, path: str) -> None:
        self._check("unlink")
        self._inner.unlink(path)

    def make_folder(self, path: str) -> None:
        self._check("make_folder")
        self._inner.make_folder(path)

    def make_outer_folder(self, path: str) -> None:
        self._check("make_folder")
        self._inner.make_outer_folder(path)

    def sync_folder(self, path: str) -> None:
        self._check("sync_folder")
        self._inner.sync_folder(path)

    def is_folder(self, path: str) -> bool:
        return self._inner.is_folder(path)

    def stat(self, path: str) -> os.stat_result:
        self._check("stat")
        return self._inner.stat(path)

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        if self._error_number is not None:
            self._check("read")
            return self._inner.read(path, offset, length)
        data = self._inner.read(path, offset, length)
        if self._countdown.is_due("read"):
            self.has_failed = True
            return data[: len(data) // 2]
        return data

    def scan_folder(self, path: str) -> Iterator[os.DirEntry[str]]:
        self._check("scan_folder")
        yield from self._inner.scan_folder(path)

    def _check(self, what: str) -> None:
        if self._error_number is None:
            return
        is_due = self._countdown.is_due(what)
        if is_due or (self.has_failed and self._is_lasting):
            self.has_failed = True
            raise OSError(self._error_number, os.strerror(self._error_number))
