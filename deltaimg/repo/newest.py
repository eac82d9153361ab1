# SPDX-License-Identifier: Apache-2.0
"""The newest snapshots of all images, or of some: what a host is rebuilt from.

An image that is in a group counts with the group: the newest complete snapshot of it is taken, so that its disks are of one
moment. Where one of them is damaged, the others of that moment are. A disk that has left the group counts by itself.

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
    """Each of them complete, but for what is in `failed`."""
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
        of_group = [ref for ref in refs if _is_of(name, ref.image)]
        try:
            moment = _find_moment(repository, name, of_group, quarantined)
        except DeltaimgError as error:
            if not is_of_one_snapshot(error):
                raise
            found.failed[name] = error
            continue
        moment.warn_of_newer(newest, warn)
        found.groups.append(moment.group)
        for image in moment.group.group.members:
            found.failed.pop(image, None)
        found.failed |= moment.damaged
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


class _Moment(Struct, frozen=True):
    """The snapshot of a group that is taken, what of it is damaged, by image, and the incomplete ones that are newer."""

    group: GroupSnapshot
    damaged: dict[str, DeltaimgError]
    skipped: Sequence[GroupSnapshot]

    def warn_of_newer(self, newest: Mapping[str, SnapshotRef], warn: Callable[[str], None]) -> None:
        """Warn of what is newer and left out: incomplete snapshots of the group, and those of members by themselves."""
        if self.skipped:
            taken_at = self.group.snapshots[0].ref.taken_at
            problem = _make_incomplete(self.skipped[0])
            warn(f"{problem}; {self.group.label} of {taken_at:%Y-%m-%d %H:%M} (UTC) is taken instead")
        times = {each.time for each in self.skipped}
        for image in self.group.group.members:
            ref = newest.get(image)
            if ref is not None and ref.time > self.group.time and ref.time not in times:
                warn(
                    f"{ref.label} is newer than {self.group.label}, and left out: all disks of a group are of one moment"
                )


def _find_moment(
    repository: Repository, name: str, refs: Sequence[SnapshotRef], quarantined: Collection[SnapshotRef]
) -> _Moment:
    """Return the newest snapshot of a group that is complete, or would be, were it not damaged.

    Args:
        refs: snapshots of images that may be its members. quarantined: those of all images that are in quarantine.

    Raises:
        IntegrityError, UnsupportedFormat: a newer one is damaged as a whole. GroupIncomplete: there is none.
    """
    unreadable: dict[SnapshotRef, DeltaimgError] = {}
    skipped: list[GroupSnapshot] = []
    for found in load_moments(repository, refs, name, unreadable):
        if isinstance(found, DeltaimgError):
            raise found
        damaged = {ref.image: error for ref, error in unreadable.items() if _is_missing(ref, found)}
        for ref in quarantined:
            if _is_missing(ref, found) and ref.image not in damaged:
                try:
                    load_snapshot(repository, ref)
                except IntegrityError as error:
                    damaged[ref.image] = error
        if damaged.keys() == set(found.missing):
            return _Moment(found, damaged, skipped)
        skipped.append(found)
    if skipped:
        raise _make_incomplete(skipped[0])
    raise SnapshotNotFound(name)


def _is_missing(ref: SnapshotRef, found: GroupSnapshot) -> bool:
    """Return whether a snapshot is the one that is missing in that of a group."""
    return ref.time == found.time and ref.image in found.missing


def _make_incomplete(found: GroupSnapshot) -> GroupIncomplete:
    return GroupIncomplete(found.label, found.missing, [each.label for each in found.snapshots])
