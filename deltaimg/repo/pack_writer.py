# SPDX-License-Identifier: Apache-2.0
"""Fill packs with records and store them, then the signature and index that make the records findable.

One thread stores, so that encoding continues meanwhile, and so that objects become durable in exactly this order: packs,
their signature, their index. In an encrypted repository another one seals and names a pack while that before it is stored.
After every `checkpoint_bytes` such a group is complete: a run that dies later leaves records that the next run finds and
refers to.

Packs of another repository of the family are stored as they are, among those that are filled here, and indexed with them.

Memory  up to two packs; three and two rooms for sealing where records are sealed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.crypto.sealer import ReusedRoom
from deltaimg.errors import DeltaimgError, ObjectExists, StoreFull
from deltaimg.format.cut_entries import list_cuts
from deltaimg.format.index import ENTRY, IndexObject, link_sources
from deltaimg.format.pack import FOOTER_ENTRY, finish_pack, pack_name
from deltaimg.format.record import WHOLE_LITERAL, RecordHeader, RecordTables
from deltaimg.format.signature import SignatureObject
from deltaimg.model import MIB
from deltaimg.repo.object_kinds import INDEX, PACK, SIGNATURE, Content, ObjectKind
from deltaimg.repo.repository import Repository
from deltaimg.store.interface import Parts
from deltaimg.threads import Workers

PACK_BYTES = 32 * MIB
CHECKPOINT_BYTES = 256 * MIB
_PACKS_IN_FLIGHT = 2

Records = Sequence[tuple[RecordHeader, bytes | memoryview]]
"""Headers and payloads of a pack."""

StorePack = Callable[[], tuple[str, int]]
"""Stores a pack; returns the digest that names it, and how many bytes that stored, 0 if it was there already."""

PutPack = Callable[[Parts], StorePack]
"""Takes a pack that was filled here, and returns what stores it."""


class PlacedRecord(Struct, frozen=True):
    """A record, where it lies in its pack, and what its index entry and its signature say of it."""

    offset: int
    header: RecordHeader
    digests: Digests
    """Of all its slots, those that it lacks included."""
    tables: RecordTables = WHOLE_LITERAL


class _FilledPack(Struct, frozen=True):
    """A pack that is to be stored."""

    footer: npt.NDArray[Any]
    size_bytes: int
    store: StorePack


class _StoredPack(Struct, frozen=True):
    """A pack whose records no index has yet."""

    name: str
    footer: npt.NDArray[Any]
    digests: Digests
    tables: list[RecordTables]


class PackWriter:
    """Takes records in order; a context manager that stops its thread."""

    def __init__(
        self,
        repository: Repository,
        now_us: Callable[[], int],
        *,
        check_lock: Callable[[], None],
        pack_bytes: int = PACK_BYTES,
        checkpoint_bytes: int = CHECKPOINT_BYTES,
        put_pack: PutPack | None = None,
        is_repeatable: bool = False,
    ) -> None:
        """Args: check_lock: raises LockLost; called before packs are indexed: a prune may have deleted them.

        put_pack: how packs that are filled here are stored; under a new name, if not given.
        is_repeatable: the same records make the same pack, sealed or not.
        """
        self._rooms = [ReusedRoom() for _ in range(_PACKS_IN_FLIGHT)]
        """Where packs are sealed, in turn: the one that is taken again is of a pack that is stored."""
        self._check_lock, self._is_repeatable = check_lock, is_repeatable
        self._put_pack = put_pack or (lambda parts: partial(repository.objects.put_named, PACK, parts))
        self.stored_bytes = 0
        self.stored: list[str] = []
        """Names of the objects that were stored."""
        self._repository = repository
        self._now_us = now_us
        self._pack_bytes, self._checkpoint_bytes = pack_bytes, checkpoint_bytes
        self._records: list[tuple[RecordHeader, bytes | memoryview]] = []
        self._digests: list[Digests] = []
        self._tables: list[RecordTables] = []
        self._filled_bytes = 0
        self._thread, self._sealing = Workers(1, "deltaimg-store"), Workers(1, "deltaimg-seal")
        self._in_flight: deque[Future[None]] = deque()
        self._unindexed: list[_StoredPack] = []
        self._unindexed_bytes = 0

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.close()
        self._sealing.close()

    @contextmanager
    def index_if_interrupted(
        self, warn: Callable[[str], None], *, except_for: tuple[type[DeltaimgError], ...], even_if_full: bool = False
    ) -> Iterator[None]:
        """If the block ends in an error, make what was stored findable for the next run; if that fails, `warn` says so.

        Args:
            except_for: errors after which the store will not take an index, either.
            even_if_full: a store that has no room for a pack may have some for an index: what it has takes room in any case.
        """
        try:
            yield
        except except_for as error:
            if even_if_full and isinstance(error, StoreFull):
                with suppress(DeltaimgError):
                    self._index_what_is_stored()
            raise
        except BaseException:
            try:
                self.finish()
            except DeltaimgError as error:
                warn(f"what was stored so far could not be indexed: {error}")
            raise

    def add(
        self,
        header: RecordHeader,
        payload: bytes | memoryview,
        digests: Digests,
        tables: RecordTables = WHOLE_LITERAL,
    ) -> None:
        """Take one record, and the tables that its payload begins with; raises the error of storing an earlier one.

        Args:
            payload: kept, with the memory that it is a view of, until it is stored.
            digests: of all its slots, those that it lacks included.
        """
        self._records.append((header, payload))
        self._digests.append(digests)
        self._tables.append(tables)
        self._filled_bytes += len(payload)
        if self._filled_bytes >= self._pack_bytes:
            self._send_pack()

    def add_pack(self, name: str, data: bytes | None, records: list[PlacedRecord]) -> None:
        """Take a whole pack, which keeps its name; raises the error of storing an earlier one.

        Args:
            name: the digest of its bytes. data: its bytes; None where it is stored already, and only to be indexed.
            records: those of its records that the index is to have, in order of offset; one at least.
        """
        self._wait(_PACKS_IN_FLIGHT - 1)
        self._in_flight.append(self._thread.submit(self._store_whole, name, data, records))

    def note_sent(self, name: str, size_bytes: int) -> None:
        """Count a pack that another process has stored for this run, by its digest."""
        self.stored_bytes += size_bytes
        self.stored.append(pack_name(name))

    @property
    def unindexed_bytes(self) -> int:
        """What was taken and is not in an index yet, at least: packs that are being stored are left out."""
        return self._unindexed_bytes + self._filled_bytes

    def finish(self) -> None:
        """Store what is left and its index; on return all records added are durable and findable."""
        if self._records:
            self._send_pack()
        self._wait(0)
        self._thread.submit(self._store_index).result()

    def _index_what_is_stored(self) -> None:
        """Leave out what is not stored yet, and what could not be."""
        while self._in_flight:
            with suppress(DeltaimgError):
                self._in_flight.popleft().result()
        self._thread.submit(self._store_index).result()

    def _send_pack(self) -> None:
        is_sealed = self._repository.objects.sealer is not None
        # One is filled while one is stored, and where records are sealed another is sealed: more would wait, and take memory.
        self._wait(_PACKS_IN_FLIGHT - 1 if is_sealed else 0)
        fill: Callable[[], _FilledPack] = partial(self._fill, self._records, self._rooms[0])
        if is_sealed:
            self._rooms = [*self._rooms[1:], self._rooms[0]]
            fill = self._sealing.submit(fill).result
        self._in_flight.append(self._thread.submit(self._store_pack, fill, self._digests, self._tables))
        self._records, self._digests, self._tables, self._filled_bytes = [], [], [], 0

    def _fill(self, records: Records, room: ReusedRoom) -> _FilledPack:
        sealed = self._repository.objects.seal_records(records, is_repeatable=self._is_repeatable, room=room)
        parts, footer = finish_pack(sealed)
        return _FilledPack(footer, sum(len(part) for part in parts), self._put_pack(parts))

    def _wait(self, allowed: int) -> None:
        while len(self._in_flight) > allowed:
            self._in_flight.popleft().result()

    # -- on the storing thread ---------------------------------------------------------------------------------------

    def _store_pack(
        self,
        fill: Callable[[], _FilledPack],
        digests: list[Digests],
        tables: list[RecordTables],
    ) -> None:
        filled = fill()
        digest, stored_bytes = filled.store()
        self.stored_bytes += stored_bytes
        if stored_bytes:
            self.stored.append(pack_name(digest))
        self._note_stored(_StoredPack(digest, filled.footer, np.concatenate(digests), tables), filled.size_bytes)

    def _store_whole(self, name: str, data: bytes | None, records: list[PlacedRecord]) -> None:
        if data is not None:
            with suppress(ObjectExists):  # Another run has just brought it; its name says that it has the same bytes.
                self.stored_bytes += self._repository.objects.put_bytes(pack_name(name), [data])
                self.stored.append(pack_name(name))
        stored = _StoredPack(
            name,
            _list_places(records),
            np.concatenate([each.digests for each in records]),
            [each.tables for each in records],
        )
        self._note_stored(stored, sum(each.header.payload_bytes for each in records))

    def _note_stored(self, stored: _StoredPack, size_bytes: int) -> None:
        self._unindexed.append(stored)
        self._unindexed_bytes += size_bytes
        if self._unindexed_bytes >= self._checkpoint_bytes:
            self._store_index()

    def _store_index(self) -> None:
        if not self._unindexed:
            return
        footers = [pack.footer for pack in self._unindexed]
        entries = np.zeros(sum(len(footer) for footer in footers), ENTRY)
        merged = np.concatenate(footers)
        for field in ("id", "offset", "payload_bytes", "slots", "encoding", "block_shift"):
            entries[field] = merged[field]
        entries["pack"] = np.repeat(np.arange(len(footers)), [len(footer) for footer in footers])
        entries["first_digest"] = np.cumsum(entries["slots"], dtype=np.uint64) - entries["slots"]
        digests = np.concatenate([pack.digests for pack in self._unindexed]).reshape(-1, DIGEST_BYTES)
        signature = self._put(SIGNATURE, SignatureObject(entries["id"], entries["slots"], digests))
        packs = tuple(pack.name for pack in self._unindexed)
        tables = [each for pack in self._unindexed for each in pack.tables]
        links, cuts = link_sources([each.sources for each in tables]), list_cuts([each.cut for each in tables])
        self._check_lock()
        self._put(INDEX, IndexObject(self._now_us(), packs, (signature,), entries, links, cuts))
        self._unindexed, self._unindexed_bytes = [], 0

    def _put(self, kind: ObjectKind[Content], content: Content) -> str:
        digest, size_bytes = self._repository.objects.put_new(kind, content)
        self.stored_bytes += size_bytes
        self.stored.append(kind.name_of(digest))
        return digest


def _list_places(records: list[PlacedRecord]) -> npt.NDArray[Any]:
    """Return the footer entries of some records of a pack."""
    footer = np.zeros(len(records), FOOTER_ENTRY)
    for place, record in zip(footer, records, strict=True):
        header = record.header
        place["id"], place["offset"] = np.frombuffer(header.id, np.uint8), record.offset
        for field in ("payload_bytes", "slots", "encoding", "block_shift", "absent"):
            place[field] = getattr(header, field)
    return footer
