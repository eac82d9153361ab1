# SPDX-License-Identifier: Apache-2.0
"""A proxy on this host's loopback, through which a client that cannot be slowed down sends and receives at a pace.

Clients of object storage take a whole request and send it as fast as the line is. A proxy sees every byte, TLS and all, and
passes it on piece by piece, each after its wait: no second has noticeably more than its share, in either direction. It speaks
what HTTP has for proxies (RFC 9110, 7.6 and 9.3.6): `CONNECT host:port` for https, absolute addresses for http. Where the
environment names a proxy (`HTTPS_PROXY`, `NO_PROXY`, …), bytes go on to that.

Always  it serves who knows the password in `url`, and no other process of this host; it ends with the process.
Memory  a piece for each direction of each connection, and as much in the system's buffers.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Callable
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from msgspec import Struct

from deltaimg.store.interface import Pace

_CONNECT_S = 10.0
_LEAST_BUFFER_BYTES = 64 << 10
_BUFFERED_PIECES = 8
"""What the system takes in advance of a pace: 0.4 s of it."""
_PORTS = {"http": 80, "https": 443}
_AUTHORIZATION = re.compile(rb"\r\nproxy-authorization:[^\r\n]*", re.IGNORECASE)


class PacedRelay:
    """Listens at a port of the loopback, in a thread of its own, until it is closed."""

    def __init__(self, pace: Pace) -> None:
        """Raises OSError where no port is free."""
        self._pace = pace
        self._proxies = {name: _split(url) for name, url in getproxies_environment().items() if name != "no" and url}
        # Each request over http repeats the password, and a proxy that they go on to wants to see its own.
        user = _user_of(self._proxies.get("http")) or f"deltaimg:{secrets.token_hex(16)}"
        self._authorization = _authorize(user)
        self.failure = ""
        """The kind of the error that the newest connection failed with; empty when it could be made."""
        self._buffer_bytes = max(_LEAST_BUFFER_BYTES, _BUFFERED_PIECES * pace.piece_bytes)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        self.url = f"http://{user}@127.0.0.1:{listener.getsockname()[1]}"
        self._loop, self._closed = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(listener,), name="paced relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close all connections."""
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen(listener))

    async def _listen(self, listener: socket.socket) -> None:
        """Serve connections until the relay is closed; what is served then is cancelled when this returns."""
        serving: set[asyncio.Task[None]] = set()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            serving.add(task)
            task.add_done_callback(serving.discard)

        server = await asyncio.start_server(begin, sock=listener, limit=self._pace.piece_bytes)
        await self._closed.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the client."""
        onward: asyncio.StreamWriter | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            request = _Request.parse(head)
            if not hmac.compare_digest(request.authorization, self._authorization):
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            answers, onward = await self._connect(request, head, writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, onward, self._pace.delay_sent))
                both.create_task(self._pass_on(answers, writer, self._pace.delay_received))
        except* (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # The client sees that its connection is closed, and `failure` why.
        finally:
            for each in (onward, writer):
                if each is not None:
                    each.close()

    async def _connect(
        self, request: _Request, head: bytes, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to where a request goes, and begin the conversation there."""
        proxy = self._find_proxy(request)
        host, port = (request.host, request.port) if proxy is None else _address_of(proxy)
        secure = ssl.create_default_context() if proxy is not None and proxy.scheme == "https" else None
        try:
            answers, onward = await asyncio.wait_for(
                asyncio.open_connection(host, port, ssl=secure, limit=self._pace.piece_bytes), _CONNECT_S
            )
        except (OSError, TimeoutError) as error:
            self.failure = _KINDS.get(type(error), "HostUnreachable")
            raise
        self.failure = ""
        onward.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        if proxy is None and request.is_tunnel:
            writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        else:
            user = _user_of(proxy)
            await asyncio.sleep(self._pace.delay_sent(len(head)))
            onward.write(_AUTHORIZATION.sub(b"\r\nProxy-Authorization: " + _authorize(user) if user else b"", head))
        return answers, onward

    def _find_proxy(self, request: _Request) -> SplitResult | None:
        """Return the proxy that the environment names for a request; None where there is none."""
        if proxy_bypass(f"{request.host}:{request.port}"):
            return None
        return self._proxies.get("https" if request.is_tunnel else "http") or self._proxies.get("all")

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: Callable[[int], float]
    ) -> None:
        """Pass on what comes until it ends, at the pace."""
        while piece := await reader.read(self._pace.piece_bytes):
            await asyncio.sleep(delay(len(piece)))
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()


class _Request(Struct, frozen=True):
    """Where the first request of a connection goes."""

    is_tunnel: bool
    host: str
    port: int
    authorization: bytes

    @classmethod
    def parse(cls, head: bytes) -> _Request:
        """Raises ValueError for what is no request to a proxy."""
        method, target, _ = head.partition(b"\r\n")[0].decode("ascii").split(" ")
        is_tunnel = method == "CONNECT"
        url = urlsplit(f"https://{target}" if is_tunnel else target)
        if not url.hostname:
            raise ValueError(target)
        found = _AUTHORIZATION.search(head)
        authorization = found[0].partition(b":")[2].strip() if found else b""
        return cls(is_tunnel, url.hostname, url.port or _PORTS[url.scheme], authorization)


_KINDS = {
    ConnectionRefusedError: "ConnectionRefused",
    socket.gaierror: "dns error",
    TimeoutError: "TimedOut",
    ConnectionResetError: "ConnectionReset",
}
"""Words that `object_storage_errors` reads."""


def _split(url: str) -> SplitResult:
    return urlsplit(url if "://" in url else f"http://{url}")


def _address_of(proxy: SplitResult) -> tuple[str, int]:
    if proxy.scheme not in _PORTS or not proxy.hostname:
        raise ValueError(proxy.scheme)
    return proxy.hostname, proxy.port or _PORTS[proxy.scheme]


def _user_of(proxy: SplitResult | None) -> str:
    if proxy is None or proxy.username is None:
        return ""
    return f"{proxy.username}:{proxy.password or ''}"


def _authorize(user: str) -> bytes:
    return b"Basic " + base64.b64encode(unquote(user).encode())
