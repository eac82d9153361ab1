# SPDX-License-Identifier: Apache-2.0
"""What a power cut could leave of a copy and of what is kept beside it, before each step of a far side that is being run.

The model is that of `power.py`: what a file holds is durable once it was synced, and a name once its folder was. Until then a
file is as it was synced, or as it is, or a mixture of both by pages, and each name likewise.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import deltaimg.image.allocation as allocation
from tests.support.mirror import STEPS

_PAGE_BYTES = 4096
_utime = os.utime
_FOLDERS = ("", ".copy.mirror")


class CutDisk:
    """Looks at a folder before each step, and puts down beside it what a cut could leave; in the process that works on it."""

    def __init__(self, folder: Path, states: Path, seed: int) -> None:
        self._folder, self._states, self._random = folder, states, random.Random(seed)
        self._now: dict[int, tuple[bytes, int]] = {}
        """Content of each file, by inode, and when it was written last."""
        self._names: dict[str, int] = {}
        self._look()
        self._synced, self._synced_names = dict(self._now), dict(self._names)
        self._count = 0

    def watch(self) -> None:
        """Look before each step of this process from now on; nothing is really synced."""
        os.fsync = os.fdatasync = self._sync
        for name in STEPS:
            setattr(os, name, self._before(getattr(os, name)))
        allocation.punch_hole = self._before(allocation.punch_hole)  # type: ignore[assignment]

    def _before(self, call: Callable[..., object]) -> Callable[..., object]:
        def noted(*arguments: object, **options: object) -> object:
            self._look()
            for kind in ("lost", "mixed"):
                self._put_down(self._states / f"{self._count:03}-{call.__name__.strip('_')}-{kind}", kind)
            self._count += 1
            return call(*arguments, **options)

        return noted

    def _sync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self._look()
        if path.is_dir():
            prefix = f"{path.relative_to(self._folder)}/".removeprefix("./")
            inside = {name: inode for name, inode in self._names.items() if _is_in(name, prefix)}
            kept = {name: inode for name, inode in self._synced_names.items() if not _is_in(name, prefix)}
            self._synced_names = kept | inside
        else:
            inode = path.stat().st_ino
            self._synced[inode] = self._now[inode]

    def _look(self) -> None:
        self._names = {}
        for folder in _FOLDERS:
            if (self._folder / folder).is_dir():
                for entry in os.scandir(self._folder / folder):
                    if entry.is_file():
                        found = entry.stat()
                        self._now[found.st_ino] = Path(entry.path).read_bytes(), found.st_mtime_ns
                        self._names[os.path.join(folder, entry.name)] = found.st_ino

    def _put_down(self, state: Path, kind: str) -> None:
        """Make a folder with what a cut could leave now."""
        for folder in _FOLDERS:
            (state / folder).mkdir(parents=True, exist_ok=True)
        for name in sorted({*self._names, *self._synced_names}):
            possible = [self._synced_names.get(name), self._names.get(name)]
            inode = possible[0] if kind == "lost" else self._random.choice(possible)
            if inode is None:
                continue
            synced, now = self._synced.get(inode, (b"", 0)), self._now[inode]
            content, modified_ns = synced if kind == "lost" else self._mix(synced, now)
            (state / name).write_bytes(content)
            _utime(state / name, ns=(modified_ns, modified_ns))

    def _mix(self, synced: tuple[bytes, int], now: tuple[bytes, int]) -> tuple[bytes, int]:
        if synced[0] == now[0]:
            return self._random.choice((synced, now))
        size = len(self._random.choice((synced, now))[0])
        pages = (
            self._random.choice((synced, now))[0][start : start + _PAGE_BYTES].ljust(_PAGE_BYTES, b"\0")
            for start in range(0, size, _PAGE_BYTES)
        )
        return b"".join(pages)[:size], now[1]


def _is_in(name: str, prefix: str) -> bool:
    """Return whether a name is in the folder of this prefix, and not below."""
    return name.startswith(prefix) and "/" not in name[len(prefix) :]
