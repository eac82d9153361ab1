# SPDX-License-Identifier: Apache-2.0
"""The findings of a check: how severe, of what kind, and in which object at which byte."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct, field
from msgspec.structs import replace

from deltaimg.errors import DeltaimgError, IntegrityError


class Severity(Enum):
    """An error may cost content; a warning costs none, but needs attention; a note is information."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class FindingKind(Enum):
    """What was found."""

    DAMAGED = "damaged"
    """The object's own bytes are not what was written."""
    MISSING = "missing"
    """Something refers to the object, and it is missing."""
    WITHHELD = "withheld"
    """Snapshots that were recorded or seen by this host are not there, or an older state is."""
    CONTRADICTORY = "contradictory"
    """The object is undamaged, and contradicts what it refers to."""
    UNREADABLE = "unreadable"
    """The store failed, so that the object was not checked."""
    ORPHAN = "orphan"
    """Nothing refers to the object: a run that was interrupted or a snapshot that was forgotten left it."""
    UNFINISHED = "unfinished"
    """Work of a run that is active, or was interrupted and is finished by the next one."""
    LOCK = "lock"
    QUARANTINE = "quarantine"
    """A damaged object that `repair` has quarantined."""
    SEALED = "sealed"
    """What was not checked without a key."""
    FOREIGN = "foreign"
    """No object of a repository."""


class Finding(Struct, frozen=True):
    """One thing found; `offset` counts from the start of the object, where there is a place to name."""

    severity: Severity
    kind: FindingKind
    object_name: str
    offset: int | None
    problem: str


class Findings(Struct):
    """Collects findings in the order in which they are made."""

    found: list[Finding] = field(default_factory=list)

    def add_error(self, kind: FindingKind, object_name: str, problem: str, offset: int | None = None) -> None:
        """Note an error: something that snapshots need is damaged or missing."""
        self.found.append(Finding(Severity.ERROR, kind, object_name, offset, problem))

    def add_warning(self, kind: FindingKind, object_name: str, problem: str, offset: int | None = None) -> None:
        """Note a warning: nothing that snapshots need, but worth attention."""
        self.found.append(Finding(Severity.WARNING, kind, object_name, offset, problem))

    def add_note(self, kind: FindingKind, object_name: str, problem: str) -> None:
        """Note something that is in order."""
        self.found.append(Finding(Severity.NOTE, kind, object_name, None, problem))

    def add_failure(self, object_name: str, error: DeltaimgError, severity: Severity = Severity.ERROR) -> None:
        """Note the error of reading an object: damage, or a failed store."""
        is_damage = isinstance(error, IntegrityError)
        offset = error.offset if isinstance(error, IntegrityError) else None
        problem = error.problem if isinstance(error, IntegrityError) else str(error).removeprefix(f"{object_name}: ")
        kind = FindingKind.DAMAGED if is_damage else FindingKind.UNREADABLE
        self.found.append(Finding(severity, kind, object_name, offset, problem))

    def excuse(self, names: set[str]) -> None:
        """Make notes of errors in objects that are about to be deleted: what they need may have been deleted before them."""
        self.found = [
            replace(each, severity=Severity.NOTE, kind=FindingKind.UNFINISHED)
            if each.severity is Severity.ERROR and each.object_name in names
            else each
            for each in self.found
        ]

    def of(self, severity: Severity) -> list[Finding]:
        """Return the findings of one severity."""
        return [each for each in self.found if each.severity is severity]

    def names(self, *kinds: FindingKind) -> set[str]:
        """Return which objects have findings of these kinds."""
        return {each.object_name for each in self.found if each.kind in kinds}


def count_records(count: int) -> str:
    """Return `1 record`, `2 records`."""
    return f"{count} record{'s' * (count != 1)}"
