# SPDX-License-Identifier: Apache-2.0
"""Which content was verified when: kept in the repository from one `verify` to the next.

Always  this is information for users, and for the choice of what to read next: nothing is trusted or deleted because of it.
        If it cannot be read it is started again; if it cannot be written, the next `verify` reads the same content again.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.errors import DeltaimgError, IntegrityError, ObjectNotFound, StoreError, UnsupportedFormat
from deltaimg.format.manifest import count_microseconds, from_microseconds
from deltaimg.format.record import RECORD_HEADER_BYTES
from deltaimg.format.verified import VerifiedObject
from deltaimg.model import CLOCK_SKEW
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.object_kinds import VERIFIED, VERIFIED_NAME
from deltaimg.repo.repository import Repository

NEVER = -1


class VerifiedSummary(Struct, frozen=True):
    """What share of the repository's content was ever verified, and since when; shares of what is stored, 0 to 100."""

    verified_since: datetime | None
    """The oldest time of all content that was ever verified."""
    never_percent: float
    run_percent: float
    """Verified by this run."""


class VerifiedShare:
    """The packs of an index, by number: how much is in each, and when its content was last verified."""

    def __init__(self, repository: Repository, index: LoadedIndex) -> None:
        self._repository = repository
        self._names = sorted(set(index.packs))
        numbers = {name: number for number, name in enumerate(self._names)}
        self._number_of = np.array([numbers[name] for name in index.packs], np.int64)
        self.pack_of: npt.NDArray[np.int64] = self._number_of[index.entries["pack"]]
        """The pack of each entry of the index. A pack that several index objects list is one."""
        stored = index.entries["payload_bytes"].astype(np.int64) + RECORD_HEADER_BYTES
        self.stored_bytes = np.bincount(self.pack_of, stored, len(self._names)).astype(np.int64)
        self.damage: DeltaimgError | None = None
        self._digests = np.frombuffer(bytes.fromhex("".join(self._names)), np.uint8).reshape(-1, 32)
        known = self._load()
        self._verified_us = np.full(len(self._names), NEVER, np.int64) if known is None else known.find(self._digests)
        self._is_verified_now = np.zeros(len(self._names), np.bool_)

    def _load(self) -> VerifiedObject | None:
        try:
            return self._repository.objects.get(VERIFIED, VERIFIED_NAME)
        except ObjectNotFound:
            return None
        except (IntegrityError, UnsupportedFormat, StoreError) as error:
            self.damage = error
            return None

    def choose(
        self, percent: float, among: npt.NDArray[np.bool_], tie_break: npt.NDArray[np.float64], now: datetime
    ) -> npt.NDArray[np.int64]:
        """Return numbers of packs that hold at least `percent` of what those `among` hold, those first that waited longest.

        Run after run with the same `percent`, all packs have their turn within 100 / `percent` runs, rounded up, as long
        as no new ones come before them. What was verified in the future, since a clock was ahead or is behind now, comes first:
        else it would have no turn until then.

        Args:
            tie_break: a number for each pack, in whose order those are taken that were verified at the same time.
        """
        numbers = np.flatnonzero(among)
        verified_us = self._verified_us[numbers]
        verified_us[verified_us > count_microseconds(now + CLOCK_SKEW)] = NEVER
        numbers = numbers[np.lexsort((tie_break[numbers], verified_us))]
        reached = np.cumsum(self.stored_bytes[numbers])
        wanted = percent / 100 * (int(reached[-1]) if len(reached) else 0)
        return numbers[: int(np.searchsorted(reached, wanted, side="left")) + 1]

    def note(self, is_verified: npt.NDArray[np.bool_], now: datetime) -> None:
        """Enter packs whose content has just been verified, all of it that any snapshot needs."""
        self._verified_us[is_verified] = count_microseconds(now)
        self._is_verified_now |= is_verified

    def save(self) -> None:
        """Keep it for the next run; raises StoreError. Deleted packs are left out."""
        is_known = self._verified_us != NEVER
        known = VerifiedObject(self._digests[is_known], self._verified_us[is_known].astype(np.uint64))
        self._repository.objects.replace(VERIFIED, VERIFIED_NAME, known)

    def summarise(self) -> VerifiedSummary:
        """Return what share of the content was verified, and since when."""
        total = max(1, int(self.stored_bytes.sum()))
        is_ever = self._verified_us != NEVER
        oldest = int(self._verified_us[is_ever].min()) if is_ever.any() else None
        return VerifiedSummary(
            verified_since=None if oldest is None else from_microseconds(oldest),
            never_percent=100 * int(self.stored_bytes[~is_ever].sum()) / total,
            run_percent=100 * int(self.stored_bytes[self._is_verified_now].sum()) / total,
        )
