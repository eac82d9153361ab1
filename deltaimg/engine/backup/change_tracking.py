# SPDX-License-Identifier: Apache-2.0
"""Decide what of an image need not be read: what a tracker claims to be as in the base, once a sample of it was compared.

Always  a claim that is about another snapshot, is refuted, or cannot be audited against a base costs a full scan, never a full
        snapshot.
Always  what the base does not have, or has otherwise than its image had it, is read whatever a tracker claims.
"""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import FIRST_SLOT, HOLE, end_blocks, expand_ranges
from deltaimg.engine.backup.audit import AuditResult, audit_claim
from deltaimg.engine.backup.base import Base
from deltaimg.engine.backup.block_check import BlockCheck
from deltaimg.engine.backup.request import BackupRequest
from deltaimg.engine.progress import stage
from deltaimg.engine.scan import ScannedSpan, join_near
from deltaimg.format.manifest import Manifest, Tracking, parse_time
from deltaimg.image.extents import (
    DATA,
    NO_BOUNDS,
    UNCHANGED,
    Bounds,
    Extents,
    are_inside,
    merge_bounds,
    subtract_bounds,
)
from deltaimg.kernels import SAME, ZERO_BLOCK, expand_runs
from deltaimg.model import KIB
from deltaimg.repo.retention import go_back
from deltaimg.text import as_text

TRACKED_GAP_BYTES = 32 * KIB
"""A gap between changes up to this size is read with them; less than in a full scan, so that a change costs few bytes."""


class ChangeTracking:
    """What was claimed for one backup, and whether what was read agrees with it."""

    def __init__(
        self, method: str, reason: str = "", *, last_scan: str | None = None, unread: Bounds = NO_BOUNDS
    ) -> None:
        """Args: last_scan: the time of the newest snapshot for which all was read. unread: what is taken from the base."""
        self._method, self._reason, self._last_scan = method, as_text(reason), last_scan
        self.unread = unread
        self._audited_blocks = self._refuted_blocks = 0

    @classmethod
    def of_scan(cls, reason: str, audit: AuditResult | None = None) -> ChangeTracking:
        """Return what is known where everything is read."""
        made = cls("scan", reason)
        if audit is not None:
            made.note_audit(audit)
        return made

    @property
    def is_claimed(self) -> bool:
        """Whether anything is left out of the scan."""
        return self._method != "scan"

    def note_audit(self, audit: AuditResult) -> None:
        """Note what a sample showed."""
        self._audited_blocks += audit.audited_blocks
        self._refuted_blocks += audit.refuted_blocks

    def refute(self, reason: str, refuted_blocks: int) -> Bounds:
        """Read everything after all; return what is still to be read."""
        unread, self.unread = self.unread, NO_BOUNDS
        self._method, self._reason, self._last_scan = "scan", reason, None
        self._refuted_blocks += refuted_blocks
        return unread

    def describe(self) -> Tracking:
        """Return what a manifest says of it."""
        return Tracking(
            method=self._method,
            reason=self._reason,
            last_scan=self._last_scan,
            unchanged_bytes=int((self.unread[:, 1] - self.unread[:, 0]).sum()),
            audited_blocks=self._audited_blocks,
            refuted_blocks=self._refuted_blocks,
        )


def track_changes(
    request: BackupRequest, base: Base, block_bytes: int, extents: Extents
) -> tuple[Extents, ChangeTracking | None]:
    """Return the extents of the image in whole blocks, UNCHANGED where that is claimed, and what was claimed.

    Args:
        extents: as the image source reports them, with what is free.

    Raises:
        ImageError: the source cannot be read. BadHints: a file of hints cannot be used.
    """
    base_bytes = base.manifest.size_bytes if base.manifest else 0
    plain = extents.without_base(base_bytes).align(block_bytes)
    if request.tracker is None:
        return plain, None
    reason = _find_reason_to_scan(request, base)
    if base.manifest is None or reason:
        return plain, ChangeTracking.of_scan(reason)
    claim = request.tracker.find_changes(base.manifest)
    if claim.changed is None:
        if claim.is_surprising:
            request.progress.warn(f"{claim.reason}; everything is read")
        return plain, ChangeTracking.of_scan(claim.reason)
    always_read = _find_always_read(base, base.manifest, extents.size_bytes, block_bytes)
    changed = merge_bounds(np.concatenate((claim.changed, always_read)))
    claimed = extents.mark_unchanged(changed).without_base(base_bytes).align(block_bytes)
    unread = subtract_bounds(claimed.find(UNCHANGED), join_near(claimed.find(DATA), TRACKED_GAP_BYTES))
    audit = _audit(request, base, unread, block_bytes)
    if audit.refuted_blocks:
        method, share = request.tracker.method, f"{audit.refuted_blocks} of {audit.audited_blocks}"
        problem = f"{share} blocks that it calls unchanged ({method}) had changed"
        _warn_of_refuted(request, problem)
        return plain, ChangeTracking.of_scan(problem, audit)
    tracking = ChangeTracking(request.tracker.method, last_scan=base.manifest.last_scan, unread=unread)
    tracking.note_audit(audit)
    return claimed, tracking


