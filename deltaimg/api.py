# SPDX-License-Identifier: Apache-2.0
"""The Python interface, which the command line calls, too: places and selectors in, manifests and readers out.

Every function may raise `DeltaimgError`; its classes are in `deltaimg.errors`.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, tzinfo

from deltaimg import __version__
from deltaimg.engine.backup import BackupOptions, back_up
from deltaimg.engine.check import CheckReport
from deltaimg.engine.check import check as check_repository
from deltaimg.engine.content import SnapshotContent
from deltaimg.engine.diff import Difference, diff_snapshots
from deltaimg.engine.files.interface import DeltaResult, PatchResult, SignatureResult
from deltaimg.engine.files.run import make_delta, patch, sign
from deltaimg.engine.flatten import FlattenResult
from deltaimg.engine.flatten import flatten as flatten_snapshot
from deltaimg.engine.forget import Forgotten, forget_images
from deltaimg.engine.forget_choice import choose_by_name, choose_by_policy
from deltaimg.engine.parity import ParityAdded, ParityCoverage
from deltaimg.engine.parity import add_parity as add_parity_to_packs
from deltaimg.engine.parity import survey_parity as survey_parity_of_packs
from deltaimg.engine.parity_plan import MAX_PERCENT, MIN_PERCENT
from deltaimg.engine.parity_repair import PacksRepaired
from deltaimg.engine.parity_repair import repair_packs as repair_packs_by_parity
from deltaimg.engine.pin import set_pin
from deltaimg.engine.progress import Progress
from deltaimg.engine.prune import PruneForecast, PruneResult
from deltaimg.engine.prune import plan_prune as plan_prune_of
from deltaimg.engine.prune import prune as prune_repository
from deltaimg.engine.prune_plan import MAX_UNUSED_PERCENT, PruneOptions
from deltaimg.engine.repair import RepairReport
from deltaimg.engine.repair import repair as repair_repository
from deltaimg.engine.restore import RestoreResult
from deltaimg.engine.restore import restore as restore_manifest
from deltaimg.engine.snapshot_reader import SnapshotReader
from deltaimg.engine.verify import ComparedImage, VerifyReport, compare_image
from deltaimg.engine.verify import verify as verify_snapshots
from deltaimg.errors import IntegrityError, RepositoryExists, RepositoryLocked, RepositoryNotFound, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.image.source import open_source
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.lock_holder import FoundLock, remove_if_gone
from deltaimg.repo.lock_holder import list_locks as find_locks
from deltaimg.repo.lock_holder import remove_lock as remove_found_lock
from deltaimg.repo.repository import Repository
from deltaimg.repo.retention import Policy
from deltaimg.repo.selector import check_image_name, select_snapshot
from deltaimg.store.local import LocalStore


def create_repository(location: str) -> Repository:
    """Make a new, empty repository in the folder `location`, which must be empty or not exist."""
    if _is_no_folder(location):
        raise RepositoryExists(location, "is not a folder")
    return Repository.create(LocalStore(location), created=datetime.now(UTC), software=f"deltaimg {__version__}")


def open_repository(location: str) -> Repository:
    """Open the repository in the folder `location`."""
    if _is_no_folder(location):
        raise RepositoryNotFound(location, "is not a folder, so not a repository")
    store = LocalStore(location)
    repository = Repository.open(store)
    # Only now is it known that the folder is ours to tidy.
    store.remove_leftovers()
    return repository


def backup(
    repository: Repository,
    image_path: str,
    image: str,
    options: BackupOptions | None = None,
    *,
    use_holes: bool = True,
    is_direct: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Store the file or device at `image_path` (`-`: the standard input) as the newest snapshot of `image`.

    Args:
        use_holes: believe the file system about holes; otherwise read everything.
        is_direct: read past the page cache.
    """
    check_image_name(image)
    options = dataclasses.replace(options or BackupOptions(), software=f"deltaimg {__version__}")
    source = open_source(image_path, use_holes=use_holes, is_direct=is_direct)
    try:
        return back_up(repository, source, image, options, progress=progress)
    finally:
        source.close()


