# SPDX-License-Identifier: Apache-2.0
"""What sync tools, file managers, network file systems and people leave in folders."""

from __future__ import annotations

import os
import socket
from pathlib import Path

FILE_NAMES = [
    b".nfs000000000012ab00000001",
    b".DS_Store",
    b"._manifest",
    b"Thumbs.db.bak~",
    b"x (conflicted copy 2026-11-23).raw~",
    b"#notes#@",
    b".swp.swp",
    b"AB" * 32,
    b"ab" * 32 + b" (copy)@",
    b"caf\xe9-latin1@",
    b"two\nlines",
]
FOLDER_NAMES = [b".Trash-1000", b"@eaDir", b"lost+found", b".snapshot", b"CD~"]


def strew(repo: Path) -> set[bytes]:
    """Leave one of everything in each folder of a repository; return the paths of what was left."""
    folders = [os.fsencode(folder) for folder, _, _ in os.walk(repo)]
    left: set[bytes] = set()
    for folder in folders:
        left |= _strew_folder(folder)
    return left


def _strew_folder(folder: bytes) -> set[bytes]:
    left = set()
    for name in FILE_NAMES:
        left.add(path := os.path.join(folder, name))
        Path(os.fsdecode(path)).write_bytes(b"not ours")
    for name in FOLDER_NAMES:
        left.add(path := os.path.join(folder, name))
        os.mkdir(path)
        Path(os.fsdecode(os.path.join(path, b"inside"))).write_bytes(b"not ours")
    for name, make in (
        (b".pipe", os.mkfifo),
        (b".socket", _make_socket),
        (b".dangling", lambda path: os.symlink(b"/nowhere/at/all", path)),
        (b".loop", lambda path: os.symlink(b".loop", path)),
        (b".up", lambda path: os.symlink(b"..", path)),
        (b".device", lambda path: os.symlink(b"/dev/zero", path)),
    ):
        left.add(path := os.path.join(folder, name))
        make(path)
    return left


def _make_socket(path: bytes) -> None:
    """Bind a socket by a short path: the system takes no more than 107 bytes."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{folder}/".encode() + os.path.basename(path))
    finally:
        os.close(folder)
