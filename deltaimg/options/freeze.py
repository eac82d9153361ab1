# SPDX-License-Identifier: Apache-2.0
"""How an image is frozen while it is read: a part of the options of `backup`."""

from __future__ import annotations

from msgspec import Struct

FREEZE_MODES = ("none", "auto", "reflink", "btrfs", "lvm", "rbd", "hook")
DEFAULT_HOOK_S = 60
MAX_HOOK_S = 86_400


class FreezeOptions(Struct, frozen=True, kw_only=True):
    """How an image is frozen. `deltaimg.options.backup.BackupOptions` has the same names, with help."""

    freeze: str = "none"
    pre_freeze: str | None = None
    """A command for the shell that stops the writers."""
    post_freeze: str | None = None
    """A command for the shell that lets them continue; it runs whatever happens."""
    hook_limit_s: int = DEFAULT_HOOK_S
    """How long each command may take, in seconds."""
    snapshot_bytes: int | None = None
    """The size of an LVM snapshot that is not thin; None chooses one."""
