# SPDX-License-Identifier: Apache-2.0
"""What this host can do, and what backups of its images would."""

from __future__ import annotations

import os

from deltaimg.api.cache import find_cache_folder
from deltaimg.domains.find import find_domain
from deltaimg.engine.doctor.finding import Finding as Finding
from deltaimg.engine.doctor.host import examine_host as examine
from deltaimg.engine.doctor.image import ImageOutlook as ImageOutlook
from deltaimg.engine.doctor.image import examine_image, list_images
from deltaimg.engine.doctor.repository import examine_repository as examine_open
from deltaimg.errors import DeltaimgError, GuestUnusable
from deltaimg.image.nbd.address import is_nbd_address
from deltaimg.repo.repository import Repository


def examine_host() -> list[Finding]:
    """Return what this host can do: kernel, memory, permissions, programs, extras."""
    return examine(find_cache_folder())


def examine_repository(repository: Repository) -> list[Finding]:
    """Return what is known of a repository without reading its content."""
    return examine_open(repository)


def examine_images(
    subject: str | None, repository: Repository | None = None
) -> tuple[list[ImageOutlook], list[tuple[str, DeltaimgError | str]]]:
    """Return what backups could do, and those that were not looked at, with the reason.

    Args:
        subject: a path; else an image, a group or a guest by its name; None for all images of the repository.

    Raises:
        ImageError: the path cannot be read. GuestUnusable: there is no guest of that name.
    """
    chosen, problems = _choose(subject, repository)
    outlooks = []
    for image, path in chosen:
        try:
            outlooks.append(examine_image(path, image, repository))
        except DeltaimgError as error:
            if subject is not None and len(chosen) == 1:
                raise
            problems.append((path, error))
    return outlooks, problems


def _choose(
    subject: str | None, repository: Repository | None
) -> tuple[list[tuple[str, str]], list[tuple[str, DeltaimgError | str]]]:
    """Return the names and paths of images, and what of a guest has no path here."""
    if subject is None:
        return ([] if repository is None else list(list_images(repository).items())), []
    if is_nbd_address(subject) or "/" in subject or os.path.lexists(subject):
        known = [] if repository is None or is_nbd_address(subject) else list(list_images(repository, subject).items())
        return known or [("", subject)], []
    known = [] if repository is None else list(list_images(repository).items())
    named = [(image, path) for image, path in known if image == subject or image.startswith(f"{subject}.")]
    if named:
        return named, []
    try:
        domain = find_domain(subject)
    except GuestUnusable as error:
        also = "" if repository is None else f", no image in {repository.objects.location}"
        raise GuestUnusable(
            subject, f"is no file here{also}; as a guest it {error.problem}", hint=error.hint
        ) from error
    names = {path: image for image, path in known}
    found: list[tuple[str, str]] = []
    problems: list[tuple[str, DeltaimgError | str]] = []
    for disk in domain.disks:
        if disk.path is None or disk.is_removable:
            problems.append((disk.name, disk.problem or "is removable, and left out of backups"))
        else:
            found.append((names.get(disk.path, ""), disk.path))
    return found, problems
