# SPDX-License-Identifier: Apache-2.0
"""What the far side finds when it opens a copy: what is known of it, and what a run left that was cut.

the state names the journal        the run was complete: finish it
a journal that no state names      continue where the run was; `--recover` undoes it
a new file                         continue with it; `--recover` removes it
a state that does not fit          someone else wrote to the copy: read all of it
"""

from __future__ import annotations

import os
import random

import numpy as np
from msgspec import Struct, field

from deltaimg.arrays import Digests
from deltaimg.engine.mirror.journal import FoundJournal, find_journal, remove_journal
from deltaimg.engine.mirror.place import CopyPlace
from deltaimg.engine.mirror.protocol import Open
from deltaimg.engine.mirror.table import Blocks, digest_image, empty_digests, find_differing, resize
from deltaimg.engine.mirror.working_copy import WorkingCopy, finish_in_place, make_new, undo_in_place
from deltaimg.errors import ImageError, MirrorDiffers, TargetExists, TargetTooSmall
from deltaimg.format.mirror import BLOCK_BYTES, MirrorState
from deltaimg.image.extents import NOT_EMPTY
from deltaimg.kernels import digest_blocks
from deltaimg.model import count_blocks

_SAMPLE_BLOCKS = 64


class Found(Struct, frozen=True):
    """A copy that was opened, and what is known of it."""

    copy: WorkingCopy | None
    """None where there is none, and none is to be made."""
    key: bytes
    digests: Digests
    image_bytes: int
    mode: str
    recovered: str = ""
    is_unknown: bool = False
    """All of it has to be read."""
    unsure: Blocks = field(default_factory=lambda: np.zeros(0, np.int64))
    """What has to be read, where the rest is known."""
    journal: FoundJournal | None = None
    to_read_bytes: int = 0
    is_left: bool = False
    """A new file that an earlier run has begun to fill."""

    @property
    def must_commit(self) -> bool:
        """Whether an earlier run has begun what this one must complete, even if nothing is left to be changed."""
        return self.journal is not None or self.mode == "new" or (self.mode == "clone" and self.is_unknown)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether the copy was read, and is what will be found the next time."""
        return self.is_unknown and self.journal is None and self.mode == "in-place"


def check_known(place: CopyPlace, wanted: Open) -> None:
    """Refuse what is no mirror yet, unless it is to be overwritten; raises TargetExists."""
    if place.exists and not (place.is_known or wanted.is_forced):
        what = "is a block device" if place.is_device else "exists, and is no mirror that deltaimg made"
        raise TargetExists(place.path, what, hint="--force overwrites it")


def open_working_copy(place: CopyPlace, wanted: Open) -> Found:
    """Open a copy as it is wanted; raises ImageError, TargetExists, TargetTooSmall."""
    state = place.read_state()
    journal, recovered = _settle(place, wanted, state)
    check_known(place, wanted)
    if wanted.is_dry:
        mode = "in-place" if place.exists else "new"
        copy = WorkingCopy(place, mode, is_read_only=True) if place.exists else None
        left = False
    else:
        left = os.path.lexists(place.new_path)
        mode = _choose_mode(place, wanted, journal)
        left = left and mode != "in-place"
        copy = WorkingCopy(place, mode)
    key = state.key if state else os.urandom(32)
    if copy is None or (mode == "new" and not left):
        return Found(copy, key, empty_digests(0), 0, mode, recovered)
    try:
        return _examine(copy, wanted, state, journal, recovered, is_left=left)
    except BaseException:
        copy.close()
        raise


def recover(place: CopyPlace) -> str:
    """Undo or finish what a run left that was cut; return which: undone, finished, removed or nothing."""
    state = place.read_state()
    journal = find_journal(place.journal_path)
    if journal is not None:
        copy = WorkingCopy(place, "in-place")
        try:
            if state is not None and state.journal == journal.id:
                finish_in_place(place, copy.descriptor, state)
                return "finished"
            undo_in_place(place, copy.descriptor, journal, state)
            if state is not None and state.image_bytes == journal.image_bytes:
                _verify_undone(copy, journal, state)
            remove_journal(place.journal_path)
            return "undone"
        finally:
            copy.close()
    if os.path.lexists(place.new_path):
        os.unlink(place.new_path)
        return "removed"
    return "nothing"


def _settle(place: CopyPlace, wanted: Open, state: MirrorState | None) -> tuple[FoundJournal | None, str]:
    """Return the journal of a run that was cut before its end, and what was done about it; finish one that was complete."""
    if not place.exists:
        if not wanted.is_dry and os.path.lexists(place.journal_path):
            remove_journal(place.journal_path)
        return None, ""
    try:
        journal = find_journal(place.journal_path)
        if journal is not None:
            journal.list_blocks()
    except ImageError:
        if not wanted.is_forced or wanted.is_dry:
            raise
        place.void_state()
        remove_journal(place.journal_path)
        return None, "forced"
    if journal is None or state is None or state.journal != journal.id:
        return journal, "continued" if journal else ""
    if not wanted.is_dry:
        copy = WorkingCopy(place, "in-place")
        try:
            finish_in_place(place, copy.descriptor, state)
        finally:
            copy.close()
    return None, "finished"


def _choose_mode(place: CopyPlace, wanted: Open, journal: FoundJournal | None) -> str:
    """Return how the copy is changed; make the new file where there will be one."""
    if place.is_device or journal is not None or (wanted.is_in_place and place.exists):
        if os.path.lexists(place.new_path):
            os.unlink(place.new_path)
        mode = "in-place"
    else:
        mode = make_new(place)
    if mode == "in-place" and journal is None:
        _refuse_other_names(place)
    return mode


def _refuse_other_names(place: CopyPlace) -> None:
    """Refuse to change a file in place that has further names: older copies that are kept under them would change, too."""
    count = 1 if place.is_device else os.stat(place.path).st_nlink
    if count > 1:
        raise TargetExists(
            place.path,
            f"has {count} names (hard links), and what the others are kept for would change with it",
            hint=f"give it content of its own: cp --sparse=always {place.path} NEW && mv NEW {place.path}",
        )


def _examine(
    copy: WorkingCopy,
    wanted: Open,
    state: MirrorState | None,
    journal: FoundJournal | None,
    recovered: str,
    *,
    is_left: bool,
) -> Found:
    """Return what is known of a copy that was opened.

    Args:
        is_left: it is a new file that an earlier run began to fill.
    """
    if copy.place.is_device and wanted.image_bytes > copy.size_bytes:
        raise TargetTooSmall(copy.place.path, f"has {copy.size_bytes} bytes; the image needs {wanted.image_bytes}")
    size_bytes = wanted.image_bytes if copy.place.is_device else copy.size_bytes
    key = state.key if state else os.urandom(32)
    if journal is not None and state is not None and state.image_bytes == journal.image_bytes:
        unsure = journal.list_blocks()
        if not journal.is_cut:
            count = count_blocks(size_bytes, BLOCK_BYTES)
            unsure = unsure[unsure < count]
            digests = resize(state.digests, count)
            return Found(
                copy, key, digests, size_bytes, copy.mode, recovered,
                unsure=unsure, journal=journal, to_read_bytes=len(unsure) * BLOCK_BYTES,
            )  # fmt: skip
    elif journal is None and not is_left and state is not None and _fits(copy, state, size_bytes):
        return Found(copy, key, state.digests, size_bytes, copy.mode, recovered)
    with copy.opened() as source:
        to_read_bytes = source.extents().clip(size_bytes).count_bytes(*NOT_EMPTY)
    return Found(
        copy, key, empty_digests(0), size_bytes, copy.mode, recovered or "continued" * is_left,
        is_unknown=True, journal=journal, to_read_bytes=to_read_bytes, is_left=is_left,
    )  # fmt: skip


def _fits(copy: WorkingCopy, state: MirrorState, size_bytes: int) -> bool:
    """Return whether a copy is as it was when the state was kept, by its size, its time, and a sample of its blocks."""
    if state.image_bytes != size_bytes:
        return False
    if not copy.place.is_device and os.stat(copy.place.path).st_mtime_ns != state.modified_ns:
        return False
    count = len(state.digests)
    blocks = np.array(sorted(random.sample(range(count), min(count, _SAMPLE_BLOCKS))), np.int64)
    return bool((digest_blocks(state.key, copy.read(blocks), BLOCK_BYTES) == state.digests[blocks]).all())


def _verify_undone(copy: WorkingCopy, journal: FoundJournal, state: MirrorState) -> None:
    """Compare what was put back with the state of before; all of the copy, if the journal's end is missing."""
    if journal.is_cut:
        with copy.opened() as source:
            found = digest_image(source, state.key, lambda _: None, size_bytes=state.image_bytes)
        is_right = not len(find_differing(found, state.digests))
    else:
        blocks = journal.list_blocks()
        blocks = blocks[blocks < len(state.digests)]
        is_right = all(
            (digest_blocks(state.key, copy.read(part), BLOCK_BYTES) == state.digests[part]).all()
            for part in (blocks[first : first + 1024] for first in range(0, len(blocks), 1024))
        )
    if not is_right:
        raise MirrorDiffers(
            f"{copy.place.path}: what was put back is not what was there before the run that was cut",
            hint="'deltaimg mirror' with --force makes the copy equal to the image",
        )
