# SPDX-License-Identifier: Apache-2.0
"""Leave out what the guest's file systems have free: those blocks are holes in the snapshot, whatever the image has there.

Always  the image is a point in time, or nothing is known to write to it: a bitmap and the blocks it is about belong together.
"""

from __future__ import annotations

from deltaimg.engine.backup.request import BackupRequest
from deltaimg.engine.progress import stage
from deltaimg.format.limits import MAX_REASON_CHARACTERS
from deltaimg.format.manifest import FreeSpaceSkipped
from deltaimg.image.extents import FREE, Extents
from deltaimg.text import as_text


def leave_out_free(request: BackupRequest, extents: Extents) -> tuple[Extents, FreeSpaceSkipped | None]:
    """Return the extents of an image with what is free as FREE, and what a manifest says of that; None if it was not asked for.

    Raises:
        ImageError: the source cannot be read.
    """
    if request.options.free_space == "keep":
        return extents, None
    if reason := _find_reason_to_keep(request):
        return extents, FreeSpaceSkipped(reason=reason)
    # Readers of twenty structures: loaded where they are used, since they would cost each backup a hundredth of a second.
    from deltaimg.guest.free_space import find_free_space
    from deltaimg.guest.source_bytes import SourceBytes

    with stage(request.progress, "looking for free space"):
        found = find_free_space(SourceBytes(request.source), extents)
    marked = extents.mark_free(found.bounds)
    reason = as_text("; ".join(found.reasons))[:MAX_REASON_CHARACTERS]
    return marked, FreeSpaceSkipped(skipped_bytes=marked.count_bytes(FREE), reason=reason)


def _find_reason_to_keep(request: BackupRequest) -> str:
    """Return why nothing can be left out, whatever is on the image; empty where there is no such reason."""
    point = request.point_in_time
    if request.source.is_sequential:
        return "a stream is read as a whole"
    if (point is None or not point.has_stopped_writers) and request.source.find_writer() is not None:
        return "the image is in use"
    return ""
