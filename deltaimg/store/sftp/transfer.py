# SPDX-License-Identifier: Apache-2.0
"""The bytes of files, read and written with many requests under way at once.

Memory  of one transfer at most `_WINDOW_BYTES` of requests that wait for an answer, and what is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import asyncssh
from msgspec import Struct, field

from deltaimg.errors import NotAnObject, ObjectTooLarge
from deltaimg.posix import describe_mode
from deltaimg.store.interface import Parts
from deltaimg.store.pieces import cut
from deltaimg.store.sftp.failures import LOST, MISSING
from deltaimg.store.sftp.session import Link

Result = TypeVar("Result")
_WINDOW_BYTES = 8 << 20
"""Sent or asked for without an answer: a line of 1 Gbit/s and 60 ms holds as much."""
_COMPARED_BYTES = 64 << 10
"""Of what an earlier connection wrote, read again before more is added to it: a server may have lost it in a crash."""
_FILE_MODE = 0o660
"""Of which the server's umask takes away."""
PROBABLY_REGULAR = {asyncssh.FILEXFER_TYPE_REGULAR, asyncssh.FILEXFER_TYPE_UNKNOWN}
"""What is said of a regular file; some servers do not say what a file is."""


class Upload(Struct):
    """A file that is being written under a temporary name, over as many connections as it takes."""

    path: bytes
    parts: Parts
    has_begun: bool = False
    written_bytes: int = 0
    """So many from the beginning the server has confirmed."""
    is_published: bool = False
    claims: set[bytes] = field(default_factory=set)
    """Names of files by which it claims its own, where there are no hard links."""

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return sum(len(part) for part in self.parts)


async def read_file(
    link: Link, path: bytes, name: str, start: int = 0, length: int | None = None, max_bytes: int | None = None
) -> bytes:
    """Return `length` bytes of a file from `start`, or all to its end; fewer only where it ends.

    Raises:
        NotAnObject: it is no regular file. ObjectTooLarge: it has more than `max_bytes`. SFTPError.
    """
    # A named pipe in place of a file would block the server, which opens it as it opens files.
    found = await link.ask(link.client.lstat(path))
    if found.type not in PROBABLY_REGULAR:
        raise NotAnObject(name, describe_mode(found.permissions or 0))
    size_bytes = found.size or 0
    if max_bytes is not None and size_bytes > max_bytes:
        raise ObjectTooLarge(name, size_bytes, max_bytes)
    end = size_bytes if length is None else min(size_bytes, start + length)
    if start >= end:
        return b""
    async with _open(link, path, asyncssh.FXF_READ) as file:
        return await _read(link, file, start, end)


async def write_file(link: Link, upload: Upload) -> None:
    """Write a new file and sync it, where the server can; what an earlier connection wrote is kept."""
    start = await _find_start(link, upload) if upload.written_bytes else 0
    upload.written_bytes = start
    is_first, upload.has_begun = not upload.has_begun, True
    flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | (asyncssh.FXF_EXCL if is_first else 0)
    async with _open(link, upload.path, flags) as file:
        window = _Window(link)
        try:
            async with window:
                place = start
                for piece in cut(upload.parts, _choose_piece_bytes(link), start):
                    await _wait(link, link.pace.delay_sent(len(piece)) if link.pace else 0.0)
                    await window.add(partial(file.write, piece, place), len(piece))
                    place += len(piece)
                # Servers do what is asked of one file in its order.
                await window.add(partial(_sync, file), 0)
                await window.drain()
        finally:
            upload.written_bytes = start + window.done_bytes


async def holds(link: Link, path: bytes, name: str, parts: Parts) -> bool:
    """Return whether a file has the same bytes."""
    size_bytes = sum(len(part) for part in parts)
    try:
        found = await read_file(link, path, name, max_bytes=size_bytes)
    except (*MISSING, NotAnObject, ObjectTooLarge):
        return False
    return found == b"".join(parts)


