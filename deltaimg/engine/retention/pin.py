# SPDX-License-Identifier: Apache-2.0
"""Pin a snapshot, so that no policy forgets it, and let it go again: one word in its manifest, changed in one step."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from deltaimg.errors import UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository, SnapshotRef

MAX_REASON_CHARACTERS = 200


def set_pin(
    repository: Repository,
    ref: SnapshotRef,
    reason: str | None,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Manifest:
    """Pin a snapshot for a reason, which may be an empty text, or unpin it where that is None; return its manifest.

    Raises:
        UsageError: a reason that is too long or has control characters. RepositoryLocked: somebody works on the image.
    """
    if reason is not None and (len(reason) > MAX_REASON_CHARACTERS or not (reason + "x").isprintable()):
        raise UsageError(
            f"reason {reason[:60]!r} is longer than {MAX_REASON_CHARACTERS} letters or has control characters"
        )
    with ImageLock(repository, ref.image, "pin" if reason is not None else "unpin", clock()) as lock:
        manifest = repository.load_manifest(ref)
        changed = msgspec.structs.replace(manifest, pinned=msgspec.UNSET if reason is None else reason)
        if changed != manifest:
            repository.replace_manifest(changed, lock.check)
        return changed
