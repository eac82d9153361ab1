# SPDX-License-Identifier: Apache-2.0
"""An export of an NBD server as an image source."""

from __future__ import annotations

import os
from collections.abc import Sequence

from deltaimg.arrays import Ranges
from deltaimg.errors import ImageError
from deltaimg.image.extents import Bounds, Extents
from deltaimg.image.nbd import protocol as nbd
from deltaimg.image.nbd.address import NbdAddress
from deltaimg.image.nbd.block_status import BlockStatus, read_block_status
from deltaimg.image.nbd.client import Client
from deltaimg.image.nbd.connection import ANSWER_S, NbdFailure, connect
from deltaimg.image.nbd.handshake import negotiate
from deltaimg.image.reader import ReadFailure
from deltaimg.image.reader_source import ReaderSource


class NbdReader:
    """Reads an export at any offset: what is not whole blocks of it through a buffer of its own."""

    def __init__(self, client: Client) -> None:
        self._client, self._block_bytes = client, client.export.min_block_bytes
        self._size_bytes = client.export.size_bytes

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`, fewer bytes only at the end; raises ReadFailure or NbdFailure."""
        wanted = max(0, min(len(buffer), self._size_bytes - offset))
        start = offset // self._block_bytes * self._block_bytes
        end = -(-(offset + wanted) // self._block_bytes) * self._block_bytes
        if not wanted:
            return 0
        if (start, end) == (offset, offset + wanted):
            self._client.read(offset, buffer[:wanted])
            return wanted
        detour = memoryview(bytearray(end - start))
        try:
            self._client.read(start, detour)
        except ReadFailure as failure:
            got = max(0, min(wanted, failure.offset - offset))
            buffer[:got] = detour[offset - start : offset - start + got]
            raise ReadFailure(max(offset, failure.offset), failure.error_number) from failure
        buffer[:wanted] = detour[offset - start : offset - start + wanted]
        return wanted

    def reread(self, ranges: Ranges, out: memoryview) -> None:
        """Fill parts of `out` again; raises ReadFailure or NbdFailure."""
        for offset, length, start in ranges.tolist():
            self.read_into(offset, out[start : start + length])


class NbdSource(ReaderSource):
    """An export. What else is done to its image, the server alone could say: only a sample that is read again can."""

    def __init__(self, path: str, client: Client, *, use_holes: bool = True, is_salvaging: bool = False) -> None:
        """Args: path: as messages and the manifest have it. client: closed by `close`."""
        export = client.export
        super().__init__(
            path,
            NbdReader(client),
            size_bytes=export.size_bytes,
            granule_bytes=export.min_block_bytes,
            is_salvaging=is_salvaging,
        )
        self._client, self._use_holes = client, use_holes
        self._status: BlockStatus | None = None

    def extents(self) -> Extents:
        """Return content, holes and zeros as the server reports them; all content where it reports none. Raises ImageError."""
        if not self._use_holes:
            return Extents.uniform(self.size_bytes)
        return self._read_status().to_extents()

    def find_dirty(self, bitmap: str) -> Bounds | None:
        """Return what a dirty bitmap calls changed; None where the server has no such bitmap. Raises ImageError.

        Args:
            bitmap: one that was asked for when the source was opened.
        """
        return self._read_status().find_dirty(bitmap)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _read_status(self) -> BlockStatus:
        if self._status is None:
            try:
                self._status = read_block_status(self._client)
            except NbdFailure as failure:
                raise self.describe(failure) from failure
            except ReadFailure as failure:
                problem = f"the server cannot say what holds content: {os.strerror(failure.error_number)}"
                raise ImageError(self.path, problem, hint="--no-holes reads everything") from failure
        return self._status


def open_export(
    address: NbdAddress,
    *,
    name: str | None = None,
    bitmaps: Sequence[str] = (),
    use_holes: bool = True,
    is_salvaging: bool = False,
    answer_s: float = ANSWER_S,
) -> NbdSource:
    """Open an export of a server; raises ImageError.

    Args:
        name: what it is called, where that is not its address. bitmaps: dirty bitmaps to ask for.
        use_holes, is_salvaging: see `open_source`.
    """
    shown = name or address.location
    try:
        connection = connect(address, answer_s)
        try:
            client = Client(
                connection, negotiate(connection, address.export, name_contexts(bitmaps, use_holes=use_holes))
            )
        except BaseException:
            connection.close()
            raise
    except NbdFailure as failure:
        raise ImageError(shown, failure.problem, hint=failure.hint) from failure
    return NbdSource(shown, client, use_holes=use_holes, is_salvaging=is_salvaging)


def name_contexts(bitmaps: Sequence[str], *, use_holes: bool) -> list[str]:
    """Return the metadata contexts that a source is to ask for."""
    return [*([nbd.ALLOCATION] if use_holes else []), *(nbd.BITMAP + each for each in bitmaps)]
