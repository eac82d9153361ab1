# SPDX-License-Identifier: Apache-2.0
"""Read a random sample of what change tracking calls unchanged, and compare it with the base.

Where a share `r` of those blocks did change, a sample of `n` of them has one with a probability of `1 - (1 - r)^n`: of 459, 1 %
with 99 %. A sample finds tracking that lost much. It does not find a few lost blocks among millions: full scans do.
"""

from __future__ import annotations

import random
import time

from msgspec import Struct

from deltaimg.engine.backup.block_check import BlockCheck, Pieces
from deltaimg.engine.pipeline import OrderedPool, ThreadBuffer
from deltaimg.image.extents import Bounds

MAX_AUDIT_S = 30.0
"""459 reads take five seconds on a disk that seeks. What is not done after this is left out; the result says how many were."""
CONFIDENCE = 0.99


class AuditResult(Struct, frozen=True):
    """How many blocks were compared with the base, and how many of these had changed."""

    audited_blocks: int = 0
    refuted_blocks: int = 0


def find_detectable_share(audited_blocks: int) -> float:
    """Return which share of wrong blocks an audit of so many finds with a probability of `CONFIDENCE`."""
    return 1.0 if audited_blocks == 0 else float(1.0 - (1.0 - CONFIDENCE) ** (1.0 / audited_blocks))


def audit_claim(
    check: BlockCheck,
    claimed: Bounds,
    *,
    most_blocks: int,
    workers: int | None,
    chance: random.Random,
    limit_s: float = MAX_AUDIT_S,
) -> AuditResult:
    """Compare a random sample of the blocks of `claimed` with the map of `check`; all of them, where there are no more.

    Blocks are taken in random order, so that those done within the limit are a random sample as well.

    Raises:
        ImageError: the source cannot be read.
    """
    pieces = Pieces(claimed, check.block_bytes)
    total, deadline_s = len(pieces), time.monotonic() + limit_s
    numbers = (
        chance.sample(range(total), total)
        if total <= most_blocks
        else [chance.randrange(total) for _ in range(most_blocks)]
    )

    buffers = ThreadBuffer()

    def differs(number: int) -> bool | None:
        start, end = pieces.locate(number)
        if check.is_unreadable(start, end):
            return None
        return check.find_difference(start, end, buffers.get(check.block_bytes)) is not None

    audited = refuted = 0
    with OrderedPool(workers=workers) as pool:
        for outcome in pool.map(differs, numbers):
            audited += outcome is not None
            refuted += bool(outcome)
            if time.monotonic() > deadline_s:
                break
    return AuditResult(audited, refuted)
