# SPDX-License-Identifier: Apache-2.0
"""A connection to an NBD server: bytes out, bytes in, each within a time.

Invariant  what is received has a length that was known before; nothing is read to its end without a bound.
"""

from __future__ import annotations

import os
import socket
import struct
import time

from deltaimg.image.nbd.address import NbdAddress
from deltaimg.image.reader import SourceFailure

CONNECT_S = 20.0
ANSWER_S = 120.0
"""For a disk that has to start, and for the slowest line: each message must have come this long after it was waited for."""
_TIMEVAL = struct.Struct("@ll")


class NbdFailure(SourceFailure):
    """The server or the line failed, or the server does not keep to the protocol."""

    def repeat(self) -> NbdFailure:
        """Return an equal one, for another thread to raise."""
        return NbdFailure(self.problem, self.hint)


class Connection:
    """A stream socket. One thread sends at a time, and one receives."""

    def __init__(self, connected: socket.socket, answer_s: float = ANSWER_S) -> None:
        """Args: connected: closed by `close`. answer_s: what each message may take, in seconds."""
        self._socket, self._answer_s = connected, answer_s
        self._deadline_s = 0.0
        connected.settimeout(None)
        limit = _TIMEVAL.pack(int(answer_s), int(answer_s % 1 * 1e6))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def send(self, data: bytes) -> None:
        """Send all of `data`; raises NbdFailure."""
        try:
            self._socket.sendall(data)
        except BlockingIOError as error:
            raise self._late() from error
        except OSError as error:
            raise _broken(error) from error

    def expect_message(self) -> None:
        """Begin to wait for the next message: all of it must come within the time for an answer."""
        self._deadline_s = time.monotonic() + self._answer_s

    def receive_into(self, buffer: memoryview) -> None:
        """Fill `buffer` with what comes next; raises NbdFailure."""
        got = 0
        while got < len(buffer):
            try:
                more = self._socket.recv_into(buffer[got:], 0, socket.MSG_WAITALL)
            except BlockingIOError as error:
                raise self._late() from error
            except OSError as error:
                raise _broken(error) from error
            if not more:
                raise NbdFailure("the server closed the connection")
            got += more
            if got < len(buffer) and time.monotonic() > self._deadline_s:
                raise self._late()

    def receive(self, length: int) -> bytes:
        """Return what comes next; raises NbdFailure. The caller has checked that `length` is not absurd."""
        buffer = bytearray(length)
        self.receive_into(memoryview(buffer))
        return bytes(buffer)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _late(self) -> NbdFailure:
        return NbdFailure(f"the server did not answer within {self._answer_s:g} seconds")


def connect(address: NbdAddress, answer_s: float = ANSWER_S) -> Connection:
    """Connect to the server of an export; raises NbdFailure."""
    try:
        if address.socket_path is None:
            connected = socket.create_connection((address.host, address.port), CONNECT_S)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        else:
            connected = _connect_here(address.socket_path)
    except TimeoutError as error:
        problem = f"{address.server} did not answer within {CONNECT_S:g} seconds"
        raise NbdFailure(problem, hint="is the server running, and does a firewall let this host pass?") from error
    except OSError as error:
        problem = f"cannot be connected to {address.server}: {_explain(error)}"
        raise NbdFailure(problem, hint="is the server running there?") from error
    return Connection(connected, answer_s)


def _connect_here(path: str) -> socket.socket:
    """Return a connection to a socket of this host; raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.settimeout(CONNECT_S)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


def _broken(error: OSError) -> NbdFailure:
    return NbdFailure(f"the connection to the server broke: {_explain(error)}")


def _explain(error: OSError) -> str:
    # Those of name resolution have numbers of their own, and "path too long" has none.
    is_usual = error.errno is not None and not isinstance(error, socket.gaierror)
    return os.strerror(error.errno or 0) if is_usual else str(error.args[-1] if error.args else error)
