# SPDX-License-Identifier: Apache-2.0
"""The newest roster of an image, the snapshots that are there, and what contradicts what. Nothing here asks a store."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from deltaimg.errors import IntegrityError, UnsupportedFormat
from deltaimg.format.limits import MAX_ROSTER_TRAIL
from deltaimg.format.manifest import SNAPSHOTS, parse_time
from deltaimg.format.roster import ROSTERS, Roster
from deltaimg.repo.host_places import KnownRoster
from deltaimg.repo.repository import SnapshotRef

_NAMED = 3
"""How many snapshots a message names."""


class Disagreement(Struct, frozen=True):
    """Something in the store that contradicts what was recorded or seen."""

    object_name: str
    problem: str
    is_loss: bool
    """Whether something is missing, or older than it was; otherwise it is there, and should not be."""


class NewestRoster(Struct, frozen=True):
    """The newest roster of an image that can be read, if there is any."""

    names: tuple[str, ...]
    """Of all rosters of the image, the oldest first."""
    roster: Roster | None = None
    digest: str = ""
    """digest-16 of its stored bytes."""
    error: IntegrityError | UnsupportedFormat | None = None
    """Of a newer one."""


class RosterState(Struct, frozen=True):
    """What was found of the snapshots of an image; under the image's lock it stays so."""

    newest: NewestRoster
    refs: tuple[SnapshotRef, ...]
    quarantined: tuple[SnapshotRef, ...]

    def list_present(self, committed: Collection[SnapshotRef] = ()) -> list[SnapshotRef]:
        """Return what there is now, in order of time: damaged ones in quarantine, and those that the run committed, too."""
        return sorted({*self.refs, *self.quarantined, *committed})


def compare_with_present(newest: NewestRoster, present: Sequence[SnapshotRef], image: str) -> list[Disagreement]:
    """Return how the snapshots that are there differ from those of the newest roster."""
    found = []
    if newest.error is not None:
        name = newest.error.object_name
        problem = newest.error.problem if isinstance(newest.error, IntegrityError) else str(newest.error)
        found.append(Disagreement(name, problem.removeprefix(f"{name}: "), is_loss=True))
    if newest.roster is None:
        if present and newest.error is None:
            problem = (
                "no roster says which snapshots there are: the first backup was cut off, or the store withholds it"
            )
            found.append(Disagreement(f"{ROSTERS}{image}/", problem, is_loss=False))
        return found
    roster, ids = newest.roster, {ref.id for ref in present}
    when = f"{parse_time(roster.time):%Y-%m-%d %H:%M} UTC"
    if missing := [each for each in roster.snapshots if each not in ids]:
        are = "was there" if len(missing) == 1 else "were there"
        problem = f"{_name(image, missing)} {are} on {when}, and no run has forgotten any since: lost, or withheld"
        found.append(Disagreement(f"{SNAPSHOTS}{image}/", problem, is_loss=True))
    known = {*roster.snapshots, *roster.unsettled}
    for ref in present:
        if ref.id not in known and not is_new(ref, roster):
            problem = f"was not there on {when}: it was forgotten, and the store has put it back"
            found.append(Disagreement(ref.object_name, problem, is_loss=False))
    return found


def _name(image: str, ids: Sequence[str]) -> str:
    labels = [f"{image}@{each[:8]}" for each in ids[-_NAMED:]]
    return ", ".join(labels) + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "")


def is_new(ref: SnapshotRef, roster: Roster) -> bool:
    """Return whether a snapshot that is not in a roster is of a backup that was cut off before it recorded it."""
    return ref.time > (roster.newest_time or "")


def find_contradiction(newest: NewestRoster, known: KnownRoster) -> str | None:
    """Return how the newest roster contradicts the one that this host saw last, or None."""
    if known.problem:
        return known.problem
    seen = f"{parse_time(known.seen):%Y-%m-%d %H:%M} UTC"
    roster = newest.roster
    if roster is None:
        return f"there is no roster, and this host saw one of {known.count} snapshots on {seen}: lost, or withheld by the store"
    if roster.number < known.number:
        return (
            f"is of {parse_time(roster.time):%Y-%m-%d %H:%M} UTC with {len(roster.snapshots)} snapshots, older than the one of "
            f"{known.count} snapshots that this host saw on {seen}: the store was set back, or withholds what is newer"
        )
    is_same = newest.digest == known.digest if roster.number == known.number else known.digest in roster.trail
    if is_same or roster.number - known.number > MAX_ROSTER_TRAIL:
        return None
    return (
        f"does not continue the one of {known.count} snapshots that this host saw on {seen}: the store was set back "
        "and written to since, or shows each host another state"
    )
