# SPDX-License-Identifier: Apache-2.0
"""One backup of a group: its images, read as of one moment, become snapshots together or not at all.

    lock        all images, in the order of their names, so that two runs never wait for each other
    store       image after image, all that its snapshot needs but the manifest
    compare     what was read as it is with what it was at the beginning: nothing may have been written to it
    commit      the manifests, which have one `time`

Always  a snapshot of the group is whole where each member that its manifests list has a snapshot of that time. So a run that
        dies between two manifests leaves an incomplete one, which no reader takes for a whole one.
Always  where the commit of a manifest fails, those before it are removed again.
Memory  as of one backup; and a map for each image, in its manifest's layers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

from msgspec import Struct, field

from deltaimg.engine.backup.new_snapshot import RunStart, revise
from deltaimg.engine.backup.option_checks import check_options
from deltaimg.engine.backup.request import BackupRequest, make_snapshot_id
from deltaimg.engine.backup.run import lock_image, store_content
from deltaimg.engine.backup.source_checks import check_unchanged
from deltaimg.engine.commit import commit_snapshot
from deltaimg.engine.progress import Progress, stage
from deltaimg.engine.roster_changes import record_committed
from deltaimg.errors import DeltaimgError
from deltaimg.format.manifest import Group, Manifest
from deltaimg.freeze.freeze import FrozenGroup, PointInTime
from deltaimg.image.source import ImageSource
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.selector import check_image_name
from deltaimg.threads import delaying_interruption
from deltaimg.tracking.interface import Tracker


class MemberSource(Struct, frozen=True):
    """An image of a group, and what it is read from."""

    image: str
    source: ImageSource
    options: BackupOptions
    point_in_time: PointInTime | None = None
    """None of what cannot change while it is read."""
    tracker: Tracker | None = None
    snapshot: str = field(default_factory=make_snapshot_id)
    """The id that its snapshot will have."""


def back_up_group(
    repository: Repository,
    group: Group,
    members: Sequence[MemberSource],
    frozen: FrozenGroup | None,
    *,
    progress: Progress,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Manifest]:
    """Store images as the newest snapshots of a group's members, and return their manifests in the same order.

    Args:
        group: lists the images of `members`. frozen: ends with the points in time of the members.

    Raises:
        As `run.back_up`; nothing was committed, unless the store fails as it is to take back what was: a warning says so.
    """
    requests = [_make_request(repository, group, each, progress, clock) for each in members]
    start = RunStart.now(clock)
    with ExitStack() as stack:
        locks = {
            each.image: stack.enter_context(lock_image(each)) for each in sorted(requests, key=lambda each: each.image)
        }
        manifests = [store_content(each, locks[each.image], start, _commit_later) for each in requests]
        for each in requests:
            _check_still_unchanged(each)
        if frozen is not None:
            frozen.end_reading()
        with stage(progress, "committing the group"):
            return _commit(requests, locks, _set_moment(requests, manifests))


def _make_request(
    repository: Repository, group: Group, member: MemberSource, progress: Progress, clock: Callable[[], datetime]
) -> BackupRequest:
    check_image_name(member.image)
    check_options(member.options)
    return BackupRequest(
        repository,
        member.source,
        member.image,
        member.options,
        progress,
        clock,
        member.point_in_time,
        member.tracker,
        group,
        member.snapshot,
    )


def _commit_later(request: BackupRequest, lock: ImageLock, manifest: Manifest) -> None:
    """Do nothing: the manifest is stored with those of the other members."""


def _check_still_unchanged(request: BackupRequest) -> None:
    """Raise SourceChanged where something was written to an image that was read as it is, while others were read."""
    point = request.point_in_time
    if point is not None and not point.is_of_another_file:
        check_unchanged(request.source, request.options, None)


def _set_moment(requests: Sequence[BackupRequest], manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return the manifests with the same moments, later than any snapshot of a member, and with what is known at the end."""
    time, ended = max(each.time for each in manifests), max(each.ended for each in manifests)
    return [
        revise(
            request.repository,
            manifest,
            time=time,
            ended=ended,
            freeze=request.point_in_time.describe() if request.point_in_time else None,
        )
        for request, manifest in zip(requests, manifests, strict=True)
    ]


def _commit(
    requests: Sequence[BackupRequest], locks: dict[str, ImageLock], manifests: list[Manifest]
) -> list[Manifest]:
    for request, manifest in zip(requests, manifests, strict=True):
        locks[request.image].check()
        if request.tracker is not None and (problem := request.tracker.keep(manifest.id)):
            request.progress.warn(f"{request.source.path}: {problem}")
    tried: list[Manifest] = []
    try:
        for request, manifest in zip(requests, manifests, strict=True):
            tried.append(manifest)
            commit_snapshot(request.repository, locks[request.image], manifest)
    except BaseException:
        with delaying_interruption():
            _take_back(requests[0], tried)
        raise
    for request, manifest in zip(requests, manifests, strict=True):
        if request.tracker is not None:
            request.tracker.settle(manifest.id)
        lock, ref = locks[request.image], SnapshotRef.of(manifest)
        record_committed(request.repository, lock, request.clock(), request.progress, ref)
    return manifests


def _take_back(request: BackupRequest, manifests: Sequence[Manifest]) -> None:
    """Remove manifests of a group that could not be committed as a whole, the last one included: it may be there."""
    for each in reversed(manifests):
        try:
            request.repository.remove_snapshot(SnapshotRef.of(each))
        except DeltaimgError as error:
            request.progress.warn(f"{each.label}, of a group that is not complete, could not be removed: {error}")
