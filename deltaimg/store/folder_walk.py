# SPDX-License-Identifier: Apache-2.0
"""The objects below a folder, in order of name, and no other files.

A link to a folder is followed where objects can lie in it: it was moved to another disk. No other link is.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from deltaimg.posix import describe_mode
from deltaimg.store.failures import dangling_link
from deltaimg.store.file_names import find_writer, to_file_name, to_name
from deltaimg.store.file_port import FilePort
from deltaimg.store.interface import Layout, ObjectInfo, Unfinished

_MAX_LEVELS = 8
"""Of folders below one another: more than there ever are, and few enough to find out about a link to a folder above."""


def walk(port: FilePort, root: str, prefix: str, layout: Layout) -> Iterator[ObjectInfo]:
    """Yield the objects of `layout` in folder `prefix` of the store at `root`, and in those below.

    Args:
        prefix: without a slash at its end; empty for the whole store.

    Raises:
        FileNotFoundError: there is no such folder. StoreUnavailable: one below is a link to a place that is not there. OSError.
    """
    for name, entry, is_folder in _list_entries(port, root, prefix):
        if is_folder and layout.has_folder(name):
            with suppress(FileNotFoundError):  # deleted since it was listed
                yield from walk(port, root, name, layout)
        elif entry.is_symlink() and _is_missing_folder(layout, name, entry):
            raise dangling_link(name, entry.path)
        elif find_writer(entry.name) is None:
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and layout.has_object(name):
                    yield ObjectInfo(name, found.st_size)
                else:
                    layout.note_foreign(name, describe_mode(found.st_mode))


def walk_unfinished(port: FilePort, root: str, layout: Layout, prefix: str = "") -> Iterator[Unfinished]:
    """Yield the temporary files in all folders of `layout`; raises OSError."""
    for entry in port.scan_folder(os.path.join(root, to_file_name(prefix))):
        writer = find_writer(entry.name)
        with suppress(FileNotFoundError):
            if writer is not None:
                found = entry.stat(follow_symlinks=False)
                yield Unfinished(os.path.join(prefix, entry.name), found.st_size, writer, found.st_mtime)
            elif _is_folder(entry) and layout.has_folder(name := os.path.join(prefix, to_name(entry.name))):
                yield from walk_unfinished(port, root, layout, name)


def _list_entries(port: FilePort, root: str, prefix: str) -> list[tuple[str, os.DirEntry[str], bool]]:
    """Return what is in a folder with its names in the store, and whether it is a folder, in order of whole names."""
    if prefix.count("/") > _MAX_LEVELS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), prefix)
    start = f"{prefix}/" if prefix else ""
    entries = port.scan_folder(os.path.join(root, to_file_name(prefix)))
    named = [(f"{start}{to_name(entry.name)}", entry, _is_folder(entry)) for entry in entries]
    return sorted(named, key=lambda each: f"{each[0]}/" if each[2] else each[0])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or to where this user may not look
        return False


def _is_missing_folder(layout: Layout, name: str, link: os.DirEntry[str]) -> bool:
    """Return whether there is a dangling symbolic link where only a folder can be."""
    return layout.has_folder(name) and not layout.has_object(name) and not os.path.exists(link.path)
