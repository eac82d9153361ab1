# SPDX-License-Identifier: Apache-2.0
"""What a repository allows, as its listing and its store say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress

from deltaimg.engine.doctor.finding import Finding
from deltaimg.model import GIB
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.repository import Repository

_LEAST_FREE_BYTES = GIB


def examine_repository(repository: Repository) -> list[Finding]:
    """Return what was found of a repository that is open; raises StoreError where it can no longer be read."""
    return list(_examine(repository))


def _examine(repository: Repository) -> Iterator[Finding]:
    properties = repository.objects.properties
    refs = repository.list_snapshots()
    images = len({ref.image for ref in refs})
    where = "over a network" if properties.is_remote else "on this host"
    yield Finding("repository", True, f"reachable {where}; images: {images}, snapshots: {len(refs)}")
    encryption = (repository.config.encryption or "no") + (", padded" if repository.config.is_padded else "")
    yield Finding("encryption", repository.config.is_encrypted, encryption, _explain_encryption(repository))
    if properties.folder is not None:
        with suppress(OSError):
            free_bytes = shutil.disk_usage(properties.folder).free
            is_enough = free_bytes >= _LEAST_FREE_BYTES
            hint = "" if is_enough else "'deltaimg forget' and 'deltaimg prune' free space"
            yield Finding("room", is_enough, f"{free_bytes / GIB:.1f} GiB free", hint)
    locks = list_locks(repository.objects)
    hint = "'deltaimg unlock' lists them" if locks else ""
    yield Finding("locks", not locks, f"{len(locks)} held" if locks else "none held", hint)


def _explain_encryption(repository: Repository) -> str:
    return "" if repository.config.is_encrypted else "'deltaimg init --encryption passphrase --like' and 'sync' add it"
