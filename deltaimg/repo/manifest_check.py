# SPDX-License-Identifier: Apache-2.0
"""Refuse manifests of write-only hosts that are not what they were: what `Repository.load_manifest` asks."""

from __future__ import annotations

from deltaimg.errors import SealBroken
from deltaimg.format.roster import Roster
from deltaimg.format.sealing import find_host
from deltaimg.repo.host_manifests import find_refusal, list_hosts
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.rosters import has_rosters, load_newest


class ManifestCheck:
    """Refuses manifests of write-only hosts that no holder of the secret should take; one for each open repository.

    The rosters and hosts of when it was asked first will do: what was recorded since, was new then.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._rosters: dict[str, Roster | None] = {}
        self._hosts: set[str] | None = None

    def check(self, ref: SnapshotRef, data: bytes) -> None:
        """Raise SealBroken for a manifest of a write-only host that is not what it was, or came after its key was removed.

        Args:
            data: its stored bytes.
        """
        if not find_host(data) or not has_rosters(self._repository):
            return
        if ref.image not in self._rosters:
            self._rosters[ref.image] = load_newest(self._repository, ref.image).roster
        if self._hosts is None:
            self._hosts = list_hosts(self._repository.objects)
        if problem := find_refusal(self._rosters[ref.image], ref.id, data, self._hosts):
            raise SealBroken(ref.object_name, 0, problem)
