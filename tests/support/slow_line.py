# SPDX-License-Identifier: Apache-2.0
"""A line to a server of this machine that takes its time, and can be cut: a TCP proxy in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

_CHUNK_BYTES = 1 << 16


class SlowLine:
    """Passes connections on to a port of this machine. A context manager.

    What is sent arrives `delay_s` later, in either direction, however much is on its way: a round trip takes twice as long.
    """

    def __init__(self, target_port: int, *, delay_s: float = 0.0, bytes_per_s: float | None = None) -> None:
        """Args: bytes_per_s: so much passes in each direction, all connections together; any amount if None."""
        self.delay_s, self._bytes_per_s = delay_s, bytes_per_s
        self._free_at_s = {True: 0.0, False: 0.0}
        """When all that is on its way will have passed, by direction."""
        self.requests = 0
        """HTTP requests that were sent: what is encrypted does not count."""
        self.is_cut = False
        """While it is, connections are closed as soon as they are made."""
        self.sent_bytes = self.received_bytes = self.connections = 0
        self.cut_after_bytes: int | None = None
        """Once so much was sent to the server, in all, the line is cut once."""
        self._target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> SlowLine:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._begin, "127.0.0.1", 0, limit=_CHUNK_BYTES))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def limit(self, bytes_per_s: float) -> None:
        """Let no more pass from now on, in either direction."""
        self._bytes_per_s = bytes_per_s

    def cut(self) -> None:
        """Reset all connections that are open."""
        self._run(self._reset())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reset(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection: of a task that asyncio made itself, it would report that it was cancelled."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.is_cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        try:
            await asyncio.gather(
                self._pump(reader, far_writer, is_up=True), self._pump(far_reader, writer, is_up=False)
            )
        except OSError:
            pass
        finally:
            self._open -= {writer, far_writer}
            writer.transport.abort()
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)
        delivering = asyncio.ensure_future(self._deliver(queue, writer))
        try:
            while data := await reader.read(_CHUNK_BYTES):
                await self._wait_for_room(len(data), is_up=is_up)
                await self._count(data, is_up=is_up)
                await queue.put((self._loop.time() + self.delay_s, data))
            await queue.put((self._loop.time() + self.delay_s, b""))
            await delivering
        finally:
            delivering.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await delivering

    async def _wait_for_room(self, size: int, *, is_up: bool) -> None:
        """Wait until so many bytes have passed, after those of all connections that came before."""
        if self._bytes_per_s is not None:
            now_s = self._loop.time()
            self._free_at_s[is_up] = max(now_s, self._free_at_s[is_up]) + size / self._bytes_per_s
            await asyncio.sleep(self._free_at_s[is_up] - now_s)

    async def _count(self, data: bytes, *, is_up: bool) -> None:
        if not is_up:
            self.received_bytes += len(data)
            return
        self.sent_bytes += len(data)
        self.requests += data.count(b" HTTP/1.1\r\n")
        if self.cut_after_bytes is not None and self.sent_bytes >= self.cut_after_bytes:
            self.cut_after_bytes = None
            await self._reset()

    async def _deliver(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await queue.get()
            if (wait_s := due - self._loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if not data:
                with suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
