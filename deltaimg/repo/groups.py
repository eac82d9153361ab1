# SPDX-License-Identifier: Apache-2.0
"""Groups: images that were backed up together, each called `<group>.<disk>`.

A snapshot of a group is all snapshots of its members that have one time, and whose manifests name the group. It is whole where
every member is there that these manifests list. One that is not whole was left by a backup, a forget or a sync that was cut
off, or has lost a member; what is there of it are snapshots as any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from deltaimg.errors import DeltaimgError, GroupIncomplete, IntegrityError, SnapshotNotFound, UsageError
from deltaimg.format.manifest import Group, Manifest, find_name_problem, name_member
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.selector import find_by_id, make_too_far_back, parse_back, select_of_image, select_snapshot
from deltaimg.repo.snapshots import Snapshot, is_of_one_snapshot, load_snapshot

CONFIG_DISK = "config"
"""What the configuration of a guest is called among the disks of its group."""


class GroupSnapshot(Struct, frozen=True):
    """A group at one moment."""

    group: Group
    time: str
    snapshots: tuple[Snapshot, ...]
    """Of the members that are there and can be read, in the order of `group.members`; never empty."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The images of members without a snapshot of this moment that can be read."""
        there = {each.manifest.image for each in self.snapshots}
        return tuple(image for image in self.group.members if image not in there)

    @property
    def label(self) -> str:
        """As people name it: the group, `@`, and the id of its first member that is there."""
        return f"{self.group.name}@{self.snapshots[0].manifest.id[:8]}"

    @property
    def disks(self) -> tuple[str, ...]:
        """What its members are called in the group, those that are missing included."""
        return tuple(image.removeprefix(name_member(self.group.name, "")) for image in self.group.members)

    def name_disk(self, manifest: Manifest) -> str:
        """Return what a member is called in its group."""
        return manifest.image.removeprefix(name_member(self.group.name, ""))

    def find(self, disk: str) -> Snapshot | None:
        """Return the snapshot of a member by its name in the group."""
        image = name_member(self.group.name, disk)
        return next((each for each in self.snapshots if each.manifest.image == image), None)

    def check_whole(self) -> None:
        """Raise GroupIncomplete if members are missing."""
        if self.missing:
            raise GroupIncomplete(self.label, self.missing, [each.label for each in self.snapshots])


def check_group_name(name: str) -> str:
    """Return `name` if it can name a group; raises UsageError."""
    if problem := find_name_problem(name):
        raise UsageError(f"group name {name[:60]!r} {problem}", hint="as the name of an image: web1, for example")
    return name


def find_missing(manifest: Manifest, there: Collection[tuple[str, str]]) -> tuple[str, ...]:
    """Return the images of which a snapshot's group has none of the same moment; nothing of one that is in no group.

    Args:
        there: image and time of all snapshots that count.
    """
    group = manifest.group
    return () if group is None else tuple(each for each in group.members if (each, manifest.time) not in there)


def add_siblings(
    chosen: Collection[SnapshotRef], groups: Mapping[SnapshotRef, Group], refs: Collection[SnapshotRef]
) -> set[SnapshotRef]:
    """Return some snapshots, with those that belong to the same snapshots of groups.

    Args:
        groups: of those that are in one. refs: those that may be added.
    """
    moments = {(image, ref.time) for ref in chosen if ref in groups for image in groups[ref].members}
    return {*chosen, *(ref for ref in refs if (ref.image, ref.time) in moments)}


def expand_images(repository: Repository, names: Sequence[str]) -> list[str]:
    """Return names of images, with those of all members for one that is a group's or a member's; others stay as they are."""
    images = {ref.image for ref in repository.list_snapshots()}
    wanted: dict[str, None] = {}
    for name in names:
        wanted |= dict.fromkeys(_list_members(repository, name, images) or [name])
    return list(wanted)


def list_group_images(repository: Repository, name: str) -> list[str]:
    """Return the images that are members of the group of this name now."""
    return [each for each in expand_images(repository, [name]) if each != name]


def select_group(repository: Repository, selector: str) -> GroupSnapshot:
    """Return the snapshot of a group that `selector` means: as of an image, with the name of the group or of a member.

    Raises:
        SnapshotNotFound, AmbiguousSnapshot. UsageError: it means an image that is in no group. IntegrityError: a manifest is
        damaged.
    """
    name, at, moment = selector.rpartition("@")
    if not at:
        name, tilde, count = selector.partition("~")
        moment = f"latest{tilde}{count}"
    refs = repository.list_snapshots()
    of_group = [ref for ref in refs if ref.image.startswith(name_member(name, ""))]
    back = parse_back(moment)
    found = (
        _select_by_moment(repository, of_group, selector, name, moment)
        if back is None
        else _go_back(repository, of_group, selector, name, back)
    )
    if found is not None:
        return found
    found = load_member_group(repository, select_snapshot(repository, selector), refs)
    if found is None:
        hint = f"'deltaimg restore {selector} TARGET' restores it"
        raise UsageError(f"'{selector}' is a snapshot of an image that is in no group", hint=hint)
    return found


