# SPDX-License-Identifier: Apache-2.0
"""Whether two repositories are of one family: what is stored in either is then valid in the other, byte for byte."""

from __future__ import annotations

from deltaimg.errors import FamilyConflict
from deltaimg.repo.repository import Repository


def is_same_family(repository: Repository, other: Repository) -> bool:
    """Return whether two repositories share the key of their digests.

    Raises:
        FamilyConflict: they say that they are one repository, or of one family, and have different keys.
    """
    mine, theirs = repository.config, other.config
    if repository.digest_key == other.digest_key:
        return True
    shared = "id" if mine.repository_id == theirs.repository_id else "family"
    if shared == "id" or mine.family_id == theirs.family_id:
        raise FamilyConflict(repository.objects.location, other.objects.location, shared, mine.family_id)
    return False