def list_snapshots(repository: Repository, image: str | None = None) -> list[Manifest]:
    """Return all snapshots, or those of one image, oldest first within an image; raises at the first damaged one."""
    manifests = []
    for manifest in repository.load_manifests(None if image is None else check_image_name(image)):
        if isinstance(manifest, IntegrityError):
            raise manifest
        manifests.append(manifest)
    return manifests


def find_snapshot(repository: Repository, selector: str) -> Manifest:
    """Return the snapshot that `selector` means: `vm1`, `vm1@latest~2`, `vm1@2026-11-23`, an id or its beginning."""
    return repository.load_manifest(select_snapshot(repository, selector))


def forget(
    repository: Repository,
    policy: Policy,
    images: Sequence[str] = (),
    *,
    now: datetime | None = None,
    zone: tzinfo | None = None,
    is_forced: bool = False,
    is_dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Forgotten]:
    """Forget the snapshots of images (all, if none are named) that a policy does not keep, each image by itself.

    An image that fails does not keep the others waiting: its result has the error.

    Args:
        now: the moment from which on a snapshot is one of the future.
        zone: whose days and hours count; that of this host if none is given.
        is_forced: the policy may leave nothing of an image.
        is_dry_run: change nothing; results tell what each removal would free.
    """
    chosen = choose_by_policy(repository, policy, images, now=now or datetime.now(UTC), zone=zone, is_forced=is_forced)
    return forget_images(repository, chosen, is_dry_run=is_dry_run, progress=progress)


def forget_snapshots(
    repository: Repository,
    selectors: Sequence[str],
    *,
    is_forced: bool = False,
    is_dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Forgotten]:
    """Forget the snapshots that are named, wherever they stand in their chains; as `forget` otherwise."""
    chosen = choose_by_name(repository, selectors, is_forced=is_forced)
    return forget_images(repository, chosen, is_dry_run=is_dry_run, progress=progress)


def pin(repository: Repository, selector: str, reason: str = "") -> Manifest:
    """Keep a snapshot whatever policies say, and return its manifest."""
    return set_pin(repository, select_snapshot(repository, selector), reason)


def unpin(repository: Repository, selector: str) -> Manifest:
    """Let policies decide about a snapshot again, and return its manifest."""
    return set_pin(repository, select_snapshot(repository, selector), None)


def restore(
    repository: Repository,
    selector: str,
    target_path: str,
    *,
    is_forced: bool = False,
    keep_going: bool = False,
    is_synced: bool = False,
    progress: Progress | None = None,
) -> RestoreResult:
    """Write a snapshot to a new sparse file, a block device (with `is_forced`) or the standard output (`-`).

    Args:
        is_forced: replace an existing file, write to a device.
        keep_going: restore what can be read of a damaged snapshot; the result lists the rest.
        is_synced: wait until a new file is on the disk; always so for devices and replaced files.
    """
    if not target_path:
        raise UsageError("the target has no name")
    return restore_manifest(
        repository,
        find_snapshot(repository, selector),
        target_path,
        is_forced=is_forced,
        keep_going=keep_going,
        is_synced=is_synced,
        progress=progress,
    )


def open_snapshot(repository: Repository, selector: str) -> SnapshotReader:
    """Return a reader for any offset of a snapshot. Close it, or use it as a context manager: a prune waits for readers."""
    manifest = find_snapshot(repository, selector)
    lock = ReaderLock(repository, f"reading {manifest.label}", datetime.now(UTC))
    with ExitStack() as stack:
        stack.enter_context(lock)
        reader = SnapshotContent(repository, manifest).make_reader()
        reader.release_at_end(stack.pop_all().close)
    return reader


