# SPDX-License-Identifier: Apache-2.0
"""One SFTP session with a server, made again when it is lost.

An operation is a coroutine function that works on a `Link` and may be called again from its beginning: on a new connection,
after the one that it worked on was lost. Only operations for which that is safe are given to `Session.run`.

Always  a server that cannot be reached, and a line on which nothing comes back, end in an error: connecting, logging in and
        reconnecting take a bounded time, keep-alives find out about a dead line, and a server that answers those but no request
        for `answer_s` is given up.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import asyncssh
from msgspec import Struct, field
from msgspec.structs import replace

from deltaimg.errors import StoreError, StoreUnavailable
from deltaimg.store.interface import Pace
from deltaimg.store.sftp.address import SftpAddress
from deltaimg.store.sftp.connect import open_connection
from deltaimg.store.sftp.failures import LOST, connection_lost, explain_connect, is_lasting
from deltaimg.store.sftp.loop_thread import LoopThread

Result = TypeVar("Result")
_SAFE_BYTES, _MOST_BYTES = 32 << 10, 255 << 10
"""Of one read or write: what every server accepts, and what OpenSSH does."""
_FIRST_TRIES = 3
"""A server under load (MaxStartups) drops some connections before the login."""


class SessionLimits(Struct, frozen=True):
    """Times in seconds."""

    connect_s: float = 30.0
    """For connecting and logging in."""
    keepalive_s: float = 15.0
    """Between keep-alives; the fourth without an answer ends the connection."""
    answer_s: float = 300.0
    """As long may a server take for the next answer: disks spin up, and sync."""
    reconnect_s: float = 90.0
    """As long is a lost connection tried again."""
    tries: int = 6
    """Connections on which an operation may fail one after another without having got any further."""


class _LinkState(Struct):
    """What all operations on one connection have in common."""

    waiting: int = 0
    answers: int = 0
    answered_at: float = 0.0
    is_stuck: bool = False
    kept: set[asyncio.Future[Any]] = field(default_factory=set)


class Link(Struct):
    """A connection, as operations use it."""

    connection: asyncssh.SSHClientConnection
    client: asyncssh.SFTPClient
    pace: Pace | None
    attempt: int = 0
    """How often this operation has begun before."""
    state: _LinkState = field(default_factory=_LinkState)

    @property
    def piece_bytes(self) -> int:
        """How much one request may read or write."""
        limits = self.client.limits
        return max(_SAFE_BYTES, min(limits.max_read_len, limits.max_write_len, _MOST_BYTES))

    async def ask(self, request: Awaitable[Result]) -> Result:
        """Return the answer to a request."""
        if not self.state.waiting:
            self.note_answer()
        self.state.waiting += 1
        try:
            answer = await request
            self.state.answers += 1
            return answer
        finally:
            self.state.waiting -= 1
            self.note_answer()

    def note_answer(self) -> None:
        """Count the time in which the next answer is due from now."""
        self.state.answered_at = time.monotonic()

    def keep(self, task: asyncio.Future[Any]) -> None:
        """Let something finish for whose result no caller waits."""
        self.state.kept.add(task)
        task.add_done_callback(self.state.kept.discard)


Operation = Callable[[Link], Coroutine[Any, Any, Result]]


class Session:
    """Any number of threads may call `run`."""

    def __init__(self, address: SftpAddress, limits: SessionLimits | None = None) -> None:
        self._address, self._limits = address, limits or SessionLimits()
        self._loop = LoopThread("sftp")
        self._link: Link | None = None
        self._connecting: asyncio.Lock | None = None
        self._watch: asyncio.Task[None] | None = None
        self._was_connected = self._has_given_up = False
        self.pace: Pace | None = None
        """What transfers are to keep to."""

    def run(self, name: str, operation: Operation[Result]) -> Result:
        """Return what an operation on object `name` returns, done again where the connection was lost meanwhile.

        Raises:
            SFTPError: as the operation does, but for those of the connection. StoreError: there is no connection.
        """
        return self._loop.run(self._run(name, operation))

    def try_once(self, operation: Operation[Result]) -> None:
        """Try something on the connection that there is, if there is one; what fails is left undone."""
        if self._link is not None:
            with suppress(asyncssh.Error, OSError, StoreError, TimeoutError):
                self._loop.run(asyncio.wait_for(operation(self._link), self._limits.connect_s))

    def close(self) -> None:
        """End the connection; the next operation would make another."""
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):
                self._loop.run(_close(link))
        self._loop.close()
        self._connecting = self._watch = None

    # -- in the loop's thread ----------------------------------------------------------------------------------------

    async def _run(self, name: str, operation: Operation[Result]) -> Result:
        attempt = failures = 0
        while True:
            link = await self._get_link()
            before = link.state.answers
            try:
                return await operation(replace(link, attempt=attempt, pace=self.pace))
            except LOST as error:
                self._drop(link)
                attempt += 1
                failures = 1 if link.state.answers > before else failures + 1
                if link.state.is_stuck:
                    raise StoreUnavailable(
                        name,
                        f"{self._address.location}: the server did not answer for {self._limits.answer_s:.0f} seconds",
                        hint="see whether its disks are healthy, then run again",
                    ) from error
                if failures >= self._limits.tries:
                    raise connection_lost(self._address.location, name, error) from error

    async def _get_link(self) -> Link:
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._link is None:
                self._link = await (self._reconnect() if self._was_connected else self._connect_first())
                self._was_connected, self._has_given_up = True, False
                self._watch = asyncio.create_task(self._watch_answers(self._link))
            return self._link

    async def _connect_first(self) -> Link:
        for again in range(_FIRST_TRIES - 1):
            try:
                return await self._connect()
            except (asyncssh.ConnectionLost, ConnectionResetError):
                await asyncio.sleep(_choose_pause(again))
            except StoreError:
                raise
            except Exception as error:  # all that a foreign library may raise becomes one of ours
                raise self._explain(error) from error
        try:
            return await self._connect()
        except StoreError:
            raise
        except Exception as error:
            raise self._explain(error) from error

    async def _reconnect(self) -> Link:
        """Connect again, for `reconnect_s` at most; only once where that was in vain before."""
        deadline = time.monotonic() + (0 if self._has_given_up else self._limits.reconnect_s)
        for again in range(1 << 30):
            try:
                return await self._connect()
            except Exception as error:
                pause = _choose_pause(again)
                if is_lasting(error) or time.monotonic() + pause > deadline:
                    self._has_given_up = True
                    if isinstance(error, StoreError):
                        raise
                    raise self._explain(error) from error
                await asyncio.sleep(pause)
        raise AssertionError

    async def _connect(self) -> Link:
        limits = self._limits
        connection = await open_connection(self._address, limits.connect_s, limits.keepalive_s)
        try:
            client = await asyncio.wait_for(connection.start_sftp_client(), limits.connect_s)
        except BaseException:
            connection.abort()
            raise
        return Link(connection, client, self.pace)

    async def _watch_answers(self, link: Link) -> None:
        """Give up a connection on which requests wait and nothing is answered."""
        while True:
            await asyncio.sleep(self._limits.answer_s / 10)
            state = link.state
            if state.waiting and time.monotonic() - state.answered_at > self._limits.answer_s:
                state.is_stuck = True
                self._drop(link)

    def _drop(self, link: Link) -> None:
        """Forget a connection that was lost; whoever notices first does."""
        if self._link is not None and self._link.connection is link.connection:
            self._link = None
            if self._watch is not None:
                self._watch.cancel()
        link.connection.abort()

    def _explain(self, error: Exception) -> StoreError:
        return explain_connect(self._address.location, self._address.place, error)


async def _close(link: Link) -> None:
    link.client.exit()
    link.connection.close()
    await asyncio.wait_for(link.connection.wait_closed(), 5)


def _is_of_use(record: logging.LogRecord) -> bool:
    """Whether a message of asyncio says more than that a connection is lost, which it says once for each write."""
    return record.msg != "socket.send() raised exception."


logging.getLogger("asyncio").addFilter(_is_of_use)


def _choose_pause(again: int) -> float:
    """Return how many seconds to wait before the next attempt to connect."""
    return min(30.0, 0.5 * 2.0**again) * random.uniform(0.75, 1.25)
