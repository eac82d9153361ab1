# SPDX-License-Identifier: Apache-2.0
"""Options of `restore`."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.options.definition import flag


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What a restore may write to, and what it does about damage."""

    is_forced: bool = flag("Replace an existing file; write to a block device.", "--force", "-f")
    keep_going: bool = flag("Restore what can be read of a damaged snapshot, and list the rest.")
    is_synced: bool = flag("Wait until a new file is on the disk; devices and replaced files always are.", "--sync")
