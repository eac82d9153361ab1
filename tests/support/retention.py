# SPDX-License-Identifier: Apache-2.0
"""Forgetting without a policy, and stores that let somebody else in at a certain moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from deltaimg.format.manifest import Manifest
from deltaimg.repo.repository import Repository
from deltaimg.repo.snapshots import DamagedSnapshot, load_snapshots
from deltaimg.store.interface import Store
from tests.support.images import SyntheticImage, SyntheticSource
from tests.support.wrapping import WrappedStore


def list_manifests(repository: Repository) -> list[Manifest]:
    """Return all manifests; raises the first error."""
    manifests = []
    for each in load_snapshots(repository):
        if isinstance(each, DamagedSnapshot):
            raise each.error
        manifests.append(each.manifest)
    return manifests


def keep_only(repository: Repository, kept: Iterable[str]) -> None:
    """Forget all snapshots but those with these ids."""
    wanted = set(kept)
    for ref in repository.list_snapshots():
        if ref.id not in wanted:
            repository.remove_snapshot(ref)


class PausedSource(SyntheticSource):
    """An image whose backup is held half way, lock and all, while `meanwhile` runs, once."""

    def __init__(self, image: SyntheticImage, meanwhile: Callable[[], object]) -> None:
        super().__init__(image)
        self._meanwhile: Callable[[], object] | None = meanwhile

    def find_change(self) -> str | None:
        if self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        return super().find_change()


class HookedStore(WrappedStore):
    """Runs `meanwhile` once, just before the first call that begins with `call`, such as `put index/`."""

    def __init__(self, inner: Store, call: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(inner)
        self._call = call
        self._meanwhile: Callable[[], object] | None = meanwhile

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        if self._meanwhile is not None and call.startswith(self._call):
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        yield
