# SPDX-License-Identifier: Apache-2.0
"""Snapshots that this host has seen and that have vanished: they are missing, and it has not forgotten them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from deltaimg.engine.progress import Progress
from deltaimg.engine.roster_changes import warn_of_disagreements, warn_of_exchange
from deltaimg.errors import DeltaimgError, SnapshotsVanished
from deltaimg.format.manifest import name_member
from deltaimg.format.map import MAPS
from deltaimg.format.pack import PACKS
from deltaimg.repo import host_memory
from deltaimg.repo.repository import Repository
from deltaimg.repo.rosters import has_rosters, is_forgotten, list_roster_images


def list_images(repository: Repository) -> set[str]:
    """Return the images that have snapshots, damaged ones and those in quarantine included."""
    return {ref.image for ref in (*repository.list_snapshots(), *repository.list_quarantined())}


def remember_snapshots(repository: Repository, image: str | None = None) -> None:
    """Record on this host which snapshots there are."""
    host_memory.remember(repository.config.repository_id, repository.list_snapshots(image), datetime.now(UTC))


def note_loss(repository: Repository, image: str) -> datetime | None:
    """Return when this host last saw snapshots of an image that has none now, and record that they are lost."""
    if repository.list_snapshots(image) or repository.list_quarantined(image):
        return None
    return host_memory.note_loss(repository.config.repository_id, image)


def forget_images(repository: Repository, images: Collection[str]) -> None:
    """Delete this host's record of snapshots of images."""
    host_memory.forget(repository.config.repository_id, images)


def find_known(repository: Repository) -> frozenset[str]:
    """Return the images of which this host has seen snapshots.

    It has to be read before the snapshots are listed: a backup on this host may store the first one of an image meanwhile.
    """
    return frozenset(host_memory.find_vanished(repository.config.repository_id, ()))


def find_vanished(repository: Repository) -> dict[str, datetime]:
    """Return the images all of whose snapshots have vanished, and when this host last saw one of each."""
    known = find_known(repository)
    return _find_vanished(repository, known, list_images(repository))


def find_vanished_beside(repository: Repository, known: Collection[str], there: Collection[str]) -> dict[str, datetime]:
    """Return the images all of whose snapshots have vanished, as `find_vanished`, without listing them again.

    Args:
        known: what `find_known` returned before the images that are `there` were listed.
    """
    present = {*there, *(ref.image for ref in repository.list_quarantined())} if set(known) - set(there) else there
    return _find_vanished(repository, known, present)


def refuse_vanished(repository: Repository, known: Collection[str], images: Collection[str]) -> None:
    """Raise SnapshotsVanished if images other than `images` had snapshots, or if there is content and no snapshot at all.

    Args:
        known: what `find_known` returned before `images` were listed.
    """
    location = repository.objects.location
    there = {*images, *(ref.image for ref in repository.list_quarantined())}
    vanished = _find_vanished(repository, known, there)
    if vanished:
        image, seen = next(iter(vanished.items()))
        others = len(vanished) - 1
        more = f" (and {others} other{'s' * (others > 1)})" if others else ""
        raise SnapshotsVanished(location, f"image '{image}'{more} had snapshots on {seen:%Y-%m-%d} that are missing")
    if not images and any(any(repository.objects.list(folder)) for folder in (PACKS, MAPS)):
        hint = (
            "is a disk not mounted, or a folder moved? Where a first backup was interrupted, the next one uses what it has "
            "stored; 'deltaimg prune --force' deletes it"
        )
        raise SnapshotsVanished(location, "there is content, but no snapshot that needs it", hint=hint)


def warn_of_missing(repository: Repository, names: Collection[str], progress: Progress) -> None:
    """Warn of what makes that which is there less than the newest of all: images that vanished, snapshots that are withheld.

    Args:
        names: of images and groups that are meant; all, where there are none.
    """
    images = list_images(repository)
    with _warning_of_failure(progress):
        for image, seen in _find_vanished(repository, find_known(repository), images).items():
            if _is_meant(image, names):
                progress.warn(
                    f"image '{image}' had snapshots on {seen:%Y-%m-%d}, and has none now: is a disk not mounted?"
                )
        warn_of_exchange(repository, progress)
        if has_rosters(repository):
            images |= list_roster_images(repository)
    for image in sorted(images):
        if _is_meant(image, names):
            with _warning_of_failure(progress):
                warn_of_disagreements(repository, image, datetime.now(UTC), progress)


@contextmanager
def _warning_of_failure(progress: Progress) -> Iterator[None]:
    """Turn an error of the block into a warning: it must not stop a restore of what is there."""
    try:
        yield
    except DeltaimgError as error:
        progress.warn(f"whether snapshots are missing is not known: {error}")


def _is_meant(image: str, names: Collection[str]) -> bool:
    """Return whether an image is one of those that are named, or may be of a group that is."""
    return not names or any(image == name or image.startswith(name_member(name, "")) for name in names)


def _find_vanished(repository: Repository, known: Collection[str], there: Collection[str]) -> dict[str, datetime]:
    """Return those of `known` that are not there, and when this host last saw them, unless they were forgotten meanwhile."""
    found = host_memory.find_vanished(repository.config.repository_id, there)
    return {image: seen for image, seen in found.items() if image in known and not is_forgotten(repository, image)}
