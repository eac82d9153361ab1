# SPDX-License-Identifier: Apache-2.0
"""Open a repository in another process, on this host or another, that works for a run of this one.

The process takes no lock: whoever gives it work holds one for as long as it does. No key travels to it: of an encrypted
repository it can read and write objects, and decode no record.
"""

from __future__ import annotations

import os
import threading

from msgspec import Struct

from deltaimg.errors import ClusterFailed
from deltaimg.format.config import Config
from deltaimg.processes import name_own_process
from deltaimg.repo.objects import Objects
from deltaimg.repo.repository import Repository
from deltaimg.store.open import open_store

_open: dict[RepositoryPlace, _Opened] = {}
_lock = threading.Lock()


class _Opened(Struct, frozen=True):
    """What this process has opened."""

    objects: Objects
    config: Config


class RepositoryPlace(Struct, frozen=True):
    """Where a repository is, and which it must be."""

    location: str
    repository_id: str

    @classmethod
    def of(cls, repository: Repository) -> RepositoryPlace:
        """Return the place of an open repository; its folder by an absolute path."""
        folder = repository.objects.properties.folder
        location = repository.objects.location if folder is None else os.path.realpath(folder)
        return cls(location, repository.config.repository_id)

    def open(self) -> Repository:
        """Return the repository, which is not encrypted, opened once by this process.

        Raises:
            ClusterFailed: another repository is at this place, as seen from here.
        """
        objects = self.open_objects()
        return Repository(objects.store, _open[self].config)

    def open_objects(self) -> Objects:
        """Return the objects of the repository, for what needs no key of it; raises as `open`."""
        with _lock:
            found = _open.get(self)
            if found is None:
                store = open_store(self.location, writer=name_own_process)
                found = _open[self] = _Opened(Objects(store), Repository.read_config(store))
        if found.config.repository_id != self.repository_id:
            raise ClusterFailed(self.location, "a worker sees another repository there")
        return found.objects