def select_snapshots(repository: Repository, selector: str) -> list[SnapshotRef]:
    """Return what `selector` means: a snapshot of an image, or those of all members of a group at one moment.

    Raises as `select_snapshot`.
    """
    try:
        return [select_snapshot(repository, selector)]
    except SnapshotNotFound:
        group = find_group(repository, selector)
        if group is None:
            raise
        return [each.ref for each in group.snapshots]


def find_group(repository: Repository, selector: str) -> GroupSnapshot | None:
    """Return the snapshot of a group that `selector` names, and that is none of an image; None where there is none."""
    name = selector.rpartition("@")[0] or selector.partition("~")[0]
    refs = repository.list_snapshots()
    if any(ref.image == name for ref in refs) or not any(ref.image.startswith(name_member(name, "")) for ref in refs):
        return None
    try:
        found = select_group(repository, selector)
    except (SnapshotNotFound, UsageError):
        return None
    return found if found.group.name == name else None


def load_member_group(repository: Repository, ref: SnapshotRef, refs: Sequence[SnapshotRef]) -> GroupSnapshot | None:
    """Return the snapshot of a group that a snapshot is a part of; None of one by itself.

    Args:
        refs: all snapshots that are there.
    """
    group = load_snapshot(repository, ref).manifest.group
    if group is None:
        return None
    return _load(
        repository, group.name, [each for each in refs if each.time == ref.time and each.image in group.members]
    )


def load_moments(
    repository: Repository,
    refs: Sequence[SnapshotRef],
    name: str,
    damaged: dict[SnapshotRef, DeltaimgError] | None = None,
) -> Iterator[GroupSnapshot | DeltaimgError]:
    """Yield the snapshots of the group of this name, newest first; in place of one that is damaged, its error.

    Images that are called so, and backups of a member alone, are left out.

    Args:
        refs: snapshots of images that may be its members.
        damaged: where given, what cannot be read is added to it with its error, and the rest of that moment is yielded, if any.
    """
    of_time: dict[str, list[SnapshotRef]] = {}
    for ref in refs:
        of_time.setdefault(ref.time, []).append(ref)
    for time in sorted(of_time, reverse=True):
        try:
            found = _load(repository, name, of_time[time], damaged)
        except IntegrityError as error:
            yield error
            continue
        if found is not None:
            yield found
        elif damaged is not None:
            yield from [damaged[ref] for ref in of_time[time] if ref in damaged][:1]


def _go_back(
    repository: Repository, refs: Sequence[SnapshotRef], selector: str, name: str, back: int
) -> GroupSnapshot | None:
    """Return the snapshot of a group that is so far back from its newest one; None where it has none.

    What is damaged is counted: else another would be meant.
    """
    count = 0
    for found in load_moments(repository, refs, name):
        if count == back:
            if isinstance(found, DeltaimgError):
                raise found
            return found
        count += 1
    if count:
        raise make_too_far_back(selector, name, count)
    return None


def _select_by_moment(
    repository: Repository, refs: Sequence[SnapshotRef], selector: str, name: str, moment: str
) -> GroupSnapshot | None:
    """Return the snapshot of a group that a date or an id means; None where it has none."""
    while refs:
        by_id = find_by_id(refs, selector, moment)
        by_time = {ref.time: SnapshotRef(name, ref.time, ref.id) for ref in reversed(refs)}
        chosen = (by_id or select_of_image(sorted(by_time.values()), selector, moment)).time
        found = _load(repository, name, [ref for ref in refs if ref.time == chosen])
        if found is not None:
            return found
        # Images that are called so, and are in no group.
        refs = [ref for ref in refs if ref.time != chosen]
    return None


def _load(
    repository: Repository,
    name: str,
    refs: Sequence[SnapshotRef],
    damaged: dict[SnapshotRef, DeltaimgError] | None = None,
) -> GroupSnapshot | None:
    """Return the group of this name that snapshots of one time are of; None if they are of none.

    Args:
        damaged: where given, what cannot be read is added to it, and left out.
    """
    loaded = []
    for ref in refs:
        try:
            loaded.append(load_snapshot(repository, ref))
        except DeltaimgError as error:
            if damaged is None or not is_of_one_snapshot(error):
                raise
            damaged[ref] = error
    members = {each.manifest.image: each for each in loaded if each.manifest.group and each.manifest.group.name == name}
    if not members:
        return None
    first = next(iter(members.values())).manifest
    assert first.group is not None
    snapshots = tuple(
        members[image]
        for image in first.group.members
        if image in members and _is_same(members[image].manifest.group, first.group)
    )
    return GroupSnapshot(first.group, first.time, snapshots)


def _is_same(group: Group | None, other: Group) -> bool:
    return group is not None and (group.name, group.members) == (other.name, other.members)


def _list_members(repository: Repository, name: str, images: Collection[str]) -> list[str]:
    """Return the images of a group, or of the group that an image's newest snapshot is in; none for any other name."""
    candidates = [name] if name in images else sorted(each for each in images if each.startswith(name_member(name, "")))
    members: dict[str, None] = {}
    for image in candidates:
        newest = repository.list_snapshots(image)[-1:]
        group = load_snapshot(repository, newest[0]).manifest.group if newest else None
        if group is not None and (image == name or group.name == name):
            members |= dict.fromkeys(each for each in (image, *group.members) if each in images)
    return list(members)
