# SPDX-License-Identifier: Apache-2.0
"""What is known of a file system, whichever it is, and the functions that recognise each kind."""

from __future__ import annotations

from msgspec import Struct


class FileSystem(Struct, frozen=True, kw_only=True):
    """A file system, swap space or LVM physical volume, as its own structures describe it. Sizes in bytes."""

    kind: str
    """As blkid calls it: `ext4`, `xfs`, `ntfs`, `btrfs`, `vfat`, `swap`, `LVM2_member`."""
    label: str = ""
    """Of an LVM physical volume the name of its volume group."""
    uuid: str = ""
    size_bytes: int
    """What it takes of its partition."""
    block_bytes: int
    """The unit in which it allocates."""
    free_bytes: int | None = None
    """What it counts as free; None where that is not known."""
    is_clean: bool | None = None
    """Whether it was unmounted in order; None where its superblock does not say."""

    @property
    def used_bytes(self) -> int | None:
        """What is not free."""
        return None if self.free_bytes is None else self.size_bytes - self.free_bytes
