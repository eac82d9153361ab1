# SPDX-License-Identifier: Apache-2.0
"""Snapshots as files of a folder."""

from __future__ import annotations

from collections.abc import Callable

from deltaimg.engine.mount.run import mount as mount_snapshots
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.repo.repository import Repository


def mount(
    repository: Repository,
    folder: str,
    *,
    is_shared: bool = False,
    on_mounted: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> None:
    """Show all snapshots in `folder`, an empty one, as files that can only be read, until it is unmounted.

    Each image has a folder, in which each snapshot is a file, named by its time and id. Only what programs read of a file is
    decoded, and every block is verified. New snapshots appear as they are made. A prune waits only for those that are open.

    Args:
        is_shared: with other users as well. Root may always do that, others where /etc/fuse.conf has `user_allow_other`.
        on_mounted: called once they can be seen.

    Raises:
        UsageError: it cannot be mounted there, or FUSE is not installed.
    """
    mount_snapshots(repository, folder, is_shared=is_shared, on_mounted=on_mounted, progress=progress or NoProgress())
