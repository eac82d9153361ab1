# SPDX-License-Identifier: Apache-2.0
"""Which snapshots a sync copies, and in which order.

Reads   listings of both repositories; manifests and annotations of the source only where tags, a policy or
        names of groups choose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from itertools import groupby

from msgspec import Struct

from deltaimg.engine.sync.sides import locating
from deltaimg.errors import DeltaimgError, IntegrityError, SnapshotNotFound, UnsupportedFormat, UsageError
from deltaimg.format.manifest import Group, parse_time
from deltaimg.options.keep import Policy, Span
from deltaimg.options.sync import SyncOptions
from deltaimg.repo.groups import add_siblings, expand_images, select_snapshots
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.retention import go_back, plan_policy
from deltaimg.repo.selector import check_image_name
from deltaimg.repo.snapshots import DamagedSnapshot, Snapshot, load_snapshot, load_snapshots


class Failure(Struct, frozen=True):
    """A snapshot that was not copied, and why."""

    ref: SnapshotRef
    error: DeltaimgError


class Batch(Struct, frozen=True):
    """Snapshots of one image in the order in which they are copied, under one lock."""

    image: str
    refs: tuple[SnapshotRef, ...]


class Selection(Struct, frozen=True):
    """What is to be copied."""

    batches: tuple[Batch, ...]
    source: frozenset[SnapshotRef]
    """All snapshots of the source, chosen or not, damaged ones included."""
    there: frozenset[SnapshotRef]
    """All snapshots of the destination; of another family, those of the source that it has."""
    chosen_count: int
    """Snapshots that the options choose, copied before or not."""
    named: frozenset[str] = frozenset()
    """The images that the options name, or snapshots of which, members of groups included; none, where all are meant."""
    damaged: tuple[Failure, ...] = ()
    """Those whose manifests cannot be read, where options ask what is in them."""

    @property
    def there_count(self) -> int:
        """Snapshots that the options choose and the destination has."""
        return self.chosen_count - len(self.refs)

    @property
    def refs(self) -> list[SnapshotRef]:
        """What is to be copied, in order."""
        return [ref for batch in self.batches for ref in batch.refs]


def select(
    source: Repository,
    destination: Repository,
    options: SyncOptions,
    policy: Policy,
    *,
    is_family: bool = True,
    now: datetime | None = None,
    zone: tzinfo | None = None,
) -> Selection:
    """Choose among the snapshots of `source`.

    Args:
        is_family: whether snapshots keep their ids in the destination. Otherwise one of the same image and time is the same.

    Raises:
        SnapshotNotFound: it has no snapshot of an image that is named, or not the one that is. AmbiguousSnapshot. UsageError: a
        name that no image can have; or snapshots are named, and other options choose as well.
    """
    quarantined = source.list_quarantined()
    found = frozenset((*source.list_snapshots(), *quarantined))
    if options.snapshots:
        wanted = _choose_by_name(source, found, options, policy)
        named = {ref.image for ref in wanted}
    else:
        named = _find_images(source, {ref.image for ref in found}, options)
        wanted = [ref for ref in sorted(found) if not named or ref.image in named]
    now = now or datetime.now(UTC)
    if options.since is not None:
        first = go_back(now, options.since, zone) if isinstance(options.since, Span) else options.since
        wanted = [ref for ref in wanted if parse_time(ref.time) >= first]
    damaged: list[Failure] = []
    if options.with_tags or not policy.is_empty:
        wanted = _choose_by_content(source, wanted, options, policy, damaged, now, zone)
    there = frozenset(destination.list_snapshots())
    if not is_family:
        moments = {(ref.image, ref.time) for ref in there}
        there = frozenset(ref for ref in found if (ref.image, ref.time) in moments)
    batches = _arrange([ref for ref in wanted if ref not in there], is_newest_first=options.newest_first)
    return Selection(batches, found, there, len(wanted), frozenset(named), tuple(damaged))


def _find_images(source: Repository, images: Collection[str], options: SyncOptions) -> set[str]:
    """Return the images that the options name, with all members of a group; raises SnapshotNotFound, UsageError."""
    named = expand_images(source, options.images)
    for image in named:
        if check_image_name(image) not in images:
            raise SnapshotNotFound(
                image, hint=f"images in {source.objects.location}: {', '.join(sorted(images)[:8]) or 'none'}"
            )
    return set(named)


def _choose_by_name(
    source: Repository, found: Collection[SnapshotRef], options: SyncOptions, policy: Policy
) -> list[SnapshotRef]:
    """Return the snapshots that are named, with those of the same moment of their groups.

    Args:
        found: all that there are, damaged ones included.

    Raises:
        SnapshotNotFound, AmbiguousSnapshot. UsageError: what they are is also to be chosen by something else.
    """
    others = {
        "--image": bool(options.images),
        "--tag": bool(options.with_tags),
        "--since": options.since is not None,
        "a --keep option": not policy.is_empty,
    }
    for option, is_given in others.items():
        if is_given:
            raise UsageError(f"--snapshot and {option} cannot both be given", hint="leave one of them out")
    chosen: set[SnapshotRef] = set()
    with locating(source):
        for selector in options.snapshots:
            chosen |= set(select_snapshots(source, selector))
        for ref in sorted(chosen):
            # What is damaged, of these or of the same group, is named when it cannot be copied.
            with suppress(IntegrityError, UnsupportedFormat):
                group = load_snapshot(source, ref).manifest.group
                if group is not None:
                    chosen |= add_siblings([ref], {ref: group}, found)
    return sorted(chosen)


def _choose_by_content(
    source: Repository,
    wanted: Sequence[SnapshotRef],
    options: SyncOptions,
    policy: Policy,
    damaged: list[Failure],
    now: datetime,
    zone: tzinfo | None,
) -> list[SnapshotRef]:
    """Return those of `wanted` that the policy keeps of all of their image, and that have the tags; and all of their groups."""
    chosen: list[SnapshotRef] = []
    groups: dict[SnapshotRef, Group] = {}
    allowed = frozenset(wanted)
    for image in sorted({ref.image for ref in wanted}):
        snapshots = list(load_snapshots(source, image))
        kept: Collection[SnapshotRef] = allowed
        if not policy.is_empty:
            kept = frozenset(plan_policy(snapshots, policy, now=now, zone=zone).kept) & allowed
        for each in snapshots:
            if isinstance(each, Snapshot) and each.manifest.group is not None:
                groups[each.ref] = each.manifest.group
            if each.ref not in kept:
                continue
            if isinstance(each, DamagedSnapshot):
                each.error.locate(source.objects.location)
                damaged.append(Failure(each.ref, each.error))
            elif isinstance(each, Snapshot) and set(options.with_tags) <= set(each.tags):
                chosen.append(each.ref)
    return sorted(add_siblings(chosen, groups, groups.keys() & allowed))


def _arrange(refs: Iterable[SnapshotRef], *, is_newest_first: bool) -> tuple[Batch, ...]:
    """Return what is copied image by image, oldest first; or the newest of each image, then the others back in time."""
    by_image = {image: tuple(group) for image, group in groupby(sorted(refs), key=lambda ref: ref.image)}
    if not is_newest_first:
        return tuple(Batch(image, found) for image, found in by_image.items())
    newest = sorted(by_image.items(), key=lambda item: item[1][-1].time, reverse=True)
    first = [Batch(image, found[-1:]) for image, found in newest]
    return (*first, *(Batch(image, found[-2::-1]) for image, found in newest if len(found) > 1))