def refute_claim(request: BackupRequest, tracking: ChangeTracking, refuted_blocks: int) -> Bounds:
    """Warn that blocks that were read beside changes had changed themselves; return what is still to be read."""
    problem = (
        f"{refuted_blocks} blocks beside changes that it calls unchanged ({tracking.describe().method}) had changed"
    )
    _warn_of_refuted(request, problem)
    return tracking.refute(problem, refuted_blocks)


def count_refuted(span: ScannedSpan, unchanged: Bounds, base: Base, block_bytes: int) -> int:
    """Return how many blocks of a span differ from the base although they lie in `unchanged`."""
    differing = span.statuses[span.statuses["status"] != SAME]
    if not len(differing):
        return 0
    indexes: npt.NDArray[np.int64] = expand_ranges(
        differing["first"].astype(np.int64), differing["count"].astype(np.int64)
    )
    indexes = indexes[are_inside((indexes + span.first_block) * block_bytes, unchanged)]
    slots = expand_runs(base.runs, span.first_block, len(span.digests))[indexes]
    is_zero = np.repeat(span.statuses["status"], span.statuses["count"])[indexes] == ZERO_BLOCK
    return int((~is_zero | (slots >= FIRST_SLOT)).sum())


def _find_reason_to_scan(request: BackupRequest, base: Base) -> str:
    """Return why everything is to be read whatever a tracker claims; empty where there is no such reason."""
    manifest, span = base.manifest, request.options.full_scan_every
    if request.source.is_sequential:
        return "a stream is read as a whole"
    if manifest is None:
        return (
            "there is no earlier snapshot" if base.newest is None else f"snapshot {base.newest.label} cannot be a base"
        )
    if manifest.is_live:
        return f"snapshot {manifest.label} is not of one moment: it was written to meanwhile"
    if request.options.track == "scan" and request.tracker is not None and request.tracker.method != "scan":
        return "asked for"
    last_scan = parse_time(manifest.last_scan)
    if str(span) and last_scan <= go_back(request.clock(), span, None):
        return f"due: everything was read last on {last_scan:%Y-%m-%d}"
    return ""


def _find_always_read(base: Base, manifest: Manifest, size_bytes: int, block_bytes: int) -> Bounds:
    """Return what may differ from the base though nothing was written.

    What it could not read, a last block where the size changed, and holes that were free: a guest may use these unwritten.
    """
    extents = [(each.start, each.end) for each in manifest.unreadable]
    if size_bytes != manifest.size_bytes:
        edge = min(size_bytes, manifest.size_bytes) // block_bytes * block_bytes
        extents.append((edge, edge + block_bytes))
    found = np.array(extents, np.int64).reshape(-1, 2)
    if manifest.free_space is None or not manifest.free_space.skipped_bytes:
        return found
    holes = base.runs[base.runs["slot"] == HOLE]
    starts, ends = holes["first_block"].astype(np.int64), end_blocks(holes).astype(np.int64)
    return np.concatenate((found, np.stack((starts, ends), axis=1) * block_bytes))


def _audit(request: BackupRequest, base: Base, unread: Bounds, block_bytes: int) -> AuditResult:
    check = BlockCheck(request.source, base.runs, base.table.digests, request.repository.keys.block, block_bytes)
    with stage(request.progress, "auditing change tracking"):
        return audit_claim(
            check,
            unread,
            most_blocks=request.options.audit_blocks,
            workers=request.options.workers,
            chance=random.SystemRandom(),
        )


def _warn_of_refuted(request: BackupRequest, problem: str) -> None:
    request.progress.warn(
        f"CHANGE TRACKING IS WRONG: {problem}. Everything is read now, so that this snapshot is right; earlier ones that were "
        f"made with it may not be. Find out why, and compare them: see 'When tracking is wrong' in docs/sources.md"
    )
