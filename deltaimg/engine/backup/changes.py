# SPDX-License-Identifier: Apache-2.0
"""Store the changed blocks of a backup: as few changes if the scan ends soon enough, else as many.

The first changed blocks are gathered. If the scan ends with no more than these, little has to be loaded to store them
(`few_changes`); with the first block beyond, all tables are filled (`many_changes`). An unchanged image
needs neither, and so imports neither.

Memory  up to `MOST_FEW_BYTES` of gathered blocks.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from deltaimg.engine.backup.changed_blocks import ChangedBlocks, take_changed
from deltaimg.engine.backup.context import BackupContext
from deltaimg.engine.scan import ScannedSpan
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import FORCED_DELTA_MODES
from deltaimg.repo.pack_writer import PackWriter

if TYPE_CHECKING:
    from deltaimg.engine.backup.many_changes import ManyChanges

FEW_BYTES, MOST_FEW_BYTES = 256 * KIB, 4 * MIB
FEW_SHARE, LARGE_FEW_SHARE = 4096, 16384
"""Up to this many bytes are few: what mounting a file system changes, of which deltas save some tens of KiB; not more than the
first fraction of the base. Tables grow with the base: of a large one, so is what is less than the second fraction."""


class Changes:
    """Takes the changed blocks of a backup, span by span; a context manager around its threads and files."""

    def __init__(self, context: BackupContext, writer: PackWriter) -> None:
        self._context, self._writer = context, writer
        few_bytes = find_few_bytes(context.base.table.slot_count * context.block_bytes)
        self._most_gathered = 0 if context.options.delta in FORCED_DELTA_MODES else few_bytes // context.block_bytes
        self._gathered: list[ChangedBlocks] = []
        self._many: ManyChanges | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, span: ScannedSpan, content: memoryview) -> None:
        """Take the changed blocks of a span, which are copied."""
        changed = take_changed(span, content)
        if self._many is None:
            gathered = sum(len(each.blocks) for each in self._gathered)
            if len(changed.blocks) + gathered <= self._most_gathered:
                self._gathered.append(changed.copy(self._context.block_bytes))
                return
            from deltaimg.engine.backup.many_changes import ManyChanges

            self._many = self._stack.enter_context(ManyChanges(self._context, self._writer))
            for each in self._gathered:
                self._many.add(each)
            self._gathered = []
        self._many.add(changed)

    def finish(self) -> None:
        """Store what is left, and number the records that were made."""
        if self._many is not None:
            self._many.finish()
        elif self._gathered:
            from deltaimg.engine.backup.few_changes import store_few_changes

            store_few_changes(self._context, self._writer, self._gathered)

    def keep_for_next_run(self) -> None:
        """Update what this host keeps for the next backup; a failure is a warning."""
        if self._many is not None:
            self._many.keep_for_next_run()


def find_few_bytes(base_bytes: int) -> int:
    """Return how many changed bytes are few beside a base with so much stored content."""
    return min(max(FEW_BYTES, min(MOST_FEW_BYTES, base_bytes // LARGE_FEW_SHARE)), base_bytes // FEW_SHARE)
