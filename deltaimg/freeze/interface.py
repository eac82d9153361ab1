# SPDX-License-Identifier: Apache-2.0
"""What every way to freeze an image promises. `methods` lists them.

A method makes a point in time that nothing writes to, in a moment, and removes it when its context ends. Where the process dies
before that, the method's next use on the same storage removes what is left; what a living process holds is never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec import Struct

from deltaimg.image.qemu.bitmaps import FileBitmap
from deltaimg.options.freeze import FreezeOptions


class Held(Protocol):
    """A point in time, as long as its context is open."""

    @property
    def path(self) -> str:
        """What to open and read."""
        ...

    @property
    def used_bytes(self) -> int:
        """What it has taken of the storage so far, where that is measured; else 0."""
        ...

    def find_failure(self) -> str | None:
        """Return why it is no longer that point in time, in words that follow the image's name; None if it is."""
        ...


class WantedBitmaps(Protocol):
    """Dirty bitmaps of a disk: one that is to begin at a point in time, and earlier ones that are to be served with it."""

    problem: str
    """Why no new one has begun, in words."""

    @property
    def new(self) -> str:
        """The name of the one that is to begin; empty if none is to."""
        ...

    def take_found(self, found: Sequence[FileBitmap]) -> None:
        """Take note of those that the disk has."""
        ...

    @property
    def usable(self) -> tuple[str, ...]:
        """Which of them are to be served."""
        ...

    @property
    def stale(self) -> tuple[str, ...]:
        """Which of them are to be removed at the end; none, unless what was read has become a snapshot."""
        ...


class FreezeRequest(Struct, frozen=True):
    """What is to be frozen."""

    path: str
    """The image as the user named it: a regular file or a block device."""
    options: FreezeOptions
    used_before: tuple[int, ...] = ()
    """`used_bytes` of earlier backups of the image, the newest first."""
    bitmaps: WantedBitmaps | None = None
    """For methods that can begin dirty bitmaps at the very moment; None where none are wanted."""
    is_still: bool = False
    """Whether nothing can write to it from before others of its group are frozen, so that it is of their moment."""


class Freezer(Protocol):
    """One way to freeze an image. Methods raise FreezeFailed, whose `problem` says why this way does not work here."""

    @property
    def name(self) -> str:
        """As `--freeze` has it."""
        ...

    def remove_leftovers(self, paths: Sequence[str]) -> list[str]:
        """Remove what dead processes left on the storage of images; return their names. Nothing, where it cannot be used.

        Storage that several of them are on is searched once.

        Raises:
            ImageError: an image itself cannot be opened, by no method.
        """
        ...

    def check(self, request: FreezeRequest) -> None:
        """Raise FreezeFailed if `hold` would, as far as that shows without leaving anything."""
        ...

    def hold(self, request: FreezeRequest) -> AbstractContextManager[Held]:
        """Make a point in time; it is removed at the end of the context."""
        ...


class Unfrozen(Struct, frozen=True):
    """The image itself, read as it is."""

    path: str
    used_bytes: int = 0

    def find_failure(self) -> str | None:
        """Return None: it never was another point in time than now."""
        return None
