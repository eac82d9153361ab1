# SPDX-License-Identifier: Apache-2.0
"""A disk in memory whose power can be cut: at any moment it holds every state that a cut could leave behind.

It promises what POSIX does, which is less than what any journalling file system keeps:

- what a file holds is durable once the file was synced. Until then it may be what it was, what it is now, a part of that,
  zeros of its length, or that with any of its pages zero;
- a name (made, linked, renamed, removed; of a file or a folder) is durable once its folder was synced. Until then it may be
  anything that it has been since the last sync of that folder, independently of every other name, and in no order;
- syncing a file says nothing of its names, and syncing a folder nothing of what its files hold.

Source  T. S. Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014), whose abstract persistence model this is.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deltaimg.store.file_names import find_writer
from deltaimg.store.file_port import FilePort

ROOT = "/simulated-disk"
"""Where the disk seems to be mounted; nothing of that name exists."""
PAGE_BYTES = 4096

Objects = dict[str, bytes]
"""What a disk holds: relative path to content."""


@dataclass(slots=True, eq=False)
class _File:
    synced: bytes = b""
    now: bytes = b""

    def outcomes(self) -> list[bytes]:
        """Return what a power cut could leave of it: first what it is, then what was surely there."""
        if self.now == self.synced:
            return [self.now]
        pages = [(start, min(start + PAGE_BYTES, len(self.now))) for start in range(0, len(self.now), PAGE_BYTES)]
        torn = [self.now[:start] + bytes(end - start) + self.now[end:] for start, end in {pages[0], pages[-1]}]
        cut = [self.now[: len(self.now) // 2], self.now[: (len(pages) - 1) * PAGE_BYTES]]
        return list(dict.fromkeys([self.now, self.synced, bytes(len(self.now)), *torn, *cut]))


@dataclass(slots=True, eq=False)
class _Name:
    """A name in a folder: what it stands for, and all it has stood for since the folder was last synced."""

    now: _Node | None
    possible: list[_Node | None]

    def become(self, node: _Node | None) -> None:
        self.now = node
        if node not in self.possible:
            self.possible.append(node)


@dataclass(slots=True, eq=False)
class _Folder:
    names: dict[str, _Name] = field(default_factory=dict)

    def get(self, name: str) -> _Node | None:
        found = self.names.get(name)
        return found.now if found else None

    def put(self, name: str, node: _Node | None) -> None:
        if name in self.names:
            self.names[name].become(node)
        else:
            self.names[name] = _Name(node, [None, node])

    def sync(self) -> None:
        self.names = {name: _Name(each.now, [each.now]) for name, each in self.names.items() if each.now is not None}


_Node = _File | _Folder
_Choice = _Name | _File


class SimulatedDisk(FilePort):
    """What `objects` holds, durably, below `folder`; then whatever is done to it through the port.

    Args:
        on_cut: called after each call that changes something, with its name, while the disk stands still.
    """

    def __init__(
        self,
        objects: Mapping[str, bytes] | None = None,
        *,
        folder: str = f"{ROOT}/repo",
        on_cut: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = folder
        self.on_cut = on_cut
        self._root = _Folder()
        self._open: dict[int, _File] = {}
        self._descriptors = itertools.count(1000)
        self._lock = threading.RLock()
        for name, data in (objects or {}).items():
            parent = self._root
            *folders, last = os.path.relpath(f"{folder}/{name}", ROOT).split("/")
            for each in folders:
                parent = parent.names.setdefault(each, _settled(_Folder())).now  # type: ignore[assignment]
            parent.names[last] = _settled(_File(data, data))

    # -- the port ----------------------------------------------------------------------------------------------------

    def create(self, path: str) -> int:
        with self._lock:
            folder, name = self._place(path)
            if folder.get(name) is not None:
                raise FileExistsError(errno.EEXIST, "exists", path)
            descriptor = next(self._descriptors)
            self._open[descriptor] = file = _File()
            folder.put(name, file)
            self._done("create")
            return descriptor

    def write(self, descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
        with self._lock:
            self._open[descriptor].now += b"".join(parts)
            self._done("write")

    def sync(self, descriptor: int) -> None:
        with self._lock:
            self._open[descriptor].synced = self._open[descriptor].now
            self._done("sync")

    def close(self, descriptor: int) -> None:
        with self._lock:
            del self._open[descriptor]

    def link(self, source: str, target: str) -> None:
        with self._lock:
            node = self._need(source)
            folder, name = self._place(target)
            if folder.get(name) is not None:
                raise FileExistsError(errno.EEXIST, "exists", target)
            folder.put(name, node)
            self._done("link")

    def rename(self, source: str, target: str) -> None:
        with self._lock:
            node = self._need(source)
            for path, what in ((target, node), (source, None)):
                folder, name = self._place(path)
                folder.put(name, what)
            self._done("rename")

    def unlink(self, path: str) -> None:
        with self._lock:
            self._need(path)
            folder, name = self._place(path)
            folder.put(name, None)
            self._done("unlink")

    def make_folder(self, path: str) -> None:
        with self._lock:
            folder, name = self._place(path)
            if folder.get(name) is not None:
                raise FileExistsError(errno.EEXIST, "exists", path)
            folder.put(name, _Folder())
            self._done("make_folder")

    def make_outer_folder(self, path: str) -> None:
        self.make_folder(path)

    def sync_folder(self, path: str) -> None:
        with self._lock:
            self._folder(path).sync()
            self._done("sync_folder")

    def is_folder(self, path: str) -> bool:
        with self._lock:
            return isinstance(self._find(path), _Folder)

    def stat(self, path: str) -> os.stat_result:
        with self._lock:
            node = self._find(path)
            if node is None:
                raise FileNotFoundError(errno.ENOENT, "nothing there", path)
            return _Entry(os.path.basename(path), path, node).stat()

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        with self._lock:
            data = self._need(path).now
            return data[offset:] if length is None else data[offset : offset + length]

    def scan_folder(self, path: str) -> Iterator[os.DirEntry[str]]:
        with self._lock:
            names = sorted((name, each.now) for name, each in self._folder(path).names.items() if each.now is not None)
        yield from (_Entry(name, f"{path}/{name}", node) for name, node in names)  # type: ignore[misc]

    # -- what a power cut leaves -------------------------------------------------------------------------------------

    def objects(self) -> Objects:
        """Return what is there now, durable or not: what a process that dies leaves."""
        return self._lay_out({})

    def states(self, bound: int, chance: random.Random) -> tuple[list[Objects], bool]:
        """Return what a power cut could leave now, and whether that is all of it.

        All combinations where they are at most `bound`; else everything kept, everything lost, each thing lost or kept
        alone, and combinations at random up to `bound`. Several of them may be equal.
        """
        with self._lock:
            choices = list(self._choices(self._root))
            counts = [len(_outcomes(choice)) for choice in choices]
            is_all = math.prod(counts) <= bound
            vectors = itertools.product(*map(range, counts)) if is_all else _some_vectors(counts, bound, chance)
            return [self._lay_out(dict(zip(choices, vector, strict=True))) for vector in vectors], is_all

    def _choices(self, folder: _Folder) -> Iterator[_Choice]:
        """Yield, once each, all names and files that more than one thing can become, but for temporary files: none is read."""
        seen: set[int] = set()
        pending: list[tuple[str, _Folder]] = [(ROOT, folder)]
        while pending:
            path, folder = pending.pop()
            for name, each in folder.names.items():
                if find_writer(name) is not None:
                    continue
                if len(each.possible) > 1:
                    yield each
                for node in each.possible:
                    if isinstance(node, _Folder):
                        pending.append((f"{path}/{name}", node))
                    elif node is not None and id(node) not in seen and node.now != node.synced:
                        seen.add(id(node))
                        yield node

    def _lay_out(self, choice: Mapping[_Choice, int]) -> Objects:
        """Return what is below `folder` if each name and file becomes what is chosen for it, or else what it is now."""
        objects: Objects = {}

        def visit(path: str, folder: _Folder) -> None:
            for name, each in folder.names.items():
                node = each.possible[choice[each]] if each in choice else each.now
                where = f"{path}/{name}"
                if isinstance(node, _Folder):
                    visit(where, node)
                elif node is not None and find_writer(name) is None and where.startswith(f"{self.folder}/"):
                    objects[where.removeprefix(f"{self.folder}/")] = _outcomes(node)[choice.get(node, 0)]

        with self._lock:
            visit(ROOT, self._root)
        return objects

    # -- paths -------------------------------------------------------------------------------------------------------

    def _done(self, what: str) -> None:
        if self.on_cut is not None:
            self.on_cut(what)

    def _find(self, path: str) -> _Node | None:
        node: _Node | None = self._root
        for name in filter(None, path.removeprefix(ROOT).split("/")):
            node = node.get(name) if isinstance(node, _Folder) else None
        return node

    def _folder(self, path: str) -> _Folder:
        found = self._find(path)
        if not isinstance(found, _Folder):
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        return found

    def _need(self, path: str) -> _File:
        found = self._find(path)
        if not isinstance(found, _File):
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return found

    def _place(self, path: str) -> tuple[_Folder, str]:
        return self._folder(os.path.dirname(path)), os.path.basename(path)


class _Entry:
    """As much of os.DirEntry as the local store uses."""

    def __init__(self, name: str, path: str, node: _Node) -> None:
        self.name, self.path, self._node = name, path, node

    def is_symlink(self) -> bool:
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return isinstance(self._node, _Folder)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        size = len(self._node.now) if isinstance(self._node, _File) else 0
        return os.stat_result((0o100600, id(self._node), 0, 1, 0, 0, size, 0, 0, 0))


def _settled(node: _Node) -> _Name:
    return _Name(node, [node])


def _outcomes(choice: _Choice) -> Sequence[_Node | None] | list[bytes]:
    return choice.possible if isinstance(choice, _Name) else choice.outcomes()


def _some_vectors(counts: list[int], bound: int, chance: random.Random) -> Iterator[tuple[int, ...]]:
    last = [count - 1 for count in counts]
    yield tuple(last)
    yield (0,) * len(counts)
    for place, count in enumerate(counts):
        for value in range(count):
            yield (*last[:place], value, *last[place + 1 :])
        yield (*(0,) * place, last[place], *(0,) * (len(counts) - place - 1))
    for _ in range(bound):
        yield tuple(chance.randrange(count) for count in counts)