def verify(
    repository: Repository,
    selectors: Sequence[str] = (),
    *,
    percent: float = 100.0,
    seed: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Prove that snapshots (all, if none are named) can be restored, reading `percent` of their content.

    That is what has waited longest; the report's `coverage` tells since when all content was proven.
    """
    if not 0 < percent <= 100:
        raise UsageError(f"{percent:g} percent: it must be above 0 and at most 100")
    refs = [select_snapshot(repository, each) for each in selectors] or repository.list_snapshots()
    return verify_snapshots(repository, refs, percent=percent, seed=seed, progress=progress)


def check(repository: Repository, *, read_packs: bool = False, progress: Progress | None = None) -> CheckReport:
    """Look at the structure of a repository: every object, what it refers to, and what nothing refers to.

    Args:
        read_packs: read packs whole, not only their headers and footers, and hold them against their names.
    """
    return check_repository(repository, read_packs=read_packs, progress=progress)


def repair(
    repository: Repository,
    from_path: str | None = None,
    *,
    is_dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairReport:
    """Make a damaged repository whole as far as that goes; the report's `damage` lists what stays damaged.

    Args:
        from_path: another copy of the repository, or an image, from which lost content is taken.
        is_dry_run: change nothing.
    """
    if from_path is None:
        return repair_repository(repository, is_dry_run=is_dry_run, progress=progress)
    if os.path.isdir(from_path):
        copy = Repository.open(LocalStore(from_path))
        return repair_repository(repository, copy=copy, is_dry_run=is_dry_run, progress=progress)
    source = open_source(from_path)
    try:
        return repair_repository(repository, source=source, is_dry_run=is_dry_run, progress=progress)
    finally:
        source.close()


def compare(
    repository: Repository, selector: str, image_path: str, *, progress: Progress | None = None
) -> ComparedImage:
    """Compare the image at `image_path` with a snapshot, block by block."""
    source = open_source(image_path)
    try:
        return compare_image(repository, find_snapshot(repository, selector), source, progress=progress)
    finally:
        source.close()


def diff(repository: Repository, older: str, newer: str) -> Difference:
    """Tell which extents differ between two snapshots."""
    return diff_snapshots(repository, find_snapshot(repository, older), find_snapshot(repository, newer))


def list_locks(repository: Repository) -> list[FoundLock]:
    """Tell who is at work in a repository, or died there."""
    return find_locks(repository)


def remove_lock(repository: Repository, name: str, *, is_forced: bool = False) -> FoundLock:
    """Remove the lock of an image, or one that `list_locks` labels so, and return it.

    Args:
        is_forced: though its holder runs, or beats; that run will find out before it commits, and fail.

    Raises:
        UsageError: there is no such lock. RepositoryLocked: its holder is alive.
    """
    found = next((each for each in find_locks(repository) if each.label == name), None)
    if found is None:
        raise UsageError(f"there is no lock '{name[:60]}'", hint="'deltaimg unlock' lists what there is")
    if is_forced:
        remove_found_lock(repository.store, found)
    elif remove_if_gone(repository.store, [found]):
        raise RepositoryLocked(f"'{name}'", found.describe(), hint="wait until it is done, or remove it with --force")
    return found


def add_parity(
    repository: Repository, *, percent: float = 5.0, is_thorough: bool = False, progress: Progress | None = None
) -> ParityAdded:
    """Protect all packs by Reed-Solomon parity of `percent` of their size, reading those only that have too little of it.

    Args:
        is_thorough: read all parity that there is, and make anew what is damaged of it.

    Raises:
        ParityUnusable: pyeclib, which computes it, is not installed.
    """
    if not MIN_PERCENT <= percent <= MAX_PERCENT:
        raise UsageError(f"{percent:g} percent of parity: it must be from {MIN_PERCENT:g} to {MAX_PERCENT:g}")
    return add_parity_to_packs(
        repository, percent, clock=lambda: datetime.now(UTC), is_thorough=is_thorough, progress=progress
    )


def survey_parity(repository: Repository, *, is_thorough: bool = False) -> ParityCoverage:
    """Tell which packs have parity, and what loss each group of them survives; with `is_thorough`, read it all for damage."""
    return survey_parity_of_packs(repository, is_thorough=is_thorough)


def prune(
    repository: Repository,
    *,
    max_unused_percent: float = MAX_UNUSED_PERCENT,
    max_repack_bytes: int | None = None,
    progress: Progress | None = None,
) -> PruneResult:
    """Delete what no snapshot needs; backups and restores may go on meanwhile.

    Args:
        max_unused_percent: of what all packs hold may stay unused; beyond it, packs are repacked.
        max_repack_bytes: write at most so much anew.
    """
    return prune_repository(repository, _prune_options(max_unused_percent, max_repack_bytes), progress=progress)


def plan_prune(
    repository: Repository,
    *,
    max_unused_percent: float = MAX_UNUSED_PERCENT,
    max_repack_bytes: int | None = None,
    progress: Progress | None = None,
) -> PruneForecast:
    """Return what `prune` would do, and what an earlier one could not delete yet; nothing is changed."""
    return plan_prune_of(repository, _prune_options(max_unused_percent, max_repack_bytes), progress=progress)


def flatten(
    repository: Repository,
    selectors: Sequence[str] = (),
    *,
    max_depth: int = 0,
    progress: Progress | None = None,
) -> list[FlattenResult]:
    """Make snapshots independent of their bases, with no delta records deeper than `max_depth`.

    Args:
        selectors: if none is given, the depth of all snapshots is bounded, and their maps stay as they are.
    """
    refs = [select_snapshot(repository, each) for each in selectors] or repository.list_snapshots()
    return [
        flatten_snapshot(repository, ref, max_depth=max_depth, keeps_base=not selectors, progress=progress)
        for ref in refs
    ]


def repair_packs(repository: Repository, *, progress: Progress | None = None) -> PacksRepaired:
    """Hold every pack against its name, and make good by parity what is damaged or missing."""
    return repair_packs_by_parity(repository, clock=lambda: datetime.now(UTC), progress=progress)


def sign_file(
    old_path: str,
    signature_path: str,
    *,
    format_name: str = "deltaimg",
    block_bytes: int | None = None,
    is_forced: bool = False,
    progress: Progress | None = None,
) -> SignatureResult:
    """Write the signature of a file, by which `delta_file` finds out elsewhere what is new in another. No repository needed.

    Args:
        format_name: `deltaimg`, or `rdiff` for the program of that name. Paths may be `-`, here and below.
        block_bytes: the finer, the smaller deltas and the larger signatures are; chosen from the file's size where not given.
        is_forced: replace an existing file.
    """
    return sign(
        old_path,
        signature_path,
        format_name=format_name,
        block_bytes=block_bytes,
        is_forced=is_forced,
        progress=progress,
    )


def delta_file(
    signature_path: str,
    new_path: str,
    delta_path: str,
    *,
    format_name: str = "deltaimg",
    is_forced: bool = False,
    progress: Progress | None = None,
) -> DeltaResult:
    """Write what makes the file at `new_path` of the one that the signature is of."""
    return make_delta(
        signature_path, new_path, delta_path, format_name=format_name, is_forced=is_forced, progress=progress
    )


def patch_file(
    old_path: str,
    delta_path: str,
    new_path: str,
    *,
    format_name: str = "deltaimg",
    is_forced: bool = False,
    is_synced: bool = False,
    progress: Progress | None = None,
) -> PatchResult:
    """Write the new file that a delta makes of the old one; it gets its name once it is proven, where the format can prove it.

    Raises:
        WrongOldFile: the file at `old_path` is not the one that the signature was made of.
    """
    return patch(
        old_path,
        delta_path,
        new_path,
        format_name=format_name,
        is_forced=is_forced,
        is_synced=is_synced,
        progress=progress,
    )


def _prune_options(max_unused_percent: float, max_repack_bytes: int | None) -> PruneOptions:
    if not 0 <= max_unused_percent <= 100:
        raise UsageError(f"{max_unused_percent:g} percent unused: it must be 0 to 100")
    return PruneOptions(max_unused_percent / 100, max_repack_bytes)


def _is_no_folder(location: str) -> bool:
    """Whether there is something at this place, or on the way to it, that is no folder."""
    try:
        return not stat.S_ISDIR(os.stat(location).st_mode)
    except NotADirectoryError:
        return True
    except OSError:
        return False
