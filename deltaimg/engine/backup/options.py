# SPDX-License-Identifier: Apache-2.0
"""How a backup is to be made, with what holds where nothing else is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from deltaimg.codec.zstd import LEVELS
from deltaimg.delta.registry import DELTA_MODES
from deltaimg.delta.sources import SourceLimits
from deltaimg.engine.pipeline import count_workers
from deltaimg.errors import UsageError
from deltaimg.format.annotation import find_remark_problem, find_tag_problem
from deltaimg.format.limits import MAX_DEPTH, MAX_TAGS
from deltaimg.model import MAX_BLOCK_BYTES, MIB, MIN_BLOCK_BYTES

MATCH_BUDGET_BYTES = 256 * MIB
DELTA_BUDGET_BYTES = 256 * MIB
CACHE_BUDGET_BYTES = 1024 * MIB
DEFAULT_DEPTH = SourceLimits().depth
DEFAULT_READ_AMPLIFICATION = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """How to back up. Sizes in bytes."""

    tags: tuple[str, ...] = ()
    comment: str = ""
    level: int = LEVELS["default"]
    block_bytes: int | None = None
    allow_live: bool = False
    """Accept a source that is in use or written to meanwhile, and mark the snapshot."""
    stores_containers: bool = False
    """Store a qcow2 file, an archive or the like as it is; where the last snapshot is one, so is this."""
    expected_bytes: int | None = None
    """Refuse an image that is shorter or longer."""
    taken_at: datetime | None = None
    """The time that the snapshot gets, for images that were saved earlier; now if None."""
    allow_shrink: bool = False
    """Accept a stream that is shorter than the last snapshot, and a file or device of which nearly nothing is left."""
    match_budget_bytes: int = MATCH_BUDGET_BYTES
    delta: str = "auto"
    """auto: deltaimg's own deltas, zstd's where these are large, a literal where that is smaller; none; zstd, xdelta or
    deltaimg: wherever something is similar; best: the smallest of all."""
    delta_budget_bytes: int = DELTA_BUDGET_BYTES
    max_depth: int = DEFAULT_DEPTH
    max_read_amplification: float = DEFAULT_READ_AMPLIFICATION
    """Bytes that a restore may decode for each that it would decode without deltas; beyond it, deltas are less deep."""
    cache_folder: str | None = None
    """Where what this host knows of images is kept from run to run, as `deltaimg.find_cache_folder()` returns it for the
    command line. None keeps nothing: each backup that finds changes then reads the image twice to build the similarity
    index, and content that changes in every run is stored less well."""
    cache_budget_bytes: int = CACHE_BUDGET_BYTES
    """Of all that is kept there, of all images; what was used longest ago is removed first."""
    workers: int = field(default_factory=count_workers)
    software: str = ""


def check_options(options: BackupOptions) -> None:
    """Refuse what cannot be; raises UsageError."""
    size = options.block_bytes
    if size is not None and (not MIN_BLOCK_BYTES <= size <= MAX_BLOCK_BYTES or size & (size - 1)):
        raise UsageError(f"a block of {size} bytes: it must be a power of two from 4 KiB to 1 MiB")
    if options.delta not in DELTA_MODES:
        raise UsageError(f"delta '{options.delta[:60]}' is none of {', '.join(DELTA_MODES)}")
    if not 1 <= options.max_depth <= MAX_DEPTH:
        raise UsageError(f"deltas {options.max_depth} deep: it must be 1 to {MAX_DEPTH}")
    if not options.max_read_amplification >= 1:
        raise UsageError(f"a read amplification of {options.max_read_amplification:g}: it cannot be less than 1")
    if len(options.tags) > MAX_TAGS:
        raise UsageError(f"{len(options.tags)} tags: a snapshot can have {MAX_TAGS}")
    for tag in options.tags:
        if problem := find_tag_problem(tag):
            raise UsageError(f"tag {tag[:60]!r} {problem}")
    if problem := find_remark_problem(options.comment):
        raise UsageError(f"comment {problem}")
