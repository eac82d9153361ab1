# SPDX-License-Identifier: Apache-2.0
"""Locks, unfinished work and quarantined objects of a repository: a part of `check`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from deltaimg.engine.check.findings import FindingKind, Findings, Severity
from deltaimg.errors import IntegrityError, ObjectNotFound, StoreError, UnsupportedFormat
from deltaimg.format.manifest import SNAPSHOTS
from deltaimg.repo.deletions import PendingDeletion, load_deletions, object_names
from deltaimg.repo.keys import QUARANTINE
from deltaimg.repo.lock_holder import list_locks
from deltaimg.repo.object_kinds import VERIFIED, VERIFIED_NAME
from deltaimg.repo.repository import Repository


def note_foreign(repository: Repository, findings: Findings) -> None:
    """Warn of what is no object of a repository, in every folder of it."""
    for _ in repository.objects.list(""):
        pass
    for name, what in sorted(repository.objects.foreign.items()):
        findings.add_warning(FindingKind.FOREIGN, name, f"{what} that is not deltaimg's, and is ignored")


def note_vanished(vanished: Mapping[str, datetime], findings: Findings) -> None:
    """Report the images that have lost snapshots without a forget of this host, and when these were last seen."""
    for image, seen in vanished.items():
        problem = f"snapshots that were there on {seen:%Y-%m-%d} are not, and this host has not forgotten them"
        findings.add_error(FindingKind.MISSING, f"{SNAPSHOTS}{image}/", problem)


def note_state(repository: Repository, findings: Findings, pending: list[PendingDeletion], own_token: str) -> None:
    """Note locks, unfinished work and quarantined objects; none of it is an error.

    Args:
        pending: what was pending deletion before the check began. own_token: of the lock of this run.
    """
    for listed in pending:
        findings.excuse(set(object_names(listed.objects)))
    _note_locks(repository, findings, own_token)
    _note_deletions(repository, findings)
    for each in repository.objects.list_unfinished():
        problem = f"{each.size_bytes} bytes of an object that is being written, or of a run that died"
        findings.add_note(FindingKind.UNFINISHED, each.name, problem)
    for found in repository.objects.list(QUARANTINE):
        findings.add_warning(
            FindingKind.QUARANTINE,
            found.name,
            "was damaged and quarantined by a repair; delete it when it is no longer needed",
        )
    if repository.is_locked:
        return
    try:
        repository.objects.get(VERIFIED, VERIFIED_NAME)
    except ObjectNotFound:
        pass
    except (IntegrityError, StoreError, UnsupportedFormat) as error:
        findings.add_failure(VERIFIED_NAME, error, Severity.WARNING)


def _note_locks(repository: Repository, findings: Findings, own_token: str) -> None:
    for found in list_locks(repository.objects):
        if found.token == own_token:
            continue
        if found.error is not None:
            findings.add_failure(found.name, found.error, Severity.WARNING)
        elif found.is_dead:
            problem = f"was left by {found.describe()}, which is dead; the next run that needs it removes it"
            findings.add_note(FindingKind.LOCK, found.name, problem)
        else:
            findings.add_note(FindingKind.LOCK, found.name, f"is held by {found.describe()}")


def _note_deletions(repository: Repository, findings: Findings) -> None:
    pending = load_deletions(repository, lambda name, error: findings.add_failure(name, error, Severity.WARNING))
    for each in pending:
        names = object_names(each.objects)
        findings.excuse(set(names))
        findings.add_note(
            FindingKind.UNFINISHED, each.objects.object_name, f"{len(names)} objects that the next prune deletes"
        )
