# SPDX-License-Identifier: Apache-2.0
"""Requests to an NBD server, from any thread, many in flight on one connection.

One thread at a time receives, for all of them, while others wait. It takes one message, gives it to the
request that it is about, and lets another do the next one. So there is no thread that would have to be stopped, and the server
always has the requests of all threads.

Invariant  a connection on which anything went wrong is not used again: every request fails in the same way.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

from deltaimg.image.nbd import protocol as nbd
from deltaimg.image.nbd.connection import Connection, NbdFailure
from deltaimg.image.nbd.handshake import Export
from deltaimg.image.nbd.replies import Pending, ReadRequest, Status, StatusRequest, read_error
from deltaimg.image.reader import ReadFailure
from deltaimg.model import MIB

PIECE_BYTES = MIB
"""A read is asked for in pieces of this size at most, all at once, so that the server has something to do meanwhile."""


class Client:
    """Reads an export that was agreed on."""

    def __init__(self, connection: Connection, export: Export) -> None:
        self.export = export
        self._connection = connection
        self._piece_bytes = min(export.max_block_bytes, max(PIECE_BYTES, export.min_block_bytes))
        self._context_names = {number: name for name, number in export.contexts.items()}
        self._pending: dict[int, Pending] = {}
        self._last_cookie = 0
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._is_receiving = False
        self._failure: NbdFailure | None = None

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`, both whole blocks of the export; raises ReadFailure or NbdFailure."""
        pieces = [
            ReadRequest(offset + start, buffer[start : start + self._piece_bytes])
            for start in range(0, len(buffer), self._piece_bytes)
        ]
        self._send(nbd.READ, pieces)
        self._wait(pieces)
        for piece in pieces:
            if piece.error is not None:
                raise ReadFailure(piece.error[1], piece.error[0])

    def query_status(self, offset: int, length: int) -> dict[str, Status]:
        """Return the extents from `offset` on as each metadata context reports them, which need not go as far as asked.

        Raises:
            ReadFailure: the server cannot say. NbdFailure.
        """
        request = StatusRequest(offset, length, self._context_names)
        self._send(nbd.BLOCK_STATUS, [request])
        self._wait([request])
        if request.error is not None:
            raise ReadFailure(request.error[1], request.error[0])
        return request.found

    def close(self) -> None:
        """Say goodbye, and close the connection."""
        if self._failure is None:
            with suppress(NbdFailure):
                self._connection.send(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.DISCONNECT, 0, 0, 0))
        self._connection.close()

    def _send(self, command: int, requests: Sequence[ReadRequest | StatusRequest]) -> None:
        message = bytearray()
        with self._sending:
            with self._changed:
                if self._failure is not None:
                    raise self._failure.repeat()
                for each in requests:
                    self._last_cookie += 1
                    self._pending[self._last_cookie] = each
                    message += nbd.REQUEST.pack(
                        nbd.REQUEST_MAGIC, 0, command, self._last_cookie, each.offset, each.length
                    )
            try:
                self._connection.send(bytes(message))
            except BaseException as error:
                self._give_up(error)
                raise

    def _wait(self, requests: Sequence[Pending]) -> None:
        """Receive, or wait for another thread to receive, until all of some requests are answered."""
        while True:
            with self._changed:
                while self._is_receiving and self._failure is None and not all(each.is_done for each in requests):
                    self._changed.wait()
                if self._failure is not None:
                    raise self._failure.repeat()
                if all(each.is_done for each in requests):
                    return
                self._is_receiving = True
            try:
                self._receive()
            except BaseException as error:
                self._give_up(error)
                raise
            finally:
                with self._changed:
                    self._is_receiving = False
                    self._changed.notify_all()

    def _give_up(self, error: BaseException) -> None:
        """Let every request fail: after an interruption, too, the beginning of the next message is not known."""
        with self._changed:
            self._failure = self._failure or (
                error if isinstance(error, NbdFailure) else NbdFailure("the connection to the server was interrupted")
            )
            self._changed.notify_all()

    def _receive(self) -> None:
        """Take one message; raises NbdFailure."""
        self._connection.expect_message()
        head = self._connection.receive(nbd.SIMPLE.size)
        magic, number, cookie = nbd.SIMPLE.unpack(head)
        if magic == nbd.SIMPLE_MAGIC:
            self._take_simple(number, cookie)
        elif magic == nbd.CHUNK_MAGIC and self.export.is_structured:
            _, flags, kind, cookie, length = nbd.CHUNK.unpack(head + self._connection.receive(4))
            self._take_chunk(flags, kind, cookie, length)
        else:
            raise NbdFailure("the server sends something that is no answer")

    def _take_simple(self, number: int, cookie: int) -> None:
        request = self._find(cookie)
        if number:
            request.take_error(number, None)
        elif isinstance(request, ReadRequest) and not self.export.is_structured:
            request.take_all(self._connection)
        else:
            raise NbdFailure("the server answers a request in a form that was not agreed on")
        self._end(cookie, request)

    def _take_chunk(self, flags: int, kind: int, cookie: int, length: int) -> None:
        request = self._find(cookie)
        if kind & nbd.IS_ERROR_CHUNK:
            if length > nbd.MAX_MESSAGE_BYTES + 64:
                raise NbdFailure("the server reports an error at absurd length")
            request.take_error(*read_error(self._connection.receive(length), kind))
        elif kind == nbd.CHUNK_NONE:
            if length or not flags & nbd.IS_DONE:
                raise NbdFailure("the server sends a message that says nothing")
        else:
            request.take_chunk(kind, length, self._connection)
        if flags & nbd.IS_DONE:
            self._end(cookie, request)

    def _find(self, cookie: int) -> Pending:
        with self._changed:
            if cookie not in self._pending:
                raise NbdFailure("the server answers a request that was never sent, or the same one twice")
            return self._pending[cookie]

    def _end(self, cookie: int, request: Pending) -> None:
        request.end()
        with self._changed:
            del self._pending[cookie]
