# SPDX-License-Identifier: Apache-2.0
"""Object storage as a store: S3, and what else obstore speaks to.

Each object is one of the bucket's, under the prefix. A request makes an object visible whole or not at all; large ones are
sent in parts at once, and become visible when the last request joins the parts. Parts of an upload that was cut short are no
objects: they stay until the bucket's lifecycle rule removes them (docs/offsite.md), as obstore cannot list them.

Where a connection fails, the parts that were on their way are sent again, and no others. So parts are as small as S3 takes
them, and few at once where the line is slow, which few fill. Under a limit of bytes a second, all that is sent and received
goes through a relay that keeps the pace.

Memory  the parts in flight, `_MOST_PARTS` of `_PART_BYTES`, beside the object's own bytes; 150 bytes an object of a listing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from deltaimg.errors import ObjectExists, ObjectNotFound, ObjectTooLarge, StoreError, StoreUnavailable
from deltaimg.model import MIB
from deltaimg.store.entity_tags import EntityTags
from deltaimg.store.interface import (
    ANY_NAME,
    Confirm,
    Layout,
    ObjectInfo,
    Pace,
    Parts,
    StoreProperties,
    always,
    check_object_name,
    check_prefix,
    delete_each,
)
from deltaimg.store.object_storage_errors import ObjectStorageErrors, RangeRefused

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    from deltaimg.store.paced_relay import PacedRelay

    Bucket = S3Store | GCSStore | AzureStore

_WHOLE_BYTES = 16 * MIB
"""What is no larger is sent in one request."""
_PART_BYTES = 5 * MIB
"""S3 takes no smaller part but the last."""
_FEWEST_PARTS, _MOST_PARTS = 2, 8
"""At once. Of two, one is sent while the answer to the other is awaited, which fills a slow line."""
_IN_FLIGHT_S = 0.8
"""How long a line takes to send what is on its way at once, at least: when it is cut, that is sent again."""
_BATCH = 1000
"""Names in a request that deletes: the most that S3 takes."""
_CHUNK_BYTES = MIB
_PARALLEL_REQUESTS = 64
_READ_BYTES = 8 * MIB
"""At 100 Mbit/s this takes 0.7 s, of which a round trip of 50 ms is a fourteenth."""


class Connections(Struct, frozen=True):
    """The same bucket several times, as each kind of request has options of its own."""

    reads: Bucket
    """Fails when the line is silent; deletes as well, an object in a request."""
    writes: Bucket
    """Waits for as long as a slow line takes to send a part."""
    parts: Bucket
    """Sends parts of objects, each again where its connection fails: those that have arrived are not sent again."""
    bulk_deletes: Bucket | None
    """Deletes many objects in a request; None where the store has no such request."""


Connect = Callable[[str | None], Connections]
"""Returns connections, through the proxy of an address; None is as the environment has it."""


class ObjectStorage:
    """A prefix in a bucket. Requests are made once each, but for parts: `RetryingStore` is for what fails."""

    def __init__(self, location: str, connect: Connect, errors: ObjectStorageErrors) -> None:
        """Args: location: as the user named it, which has no secrets in it."""
        self.location = location
        self._connect, self._errors = connect, errors
        self._connections = connect(None)
        self._tags: EntityTags | None = None
        self._relay: PacedRelay | None = None
        self._whole_bytes, self._parts_at_once = _WHOLE_BYTES, _FEWEST_PARTS

    @property
    def properties(self) -> StoreProperties:
        """As of `Store`."""
        return StoreProperties(
            is_shared=True,
            is_remote=True,
            creates_exclusively=None,  # Servers accept the condition and ignore it.
            parallel_requests=_PARALLEL_REQUESTS,
            read_bytes=_READ_BYTES,
        )

    def close(self) -> None:
        """Close connections through a relay; others are closed when they have been idle for a while."""
        if self._relay is not None:
            self._relay.close()
            self._relay = None

    def note_digests(self) -> None:
        """As of `TellsDigests`; 100 bytes an object are kept."""
        self._tags = EntityTags(_PART_BYTES)

    def keep_pace(self, pace: Pace) -> None:
        """As of `KeepsPace`; before anything is sent."""
        from deltaimg.store.paced_relay import PacedRelay

        self._relay = PacedRelay(pace)
        self._connections = self._connect(self._relay.url)
        self._whole_bytes = _PART_BYTES

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        """As of `Store`: one request, or parts at once and one that joins them."""
        size_bytes = sum(len(part) for part in parts)
        if size_bytes > self._whole_bytes:
            # The request that joins parts has no condition that every server keeps.
            if self._is_there(name):
                raise ObjectExists(name)
            return self.replace(name, parts, confirm)
        check_object_name(name)
        data = b"".join(parts)
        self._note(name, [data], has_parts=False)
        confirm()
        with self._translated(name):
            self._connections.writes.put(name, data, mode="create", use_multipart=False)
        return size_bytes

    def replace(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        """As of `Store`; `confirm` is asked before the request that makes the object visible is sent."""
        check_object_name(name)
        size_bytes = sum(len(part) for part in parts)
        has_parts = size_bytes > self._whole_bytes
        self._note(name, parts, has_parts=has_parts)
        confirm()
        if has_parts:
            self._send_in_parts(name, parts, size_bytes)
        else:
            with self._translated(name):
                self._connections.writes.put(name, b"".join(parts), use_multipart=False)
        return size_bytes

    def move(self, name: str, new_name: str) -> None:
        """As of `Store`: a copy in the bucket, then a removal."""
        check_object_name(name)
        if self._is_there(new_name):
            raise ObjectExists(new_name)
        with self._translated(name):
            self._connections.writes.copy(name, new_name)
        self.delete(name)

    def delete(self, name: str) -> None:
        """As of `Store`."""
        check_object_name(name)
        with suppress(ObjectNotFound), self._translated(name):
            self._connections.reads.delete(name)

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        """As of `Store`, a thousand in a request."""
        bulk = self._connections.bulk_deletes
        if bulk is None or len(names) == 1:
            return delete_each(self, names)
        failed: dict[str, StoreError] = {}
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            try:
                with self._translated(batch[0]):
                    bulk.delete([check_object_name(name) for name in batch])
            except StoreError:
                # One of them may be at fault, and the answer names no more than one.
                failed |= delete_each(self, batch)
        return failed

    def make_folder(self, name: str) -> None:
        """Do nothing: there are no folders."""
        check_object_name(name)

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        """As of `Store`."""
        check_object_name(name)
        with self._translated(name):
            found = self._connections.reads.get(name)
            size_bytes = found.meta["size"]
            if max_bytes is not None and size_bytes > max_bytes:
                raise ObjectTooLarge(name, size_bytes, max_bytes)
            return bytes(found.bytes())

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """As of `Store`, also from a server that knows no ranges."""
        check_object_name(name)
        if length == 0:
            self._measure(name)
            return b""
        try:
            with self._translated(name):
                return bytes(self._connections.reads.get_range(name, start=offset, length=length))
        except RangeRefused:
            # The object ends before the range, or the server knows no ranges.
            return self._read_range(name, offset, length) if offset < self._measure(name) else b""

    def list(self, prefix: str, layout: Layout = ANY_NAME) -> Iterator[ObjectInfo]:
        """As of `Store`."""
        check_prefix(prefix)
        found: list[tuple[str, int]] = []
        tags: dict[str, str] = {}
        with self._translated(prefix or self.location):
            for page in self._connections.reads.list(prefix.removesuffix("/") or None):
                found += [(each["path"], each["size"]) for each in page]
                if self._tags is not None:
                    tags |= {each["path"]: each["e_tag"] or "" for each in page}
        is_as_sent = {} if self._tags is None else self._tags.compare(tags)
        # Servers that keep objects in folders list `vm-2/…` after `vm/…`.
        found.sort()
        foreign: set[str] = set()
        for name, size_bytes in found:
            if not name.startswith(prefix):
                continue
            if layout.has_object(name):
                yield ObjectInfo(name, size_bytes, is_as_sent.get(name))
            elif (what := _find_foreign(name, layout)) not in foreign:
                foreign.add(what)
                layout.note_foreign(what, "an object" if what == name else "a folder")

    # -- parts -------------------------------------------------------------------------------------------------------

    def _note(self, name: str, parts: Parts, *, has_parts: bool) -> None:
        if self._tags is not None:
            self._tags.note(name, parts, has_parts=has_parts)

    def _send_in_parts(self, name: str, parts: Parts, size_bytes: int) -> None:
        """Send an object in several requests, as many at once as the last one says that the line is worth."""
        started_s = time.monotonic()
        try:
            with self._translated(name):
                self._connections.parts.put(
                    name, _view(parts), use_multipart=True, chunk_size=_PART_BYTES, max_concurrency=self._parts_at_once
                )
        except ObjectNotFound as error:
            # The upload is gone: it was removed meanwhile, or has been joined by a request whose answer was lost.
            raise StoreUnavailable(name, "the upload of its parts was ended by the server") from error
        self._parts_at_once = choose_parts_at_once(size_bytes / (time.monotonic() - started_s))

    def _is_there(self, name: str) -> bool:
        check_object_name(name)
        with suppress(ObjectNotFound):
            self._measure(name)
            return True
        return False

    def _measure(self, name: str) -> int:
        with self._translated(name):
            return self._connections.reads.head(name)["size"]

    def _read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a range of an object of a server that sends objects from the beginning only."""
        wanted, position = bytearray(), 0
        with self._translated(name):
            for chunk in self._connections.reads.get(name).stream(min_chunk_size=_CHUNK_BYTES):
                wanted += chunk[max(0, offset - position) : max(0, offset + length - position)]
                position += len(chunk)
                if position >= offset + length:
                    break
        return bytes(wanted)

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError, NotImplementedError) as error:
            # The text of the original has all that was sent and received.
            # Through a relay, the client sees no more than that its connection ended.
            unreachable = "" if self._relay is None else self._relay.failure
            raise self._errors.translate(name, error, unreachable) from None


def _view(parts: Parts) -> Iterator[memoryview]:
    """Yield the bytes of an object, not copied, in pieces so small that obstore waits between them for parts under way."""
    for part in parts:
        view = memoryview(part).cast("B")
        for start in range(0, len(view), _CHUNK_BYTES):
            yield view[start : start + _CHUNK_BYTES]


def choose_parts_at_once(bytes_per_s: float) -> int:
    """Return how many parts to send at once over a line on which they went so fast."""
    return min(_MOST_PARTS, max(_FEWEST_PARTS, round(bytes_per_s * _IN_FLIGHT_S / _PART_BYTES)))


def _find_foreign(name: str, layout: Layout) -> str:
    """Return the topmost folder on the way to an object in which none can lie, or the object's own name."""
    pieces = name.split("/")
    for count in range(1, len(pieces)):
        folder = "/".join(pieces[:count])
        if not layout.has_folder(folder):
            return folder
    return name
