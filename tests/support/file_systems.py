# SPDX-License-Identifier: Apache-2.0
"""File systems with less than POSIX: real ones where this machine has them, and one that folds names as a test says."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deltaimg.store.file_port import FilePort
from tests.support.components import loop_device, requires_root, skip_without

_PROGRAMS = {
    "exfat": (["mkfs.exfat"], ["mount.exfat-fuse"]),
    "vfat": (["mkfs.vfat"], ["mount", "-t", "vfat"]),
    "ntfs": (["mkfs.ntfs", "-q", "-f", "-F"], ["ntfs-3g", "-o", "windows_names"]),
}


@contextmanager
def mounted(kind: str, folder: Path, size_bytes: int = 64 << 20) -> Iterator[Path]:
    """Mount a new file system, exfat, vfat or ntfs, at `folder`, which is made."""
    requires_root()
    make, mount = _PROGRAMS[kind]
    for program in (make[0], mount[0]):
        if shutil.which(program) is None:
            skip_without(kind, f"there is no {program}")
    backing = folder.with_suffix(f".{kind}")
    with open(backing, "wb") as file:
        file.truncate(size_bytes)
    folder.mkdir()
    with loop_device(backing) as device:
        for command in ([*make, device], [*mount, device, str(folder)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            if done.returncode:
                skip_without(kind, f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}".replace("\n", " "))
        try:
            yield folder
        finally:
            for _ in range(50):  # the process behind it may still be writing
                if subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0:
                    break
                time.sleep(0.1)


class FoldingPort(FilePort):
    """A file system that finds a name by what `fold` makes of it, and keeps what `store` makes of it.

    Args:
        refuses: the error number for a name that cannot be kept, if it cannot.
    """

    def __init__(
        self,
        fold: Callable[[str], str] = lambda name: name,
        store: Callable[[str], str] = lambda name: name,
        refuses: Callable[[str], int | None] = lambda name: None,
    ) -> None:
        self._fold, self._store, self._refuses = fold, store, refuses

    def _resolve(self, path: str, *, is_new: bool = False) -> str:
        """Return the true path: each piece as it is kept, new ones as they are going to be."""
        folder, name = os.path.split(path)
        if not name or not os.path.basename(folder):
            return path
        folder = self._resolve(folder)
        if is_new and (number := self._refuses(name)) is not None:
            raise OSError(number, os.strerror(number), path)
        there = os.listdir(folder) if os.path.isdir(folder) else []
        found = next((each for each in there if self._fold(each) == self._fold(name)), None)
        return os.path.join(folder, found or self._store(name))

    def create(self, path: str) -> int:
        return super().create(self._resolve(path, is_new=True))

    def link(self, source: str, target: str) -> None:
        super().link(self._resolve(source), self._resolve(target, is_new=True))

    def rename(self, source: str, target: str) -> None:
        super().rename(self._resolve(source), self._resolve(target, is_new=True))

    def rename_exclusively(self, source: str, target: str) -> None:
        super().rename_exclusively(self._resolve(source), self._resolve(target, is_new=True))

    def unlink(self, path: str) -> None:
        super().unlink(self._resolve(path))

    def make_folder(self, path: str) -> None:
        super().make_folder(self._resolve(path, is_new=True))

    def sync_folder(self, path: str) -> None:
        super().sync_folder(self._resolve(path))

    def is_folder(self, path: str) -> bool:
        return super().is_folder(self._resolve(path))

    def stat(self, path: str) -> os.stat_result:
        return super().stat(self._resolve(path))

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        return super().read(self._resolve(path), offset, length)

    def scan_folder(self, path: str) -> Iterator[os.DirEntry[str]]:
        return super().scan_folder(self._resolve(path))


def ignores_case() -> FoldingPort:
    """As ext4 with casefold, vfat, exFAT, NTFS and APFS: names are kept as they are, and found in any case."""
    return FoldingPort(fold=str.casefold)


def normalises() -> FoldingPort:
    """As HFS+: names are kept decomposed, and found in either form."""
    return FoldingPort(
        fold=lambda name: unicodedata.normalize("NFD", name), store=lambda name: unicodedata.normalize("NFD", name)
    )


def _decompose(name: str) -> str:
    return unicodedata.normalize("NFD", name)


def drops_dots() -> FoldingPort:
    """As vfat and SMB: dots and spaces at the end of a name are lost."""
    return FoldingPort(fold=lambda name: name.rstrip(". "), store=lambda name: name.rstrip(". "))


def forbids(characters: str, number: int) -> FoldingPort:
    """A name with one of `characters` cannot be made: EINVAL says most, ENOENT exfat-fuse and CIFS, EPERM ntfs-3g."""
    return FoldingPort(refuses=lambda name: number if set(name) & set(characters) else None)


def keeps_short_names(longest: int) -> FoldingPort:
    """As eCryptfs, whose names are 143 bytes at most."""
    return FoldingPort(refuses=lambda name: errno.ENAMETOOLONG if len(name.encode()) > longest else None)