class _Window:
    """Requests under way, answered in any order and counted in that of their beginning; closed, none is left."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._tasks: deque[tuple[asyncio.Future[Any], int]] = deque()
        self._waiting_bytes = 0
        self.done_bytes = 0
        """How many from the beginning are confirmed."""

    async def __aenter__(self) -> _Window:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._tasks and self._tasks[0][0].done() and not self._tasks[0][0].exception():
            self.done_bytes += self._tasks.popleft()[1]
        for task, _count in self._tasks:
            task.cancel()
        await asyncio.gather(*(task for task, _count in self._tasks), return_exceptions=True)

    async def add(self, request: Callable[[], Awaitable[Any]], count: int) -> None:
        """Begin a request for `count` bytes, once there is room for it."""
        while self._tasks and (self._waiting_bytes + count > _WINDOW_BYTES or self._tasks[0][0].done()):
            await self._take()
        self._tasks.append((asyncio.ensure_future(self._ask(request)), count))
        self._waiting_bytes += count

    async def drain(self) -> None:
        """Wait for all."""
        while self._tasks:
            await self._take()

    async def _ask(self, request: Callable[[], Awaitable[Any]]) -> None:
        """Make a request only now, so that none is left of one that was cancelled before it began."""
        await self._link.ask(request())

    async def _take(self) -> None:
        task, count = self._tasks[0]
        await asyncio.shield(task)
        self._tasks.popleft()
        self._waiting_bytes -= count
        self.done_bytes += count


async def _read(link: Link, file: asyncssh.SFTPClientFile, start: int, end: int) -> bytes:
    pace = link.pace
    step = _choose_piece_bytes(link)
    pieces: list[asyncio.Future[bytes]] = []
    async with _Window(link) as window:
        for place in range(start, end, step):
            count = min(step, end - place)
            await _wait(link, pace.delay_received(count) if pace else 0.0)
            answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            pieces.append(answer)
            await window.add(partial(_fill, answer, file, place, count), count)
        await window.drain()
    return b"".join(piece.result() for piece in pieces)


async def _fill(answer: asyncio.Future[bytes], file: asyncssh.SFTPClientFile, place: int, count: int) -> None:
    """Read so many bytes, fewer only where the file ends: a server may answer with fewer."""
    got: bytes = await file.read(count, place)
    while 0 < len(got) < count:
        more: bytes = await file.read(count - len(got), place + len(got))
        if not more:
            break
        got += more
    answer.set_result(got)


async def _sync(file: asyncssh.SFTPClientFile) -> None:
    with suppress(asyncssh.SFTPOpUnsupported):
        await file.fsync()


def _choose_piece_bytes(link: Link) -> int:
    return link.piece_bytes if link.pace is None else min(link.piece_bytes, link.pace.piece_bytes)


async def _wait(link: Link, delay_s: float) -> None:
    """Wait for a pace; meanwhile no answer is missing."""
    if delay_s > 0:
        await asyncio.sleep(delay_s)
        link.note_answer()


async def _find_start(link: Link, upload: Upload) -> int:
    """Return how much of a file an earlier connection has certainly written; 0 where its end is not what was sent."""
    confirmed = upload.written_bytes
    first = max(0, confirmed - _COMPARED_BYTES)
    try:
        found = await read_file(link, upload.path, "", first, confirmed - first)
    except (*MISSING, NotAnObject):
        return 0
    sent = b"".join(cut(upload.parts, confirmed - first, first))[: confirmed - first]
    return confirmed if found == sent else 0


@asynccontextmanager
async def _open(link: Link, path: bytes, flags: int) -> AsyncIterator[asyncssh.SFTPClientFile]:
    """Open a file; for the answer to closing it only a writer waits."""
    attributes = asyncssh.SFTPAttrs(permissions=_FILE_MODE) if flags & asyncssh.FXF_CREAT else asyncssh.SFTPAttrs()
    file = await link.ask(link.client.open(path, flags, attributes, encoding=None, block_size=0))
    try:
        yield file
    finally:
        closing = asyncio.ensure_future(_close(link, file))
        if flags & asyncssh.FXF_WRITE:
            await closing
        else:
            link.keep(closing)


async def _close(link: Link, file: asyncssh.SFTPClientFile) -> None:
    with suppress(asyncssh.SFTPError, *LOST):
        await link.ask(file.close())
