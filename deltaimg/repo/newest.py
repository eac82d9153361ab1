# SPDX-License-Identifier: Apache-2.0
"""The newest snapshots of all images, or of some: what a host is rebuilt from.

An image that is in a group counts with the group: the newest complete snapshot of it is taken, so that its disks are of one
moment. A disk that has left the group counts by itself.

Always  a damaged snapshot is never replaced by an older one: it is named, as `vm1@latest` is an error then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct, field

from deltaimg.errors import DeltaimgError, GroupIncomplete, IntegrityError, SnapshotNotFound
from deltaimg.format.manifest import name_member
from deltaimg.repo.groups import GroupSnapshot, load_moments
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.selector import check_image_name
from deltaimg.repo.snapshots import Snapshot, is_of_one_snapshot, load_snapshot


class Newest(Struct):
    """What there is of some images."""

    groups: list[GroupSnapshot] = field(default_factory=list)
    """Each of them complete."""
    alone: list[Snapshot] = field(default_factory=list)
    """Of images that are in no group."""
    failed: dict[str, DeltaimgError] = field(default_factory=dict)
    """What cannot be read, by the name of the image or group."""


def find_newest(repository: Repository, names: Sequence[str], warn: Callable[[str], None]) -> Newest:
    """Return the newest snapshots of some images and groups, or of all.

    Args:
        names: of images and groups, a member standing for its group; all, where there are none.
        warn: called where something newer is left out, because it is of another moment than the rest of its group.

    Raises:
        SnapshotNotFound: there are no snapshots, or none of a name. UsageError: it can be none of an image.
    """
    refs, quarantined = repository.list_snapshots(), repository.list_quarantined()
    newest = {ref.image: ref for ref in sorted({*refs, *quarantined})}
    if not newest:
        raise SnapshotNotFound("latest", hint="the repository holds no snapshot yet")
    found = Newest()
    loaded = _load(repository, _choose(newest, names), found.failed)
    for name in _list_groups(loaded, names):
        try:
            of_group = [ref for ref in refs if _is_of(name, ref.image)]
            group, skipped = _find_complete(repository, name, of_group, quarantined, warn)
        except DeltaimgError as error:
            if not is_of_one_snapshot(error):
                raise
            found.failed[name] = error
            continue
        found.groups.append(group)
        for image in group.group.members:
            ref = newest[image]
            if ref.time > group.time and ref.time not in skipped:
                warn(f"{ref.label} is newer than {group.label}, and left out: all disks of a group are of one moment")
            found.failed.pop(image, None)
    grouped = {image for group in found.groups for image in group.group.members}
    for image, each in loaded.items():
        own = each.manifest.group
        is_named = not names or image in names or (own is not None and own.name in names)
        if is_named and image not in grouped and (own is None or own.name not in found.failed):
            found.alone.append(each)
    there = {*(each.manifest.image for each in found.alone), *(group.group.name for group in found.groups), *grouped}
    for name in names:
        if name not in there and not any(_is_of(name, failed) for failed in found.failed):
            raise SnapshotNotFound(name)
    return found


def _list_groups(loaded: Mapping[str, Snapshot], names: Sequence[str]) -> list[str]:
    """Return the groups that snapshots are in, as far as these names mean them: their own, or that of an image."""
    groups = {image: each.manifest.group.name for image, each in loaded.items() if each.manifest.group is not None}
    return sorted({name for image, name in groups.items() if not names or image in names or name in names})


def _is_of(name: str, other: str) -> bool:
    """Return whether `other` is called so, or as a member of a group that is."""
    return other == name or other.startswith(name_member(name, ""))


def _choose(newest: Mapping[str, SnapshotRef], names: Sequence[str]) -> list[SnapshotRef]:
    """Return those of the newest snapshots that are of images with these names, or may be of groups that have them.

    Raises:
        SnapshotNotFound, UsageError.
    """
    chosen: dict[SnapshotRef, None] = {}
    for name in names:
        check_image_name(name)
        fitting = [ref for image, ref in newest.items() if _is_of(name, image)]
        if not fitting:
            raise SnapshotNotFound(name)
        chosen |= dict.fromkeys(fitting)
    return list(chosen) if names else list(newest.values())


def _load(repository: Repository, refs: Sequence[SnapshotRef], failed: dict[str, DeltaimgError]) -> dict[str, Snapshot]:
    """Return snapshots by image; those that cannot be read become part of `failed`."""
    loaded = {}
    with repository.objects.reading_ahead(ref.object_name for ref in refs):
        for ref in refs:
            try:
                loaded[ref.image] = load_snapshot(repository, ref)
            except DeltaimgError as error:
                if not is_of_one_snapshot(error):
                    raise
                failed[ref.image] = error
    return loaded


def _find_complete(
    repository: Repository,
    name: str,
    refs: Sequence[SnapshotRef],
    quarantined: Collection[SnapshotRef],
    warn: Callable[[str], None],
) -> tuple[GroupSnapshot, set[str]]:
    """Return the newest complete snapshot of a group, and the times of incomplete ones that are newer.

    Args:
        refs: snapshots of images that may be its members. quarantined: those of all images that are in quarantine.

    Raises:
        IntegrityError, UnsupportedFormat: a newer one is damaged. GroupIncomplete: there is none.
    """
    skipped: list[GroupSnapshot] = []
    for found in load_moments(repository, refs, name):
        if isinstance(found, IntegrityError):
            raise found
        for ref in quarantined:
            if ref.image in found.missing and ref.time == found.time:
                load_snapshot(repository, ref)
        if found.missing:
            skipped.append(found)
            continue
        if skipped:
            taken_at = found.snapshots[0].ref.taken_at
            warn(f"{_make_incomplete(skipped[0])}; {found.label} of {taken_at:%Y-%m-%d %H:%M} (UTC) is taken instead")
        return found, {each.time for each in skipped}
    if skipped:
        raise _make_incomplete(skipped[0])
    raise SnapshotNotFound(name)


def _make_incomplete(found: GroupSnapshot) -> GroupIncomplete:
    return GroupIncomplete(found.label, found.missing, [each.label for each in found.snapshots])
