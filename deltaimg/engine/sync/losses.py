# SPDX-License-Identifier: Apache-2.0
"""What the source cannot give, and why: it costs the snapshots that need it, and no others."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from deltaimg.engine.sync.sides import locating
from deltaimg.errors import DeltaimgError, IntegrityError, ObjectNotFound, StoreUnavailable, UnsupportedFormat
from deltaimg.format.config import CONFIG_NAME
from deltaimg.ids import EntryNumbers
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.rosters import find_withheld

LOSSES = (IntegrityError, ObjectNotFound, UnsupportedFormat, StoreUnavailable)
"""What the source says of objects that it cannot give. A source that cannot be reached at all is no loss: see `note_loss`."""


class LostRecords:
    """Records that the source does not have whole, with the error of each."""

    def __init__(self, source: Repository, record_count: int) -> None:
        self._source = source
        self._errors: list[DeltaimgError] = []
        self._numbers = np.full(record_count, -1, np.int32)

    def add(self, entries: EntryNumbers, error: DeltaimgError) -> None:
        """Note why some records cannot be read; raises the error if nothing of the source can be read any more."""
        note_loss(self._source, error)
        error.locate(self._source.objects.location)
        self._numbers[entries] = len(self._errors)
        self._errors.append(error)

    def of(self, entries: EntryNumbers) -> EntryNumbers:
        """Return those of some records that are lost."""
        return entries[self._numbers[entries] >= 0]

    def find(self, entries: EntryNumbers) -> DeltaimgError | None:
        """Return why the first of some records that is lost cannot be read, None if none of them is."""
        numbers = self._numbers[entries]
        lost = numbers[numbers >= 0]
        return self._errors[int(lost[0])] if len(lost) else None


def find_gone(source: Repository, refs: Collection[SnapshotRef]) -> set[SnapshotRef]:
    """Return which of some snapshots the source has forgotten; one that it withholds is none of them."""
    gone = set(refs).difference(source.list_snapshots())
    withheld = {image: find_withheld(source, image) for image in {ref.image for ref in gone}}
    return {ref for ref in gone if ref.id not in withheld[ref.image]}


def note_loss(source: Repository, error: DeltaimgError) -> None:
    """Raise an error that is no damage of one object: the source cannot be reached."""
    if isinstance(error, StoreUnavailable):
        with locating(source):
            source.objects.get_bytes(CONFIG_NAME)
