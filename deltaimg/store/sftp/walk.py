# SPDX-License-Identifier: Apache-2.0
"""What is in a store on a server: all folders of one level are listed at once, so that it takes round trips by depth.

A link to a folder is followed where objects can lie in it: it was moved to another disk. No other link is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import asyncssh
from msgspec import Struct

from deltaimg.store.interface import Layout
from deltaimg.store.sftp.folders import Entry, follow_links, list_folders
from deltaimg.store.sftp.session import Session

_MAX_LEVELS = 8
"""Of folders below one another: more than there ever are, and few enough to find out about a link to a folder above."""
_DIRECTORY, _LINK = asyncssh.FILEXFER_TYPE_DIRECTORY, asyncssh.FILEXFER_TYPE_SYMLINK


class Found(Struct, frozen=True):
    """Something in a store's folder that is no folder of its layout."""

    name: str
    type: int
    mode: int
    size_bytes: int
    modified_s: float


def walk(session: Session, root: bytes, prefix: str, layout: Layout) -> Iterator[Found]:
    """Yield what is in folder `prefix` of a store and in those below that `layout` has, in no order.

    Args:
        prefix: empty, or a folder and its slash.

    Raises:
        SFTPError. StoreUnavailable: a folder is a link to a place that is not there, or there is no connection.
    """
    starts = [prefix]
    parents = [prefix.removesuffix("/").rpartition("/")[0]] if prefix else []
    for _ in range(_MAX_LEVELS):
        listed = _list(session, root, [*starts, *parents])
        if parents and not _has_name(listed.pop(), prefix):
            return
        parents = []
        folders: list[str] = []
        links: list[str] = []
        for start, entries in zip(starts, listed, strict=True):
            for file_name, attributes in entries:
                name = start + to_text(file_name)
                is_ours = layout.has_folder(name)
                if is_ours and attributes.type == _DIRECTORY:
                    folders.append(name)
                elif is_ours and attributes.type == _LINK and not layout.has_object(name):
                    links.append(name)
                else:
                    yield _describe(name, attributes)
        starts = [f"{each}/" for each in (*folders, *_follow(session, root, links))]
        if not starts:
            return


def to_text(name: bytes) -> str:
    """Return what a file's name is as an object's; a byte that is not of UTF-8 becomes a surrogate, which no object's has."""
    return name.decode("utf-8", "surrogateescape")


def to_bytes(name: str) -> bytes:
    """The reverse of `to_text`."""
    return name.encode("utf-8", "surrogateescape")


def _list(session: Session, root: bytes, folders: Sequence[str]) -> list[list[Entry]]:
    paths = [_join(root, each.removesuffix("/")) for each in folders]
    return session.run(folders[0], lambda link: list_folders(link, paths))


def _join(root: bytes, name: str) -> bytes:
    return root.removesuffix(b"/") + b"/" + to_bytes(name) if name else root


def _has_name(entries: list[Entry], prefix: str) -> bool:
    """Return whether a folder is there by this very name: a server may find one of another name by it."""
    wanted = to_bytes(prefix.removesuffix("/").rpartition("/")[2])
    return any(file_name == wanted for file_name, _ in entries)


def _follow(session: Session, root: bytes, links: list[str]) -> list[str]:
    """Return the links that lead to folders."""
    if not links:
        return []
    paths = [_join(root, each) for each in links]
    are_folders = session.run(links[0], lambda link: follow_links(link, paths))
    return [name for name, is_folder in zip(links, are_folders, strict=True) if is_folder]


def _describe(name: str, attributes: asyncssh.SFTPAttrs) -> Found:
    return Found(name, attributes.type, attributes.permissions or 0, attributes.size or 0, float(attributes.mtime or 0))
