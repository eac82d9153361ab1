# SPDX-License-Identifier: Apache-2.0
"""What every store does that keeps copies of objects on this host: it forgets the copy before an object changes or goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from deltaimg.errors import StoreError
from deltaimg.store.interface import Confirm, Parts, Store, always
from deltaimg.store.wrapped import WrappedStore


class KeptCopies(Protocol):
    """Copies of objects on this host."""

    def remove(self, name: str) -> None:
        """Forget an object; any name will do."""
        ...

    def trim(self) -> None:
        """Keep to the budget, if this process has added something."""
        ...


class CopiesStore(WrappedStore):
    """Forgets copies as its objects change; what is kept, and read from there, its subclasses say."""

    def __init__(self, inner: Store, copies: KeptCopies) -> None:
        super().__init__(inner)
        self._copies = copies

    def close(self) -> None:
        self._copies.trim()
        self.inner.close()

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        self._copies.remove(name)
        return self.inner.replace(name, parts, confirm)

    def move(self, name: str, new_name: str) -> None:
        self._copies.remove(name)
        self.inner.move(name, new_name)

    def delete(self, name: str) -> None:
        self._copies.remove(name)
        self.inner.delete(name)

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        for name in names:
            self._copies.remove(name)
        return self.inner.delete_many(names)

    def drop_copy(self, name: str) -> None:
        self._copies.remove(name)
        super().drop_copy(name)
