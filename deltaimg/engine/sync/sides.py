# SPDX-License-Identifier: Apache-2.0
"""Which of the two repositories an error is about: both have objects of the same names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deltaimg.errors import IntegrityError, RepositoryError, SnapshotError, StoreError
from deltaimg.repo.repository import Repository


@contextmanager
def locating(repository: Repository) -> Iterator[None]:
    """Have errors of the block name the repository; of two such blocks, one in the other, the inner one counts."""
    try:
        yield
    except (StoreError, IntegrityError, RepositoryError, SnapshotError) as error:
        error.locate(repository.objects.location)
        raise
