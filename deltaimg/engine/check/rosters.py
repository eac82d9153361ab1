# SPDX-License-Identifier: Apache-2.0
"""Snapshots that are withheld or were put back, by rosters and by what this host has seen: a part of `check`."""

from __future__ import annotations

from datetime import datetime

from deltaimg.engine.check.findings import FindingKind, Findings
from deltaimg.format.config import CONFIG_NAME
from deltaimg.repo.host_places import accept_exchange, find_exchange
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository
from deltaimg.repo.roster_record import Changes, record
from deltaimg.repo.rosters import find_disagreements, has_rosters, list_roster_images


def note_rosters(repository: Repository, findings: Findings, now: datetime) -> None:
    """Note how each image's snapshots differ from those recorded, and from what this host has seen."""
    if (problem := find_exchange(repository)) is not None:
        findings.add_error(FindingKind.WITHHELD, CONFIG_NAME, problem)
    for image in _list_images(repository):
        for each in find_disagreements(repository, image, now):
            if each.is_loss:
                findings.add_error(FindingKind.WITHHELD, each.object_name, each.problem)
            else:
                findings.add_warning(FindingKind.CONTRADICTORY, each.object_name, each.problem)


def accept_state(repository: Repository, now: datetime) -> list[str]:
    """Record the snapshots that there are, and return what was wrong until then; nothing where nothing was.

    Raises:
        RepositoryLocked: another process works on an image of which something is wrong.
    """
    accepted = []
    if (problem := find_exchange(repository)) is not None:
        accept_exchange(repository, now)
        accepted.append(f"{CONFIG_NAME}: {problem}")
    for image in _list_images(repository):
        if not find_disagreements(repository, image, now):
            continue
        with ImageLock(repository, image, "check --accept-state", now) as lock:
            found = find_disagreements(repository, image, now)
            record(repository, lock, now, Changes(is_accepting=True))
        accepted += [f"{each.object_name}: {each.problem}" for each in found]
    return accepted


def _list_images(repository: Repository) -> list[str]:
    if not has_rosters(repository):
        return []
    there = {ref.image for ref in (*repository.list_snapshots(), *repository.list_quarantined())}
    return sorted(there | list_roster_images(repository))
