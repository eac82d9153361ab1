# SPDX-License-Identifier: Apache-2.0
"""Fill packs with records and store them, then the signature and index that make the records findable.

One thread stores, so that encoding continues meanwhile, and so that objects become durable in exactly this order: packs,
their signature, their index. After every `checkpoint_bytes` such a group is complete: a run that dies later leaves
records that the next run finds and refers to.

Memory  up to three packs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.errors import DeltaimgError
from deltaimg.format.cut_entries import list_cuts
from deltaimg.format.index import ENTRY, IndexObject, link_sources
from deltaimg.format.pack import finish_pack
from deltaimg.format.record import WHOLE_LITERAL, RecordHeader, RecordTables
from deltaimg.format.signature import SignatureObject
from deltaimg.model import MIB
from deltaimg.repo.object_kinds import INDEX, PACK, SIGNATURE, Content, ObjectKind
from deltaimg.repo.repository import Repository
from deltaimg.threads import Workers

PACK_BYTES = 32 * MIB
CHECKPOINT_BYTES = 256 * MIB
_PACKS_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class _StoredPack:
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
    ) -> None:
        """Args: check_lock: raises LockLost; called before packs are indexed: a prune may have deleted them."""
        self._check_lock = check_lock
        self.stored_bytes = 0
        self._repository = repository
        self._now_us = now_us
        self._pack_bytes, self._checkpoint_bytes = pack_bytes, checkpoint_bytes
        self._records: list[tuple[RecordHeader, bytes]] = []
        self._digests: list[Digests] = []
        self._tables: list[RecordTables] = []
        self._filled_bytes = 0
        self._thread = Workers(1, "deltaimg-store")
        self._in_flight: deque[Future[None]] = deque()
        self._unindexed: list[_StoredPack] = []
        self._unindexed_bytes = 0

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.close()

    @contextmanager
    def index_if_interrupted(
        self, warn: Callable[[str], None], *, except_for: tuple[type[DeltaimgError], ...]
    ) -> Iterator[None]:
        """If the block ends in an error, make what was stored findable for the next run; if that fails, `warn` says so.

        Args:
            except_for: errors after which the store will not take an index, either.
        """
        try:
            yield
        except except_for:
            raise
        except BaseException:
            try:
                self.finish()
            except DeltaimgError as error:
                warn(f"what was stored so far could not be indexed: {error}")
            raise

    def add(self, header: RecordHeader, payload: bytes, digests: Digests, tables: RecordTables = WHOLE_LITERAL) -> None:
        """Take one record, and the tables that its payload begins with; raises the error of storing an earlier one.

        Args:
            digests: of all its slots, those that it lacks included.
        """
        self._records.append((header, payload))
        self._digests.append(digests)
        self._tables.append(tables)
        self._filled_bytes += len(payload)
        if self._filled_bytes >= self._pack_bytes:
            self._send_pack()

    def finish(self) -> None:
        """Store what is left and its index; on return all records added are durable and findable."""
        if self._records:
            self._send_pack()
        self._wait(0)
        self._thread.submit(self._store_index).result()

    def _send_pack(self) -> None:
        self._wait(_PACKS_IN_FLIGHT - 1)
        self._in_flight.append(self._thread.submit(self._store_pack, self._records, self._digests, self._tables))
        self._records, self._digests, self._tables, self._filled_bytes = [], [], [], 0

    def _wait(self, allowed: int) -> None:
        while len(self._in_flight) > allowed:
            self._in_flight.popleft().result()

    # -- on the storing thread ---------------------------------------------------------------------------------------

    def _store_pack(
        self,
        records: list[tuple[RecordHeader, bytes]],
        digests: list[Digests],
        tables: list[RecordTables],
    ) -> None:
        parts, footer = finish_pack(records)
        digest, size_bytes = self._repository.objects.put_named(PACK, parts)
        self.stored_bytes += size_bytes
        self._unindexed.append(_StoredPack(digest, footer, np.concatenate(digests), tables))
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
        return digest
