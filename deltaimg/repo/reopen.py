# SPDX-License-Identifier: Apache-2.0
"""Open a repository in another process, on this host or another, that works for a run of this one.

The process takes no lock: whoever gives it work holds one for as long as it does.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from deltaimg.errors import ClusterFailed
from deltaimg.processes import name_own_process
from deltaimg.repo.repository import Repository
from deltaimg.store.open import open_store

_open: dict[Place, Repository] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a repository is, and which it must be."""

    location: str
    repository_id: str

    @classmethod
    def of(cls, repository: Repository) -> Place:
        """Return the place of an open repository; its folder by an absolute path."""
        folder = repository.objects.properties.folder
        location = repository.objects.location if folder is None else os.path.realpath(folder)
        return cls(location, repository.config.repository_id)

    def open(self) -> Repository:
        """Return the repository, which this process opens once.

        Raises:
            ClusterFailed: another repository is at this place, as seen from here.
        """
        with _lock:
            found = _open.get(self)
            if found is None:
                found = Repository.open(open_store(self.location, writer=name_own_process))
                if found.config.repository_id != self.repository_id:
                    raise ClusterFailed(self.location, "a worker sees another repository there")
                _open[self] = found
            return found
