# SPDX-License-Identifier: Apache-2.0
"""Forgetting without a policy, and stores that let somebody else in at a certain moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from deltaimg.errors import DeltaimgError
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MAPS
from deltaimg.repo.chain import encode_map, resolve_map
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.slots import SlotTable
from deltaimg.store.interface import Store, always
from tests.support.images import ImageSource, SyntheticImage
from tests.support.wrapping import WrappedStore


def list_manifests(repository: Repository) -> list[Manifest]:
    """Return all manifests; raises the first error."""
    manifests = []
    for each in repository.load_manifests():
        if isinstance(each, DeltaimgError):
            raise each
        manifests.append(each)
    return manifests


def keep_only(repository: Repository, kept: Iterable[str]) -> None:
    """Forget all snapshots but those with these ids, which get full maps."""
    wanted = set(kept)
    manifests = list_manifests(repository)
    for manifest in manifests:
        if manifest.id in wanted and not manifest.map_is_full:
            table = SlotTable(repository, load_index(repository))
            resolved = resolve_map(repository, manifest, table)
            data, _ = encode_map(table, resolved.runs, None, resolved.block_count)
            name, _ = repository.put_object(MAPS, [data])
            repository.replace_manifest(
                msgspec.structs.replace(manifest, map=name, map_is_full=True, base=None), always
            )
    for manifest in manifests:
        if manifest.id not in wanted:
            repository.remove_snapshot(SnapshotRef.of(manifest))


class PausedSource(ImageSource):
    """An image whose backup is held half way, lock and all, while `meanwhile` runs, once."""

    def __init__(self, image: SyntheticImage, meanwhile: Callable[[], object]) -> None:
        super().__init__(image)
        self._meanwhile: Callable[[], object] | None = meanwhile

    def has_changed(self) -> bool:
        if self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        return super().has_changed()


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
