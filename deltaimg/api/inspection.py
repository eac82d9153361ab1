# SPDX-License-Identifier: Apache-2.0
"""What a snapshot consists of, and what its backup stored."""

from __future__ import annotations

from msgspec import Struct

from deltaimg.engine.inspect.run import SnapshotLayout, inspect_snapshot
from deltaimg.engine.inspect.run import inspect_repository as inspect_repository
from deltaimg.engine.inspect.stored_content import StoredContent, find_stored_content
from deltaimg.format.manifest import Manifest
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository


class SnapshotInspection(Struct, frozen=True):
    """A snapshot's layout, and what its backup stored, None where that is not known."""

    layout: SnapshotLayout
    stored_content: StoredContent | None


def inspect(repository: Repository, manifest: Manifest) -> SnapshotInspection:
    """Return both, from metadata; raises SnapshotError, IntegrityError or StoreError."""
    index = load_index(repository)
    return SnapshotInspection(
        inspect_snapshot(repository, manifest, index), find_stored_content(repository, manifest, index)
    )
