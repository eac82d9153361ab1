# SPDX-License-Identifier: Apache-2.0
"""The objects of a repository: the one place where they enter and leave its store. Nothing above `repo/` uses a store.

Always  names that deltaimg never writes are neither listed nor read nor written. The first one in a listing causes a warning.
Always  nothing is read that is larger than its kind allows, or, beyond `_UNSEEN_BYTES`, than its header says.
Always  `get` returns an object's content only after its digest, header and checksum were verified; `put` parses what it built
        before it stores it.
Always  what an encrypted repository seals is sealed and opened here, records included (`seal_records`, `open_record`), and what
        is not sealed there is refused. Methods that take or return *stored* bytes pass them on as they are.
Memory  an object's bytes and what is parsed of them.
"""

from __future__ import annotations

import copy
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from deltaimg.crypto.sealer import ReusedRoom, Sealer, SecretSealer
from deltaimg.errors import (
    IntegrityError,
    KeyNeeded,
    ObjectExists,
    ObjectNotFound,
    ObjectTooLarge,
    OnlyWrites,
    SealBroken,
    StoreError,
    StoreFull,
)
from deltaimg.format.framing import HEADER_BYTES, SALT_BYTES, Kind, name_object, parse_header, salt_object
from deltaimg.format.record import RecordHeader
from deltaimg.format.sealing import find_host
from deltaimg.memory import check_room
from deltaimg.model import MIB
from deltaimg.repo.keys import check_digest, check_size, expect_kind, find_kind, has_folder
from deltaimg.repo.object_kinds import RESERVE_NAME, Content, ObjectKind
from deltaimg.store.counted import Traffic, find_traffic
from deltaimg.store.interface import (
    Confirm,
    KeepsCopies,
    KeepsUnfinished,
    Layout,
    ObjectInfo,
    Parts,
    ReadsAhead,
    Store,
    StoreProperties,
    TellsDigests,
    Unfinished,
    always,
)
from deltaimg.store.planned import PlannedStore
from deltaimg.store.wrapped import find_innermost

_UNSEEN_BYTES = MIB
"""An object of at most this many bytes is read without reading its header first."""
_REMOVED_AT_ONCE = 100
_MAX_FOREIGN = 1000
_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


def repository_layout(note_foreign: Callable[[str, str], None]) -> Layout:
    """Return the layout of a store that holds a repository."""
    return Layout(lambda name: find_kind(name) is not None, has_folder, note_foreign)


class Objects:
    """The objects of one repository; any number of threads may use them. Every method may raise StoreError."""

    def __init__(self, store: Store, sealer: Sealer | None = None, *, is_locked: bool = False) -> None:
        """Args: sealer: of an encrypted repository. is_locked: it is one, and there is no key, or one that only writes."""
        self.store, self._sealer, self._is_locked = store, sealer, is_locked
        self.foreign: dict[str, str] = {}
        """What listings met that is not deltaimg's, and what it is, such as `a file`; a thousand at most."""
        self.lists_foreign = False
        """Whether the run says what is in `foreign`, as a check does; then no warning is needed."""
        self.spends_reserve = False
        """Whether the reserve is given up when the store is full: while something is done that frees room."""
        self.creates_exclusively = store.properties.creates_exclusively
        """As of the store, or as `store_trial` has found out; None until then."""
        self._layout = repository_layout(self._note_foreign)

    @property
    def sealer(self) -> Sealer | None:
        """What seals and opens in an encrypted repository, None in another; raises KeyNeeded or OnlyWrites if it is locked."""
        if self._is_locked:
            raise KeyNeeded(self.location) if self._sealer is None else OnlyWrites(self.location)
        return self._sealer

    def sealing_for(self, host: bytes) -> Objects:
        """Return these objects as one sees them whose new ones a write-only host can open, beside the holders of the secret.

        Args:
            host: empty for none; else the repository is encrypted, and open with its secret.
        """
        if not host:
            return self
        found = copy.copy(self)
        assert isinstance(self._sealer, SecretSealer)
        found._sealer = self._sealer.for_host(host)
        return found

    @property
    def location(self) -> str:
        """Where the store is, as the user named it."""
        return self.store.location

    @property
    def absolute_location(self) -> str:
        """Where the store is, whatever the current folder is."""
        return self.location if self.properties.folder is None else os.path.abspath(self.location)

    @property
    def traffic(self) -> Traffic | None:
        """What went to the store and came from it so far; None where nothing counts."""
        return find_traffic(self.store)

    @property
    def properties(self) -> StoreProperties:
        """What holds for all of the store."""
        return self.store.properties

    def close(self) -> None:
        """Close connections; no other call may follow."""
        self.store.close()

    # -- content -----------------------------------------------------------------------------------------------------

    def get(self, kind: ObjectKind[Content], name: str) -> Content:
        """Return an object's content.

        Raises:
            ObjectNotFound: there is none. IntegrityError, UnsupportedFormat: it is damaged, or of a newer version.
        """

        return self._read_twice(name, lambda data: self.parse(kind, name, data))

    def get_with_bytes(self, kind: ObjectKind[Content], name: str) -> tuple[Content, bytes]:
        """Return content and stored bytes, for a copy that keeps what this version does not know; raises as `get`."""

        return self._read_twice(name, lambda data: (self.parse(kind, name, data), data))

    def get_opened(self, kind: ObjectKind[Content], name: str) -> bytes:
        """Return the bytes of an object without its seal, as `put_named` takes them, for a copy elsewhere; raises as `get`."""

        def open_data(data: bytes) -> bytes:
            self.parse(kind, name, data)
            return self._open(kind, name, data)

        return self._read_twice(name, open_data)

    def parse(self, kind: ObjectKind[Content], name: str, data: bytes) -> Content:
        """Return the content of an object whose stored bytes are `data`; raises IntegrityError, UnsupportedFormat."""
        if kind.is_named_by_digest:
            check_digest(name, data)
        return kind.parse(self._open(kind, name, data), name)

    def put(self, kind: ObjectKind[Content], name: str, content: Content, confirm: Confirm = always) -> int:
        """Store an object of a name of its own, durably, and return its size; raises as `Store.put`."""
        return self.put_bytes(name, [self.build_stored(kind, name, content)], confirm)

    def build_stored(self, kind: ObjectKind[Content], name: str, content: Content) -> bytes:
        """Return the bytes as which an object of a name of its own is stored; sealed again, it has others."""
        return self._seal(kind, _build(kind, content, name))

    def replace(self, kind: ObjectKind[Content], name: str, content: Content, confirm: Confirm = always) -> int:
        """As `put`, replacing what has the name, if anything does."""
        return self.replace_bytes(name, [self.build_stored(kind, name, content)], confirm)

    def count_bytes(self, kind: ObjectKind[Content], content: Content) -> int:
        """Return the size that an object of this content has when it is stored."""
        sealer = self.sealer if kind.is_sealed else None
        size_bytes = len(kind.build(content))
        return size_bytes if sealer is None else sealer.measure_object(size_bytes)

    def put_new(self, kind: ObjectKind[Content], content: Content) -> tuple[str, int]:
        """Store an object that is named by its digest; return the digest and the object's size."""
        assert kind.magic is not None
        return self.put_named(kind, [_build(kind, content, f"the new {kind.magic.name.lower()}")])

    @contextmanager
    def reading_ahead(self, names: Iterable[str]) -> Iterator[None]:
        """Inside the context, read these objects, in this order, ahead of the calls that get them, where that is of use.

        For many small ones whose names are known: over a network each would take a round trip.
        """
        if isinstance(self.store, ReadsAhead):
            with self.store.reading_ahead(names):
                yield
        else:
            yield

    # -- bytes -------------------------------------------------------------------------------------------------------

    def put_named(self, kind: ObjectKind[Content], parts: Parts, *, salt: bytes | None = None) -> tuple[str, int]:
        """Store an object that was built already under the digest of its stored bytes; return that digest and its size.

        Args:
            parts: not sealed yet, but for records in a pack.
            salt: of `SALT_BYTES`, for tests; random where not given, so that a deleted name is never used again.
        """
        salted = salt_object(parts, secrets.token_bytes(SALT_BYTES) if salt is None else salt)
        if kind.is_sealed and self.sealer is not None:
            salted = [self.sealer.seal_object(b"".join(salted))]
        digest = name_object(salted)
        return digest, self.put_bytes(kind.name_of(digest), salted)

    def get_verified(self, name: str) -> bytes:
        """Return the stored bytes of an object that is named by their digest; raises DigestMismatch."""

        def check(data: bytes) -> bytes:
            check_digest(name, data)
            return data

        return self._read_twice(name, check)

    def get_bytes(self, name: str) -> bytes:
        """Return the stored bytes of an object, whatever is in it; raises ObjectNotFound or ObjectTooLarge."""
        kind = expect_kind(name)
        if kind.magic is None or kind.is_read_in_pieces or kind.max_bytes <= _UNSEEN_BYTES:
            return self._take_in(name, kind.max_bytes)
        try:
            return self._take_in(name, _UNSEEN_BYTES)
        except ObjectTooLarge as error:
            if error.size_bytes > kind.max_bytes:
                raise ObjectTooLarge(name, error.size_bytes, kind.max_bytes) from None
        size_bytes = min(kind.max_bytes, self._measure(kind.magic, name))
        check_room(name, size_bytes)
        return self._take_in(name, size_bytes)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only where the object ends; raises ObjectNotFound."""
        expect_kind(name)
        return self.store.get_range(name, offset, length)

    def reread_range(self, name: str, offset: int, length: int) -> bytes:
        """As `get_range`, from the store itself: for what looks damaged, as what this host keeps of it may be."""
        self._drop_copy(name)
        return self.get_range(name, offset, length)

    def put_bytes(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        """Store bytes as they are; otherwise as `put`."""
        if self.creates_exclusively is False and not expect_kind(name).is_named_by_digest and self._is_there(name):
            raise ObjectExists(name)
        return self._give_out(self.store.put, name, parts, confirm)

    def replace_bytes(self, name: str, parts: Parts, confirm: Confirm = always) -> int:
        """Store bytes as they are; otherwise as `replace`."""
        return self._give_out(self.store.replace, name, parts, confirm)

    def take_from(self, other: Objects, name: str, data: bytes, confirm: Confirm = always) -> None:
        """Replace what has this name by an object of another repository, whose bytes are `data`."""
        if isinstance(self.store, PlannedStore) and other is not self:
            confirm()
            self.store.borrow(name, other.store, len(data))
        else:
            self.replace_bytes(name, [data], confirm)

    # -- records -----------------------------------------------------------------------------------------------------

    def is_sealed_like(self, other: Objects) -> bool:
        """Return whether what either of two repositories stores can be stored in the other as it is."""
        return other.sealer is None if self.sealer is None else self.sealer.is_alike(other.sealer)

    def seal_records(
        self,
        records: Sequence[tuple[RecordHeader, bytes | memoryview]],
        *,
        is_repeatable: bool = False,
        room: ReusedRoom | None = None,
    ) -> Sequence[tuple[RecordHeader, bytes | memoryview]]:
        """Return the records of a new pack as they are stored; those that are sealed already stay as they are.

        Args:
            is_repeatable: the same records always give the same bytes.
            room: where sealed ones are put, until it is used again; memory of their own, if not given.
        """
        if self.sealer is None:
            return records
        return self.sealer.seal_records(records, is_repeatable=is_repeatable, room=room)

    def open_record(
        self, pack: str, offset: int, header: RecordHeader, payload: memoryview, room: memoryview | None = None
    ) -> memoryview:
        """Return a record's payload without its seal.

        Args:
            pack, offset: the place of its header, for errors.
            room: memory in which the result may lie, if there is enough of it.

        Raises:
            SealBroken: it is not sealed as records of this repository are.
        """
        if self.sealer is not None:
            return self.sealer.open_record(pack, offset, header, payload, room)
        if header.is_sealed:
            raise SealBroken(pack, offset, "the record here is sealed, and the repository is not encrypted")
        return payload

    # -- names -------------------------------------------------------------------------------------------------------

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects in a folder, given with its slash, or all of them, in order of name."""
        return self.store.list(folder, self._layout)

    def note_digests(self) -> None:
        """From now on, where the store can tell: listings say of what is put whether it was received as it was sent."""
        store = find_innermost(self.store)
        if isinstance(store, TellsDigests):
            store.note_digests()

    def move(self, name: str, new_name: str) -> None:
        """Give an object another name, durably; raises ObjectNotFound, or ObjectExists where the new one is taken."""
        self.store.move(name, new_name)

    def delete(self, name: str) -> None:
        """Remove an object, durably; one that is not there is no error."""
        # On a file system that writes beside what it has, even that takes room.
        self._find_room(lambda: self.store.delete(name))

    def delete_many(self, names: Sequence[str]) -> dict[str, StoreError]:
        """Remove objects, durably, in any order; return the error of each that could not be removed."""
        return self.store.delete_many(names) if names else {}

    def delete_all(self, names: Sequence[str], confirm: Confirm = always) -> None:
        """Remove objects, durably, in any order; raises the first error of those that are removed together.

        Args:
            confirm: asked before every `_REMOVED_AT_ONCE` of them: over a network, asking about each would be a round trip.
        """
        for start in range(0, len(names), _REMOVED_AT_ONCE):
            confirm()
            for name, error in self.delete_many(names[start : start + _REMOVED_AT_ONCE]).items():
                if not isinstance(error, StoreFull):
                    raise error
                self.delete(name)

    def make_folder(self, name: str) -> None:
        """Make sure that objects can be put into a folder; raises NameNotKept if they cannot."""
        self.store.make_folder(name)

    def list_unfinished(self) -> Iterator[Unfinished]:
        """Yield what is being put now, or was when its process ended, if the store has unfinished files."""
        if isinstance(self.store, KeepsUnfinished):
            yield from self.store.list_unfinished(self._layout)

    def remove_unfinished(self, name: str) -> None:
        """Remove what is left of a process that is dead; what cannot be removed stays."""
        if isinstance(self.store, KeepsUnfinished):
            self.store.remove_unfinished(name)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _seal(self, kind: ObjectKind[Content], data: bytes) -> bytes:
        return self.sealer.seal_object(data) if kind.is_sealed and self.sealer is not None else data

    def _open(self, kind: ObjectKind[Content], name: str, data: bytes) -> bytes:
        if not kind.is_sealed or self.sealer is None:
            return data
        assert kind.magic is not None
        if not kind.is_of_backups and find_host(data):
            raise SealBroken(name, 0, "was sealed by a write-only host, and no backup makes such objects")
        return self.sealer.open_object(kind.magic, name, data)

    def _take_in(self, name: str, max_bytes: int) -> bytes:
        return self.store.get(name, max_bytes)

    def _give_out(self, write: Callable[[str, Parts, Confirm], int], name: str, parts: Parts, confirm: Confirm) -> int:
        """Write an object after checking that readers would accept it."""
        assert find_kind(name) is not None, f"{name} is no name of a repository's object"
        check_size(name, sum(len(part) for part in parts))
        return self._find_room(lambda: write(name, parts, confirm))

    def _read_twice(self, name: str, parse: Callable[[bytes], _Result]) -> _Result:
        """Return what `parse` makes of an object, read again before it counts as damaged: a read may fail without an error."""
        data = self.get_bytes(name)
        try:
            return parse(data)
        except IntegrityError:
            self._drop_copy(name)
            again = self.get_bytes(name)
            if again == data:
                raise
        return parse(again)

    def _drop_copy(self, name: str) -> None:
        if isinstance(self.store, KeepsCopies):
            self.store.drop_copy(name)

    def _find_room(self, act: Callable[[], _Result]) -> _Result:
        """Do something that takes room, using the reserve if the store is full; raises StoreFull."""
        try:
            return act()
        except StoreFull:
            if not self.spends_reserve:
                raise
            if not self._is_there(RESERVE_NAME):
                raise
            self.store.delete(RESERVE_NAME)
            return act()

    def _is_there(self, name: str) -> bool:
        with suppress(ObjectNotFound):
            self.store.get_range(name, 0, 1)
            return True
        return False

    def _note_foreign(self, name: str, what: str) -> None:
        if not self.foreign and not self.lists_foreign:
            _log.warning(
                "%s: %s that is not deltaimg's; it and others like it are ignored, 'deltaimg check' lists them",
                name,
                what,
            )
        if len(self.foreign) < _MAX_FOREIGN:
            self.foreign.setdefault(name, what)

    def _measure(self, magic: Kind, name: str) -> int:
        """Return the length in an object's header; raises IntegrityError if the header is damaged."""
        header = parse_header(magic, name, self.store.get_range(name, 0, HEADER_BYTES), may_be_sealed=True)
        return HEADER_BYTES + header.body_bytes


def _build(kind: ObjectKind[Content], content: Content, name: str) -> bytes:
    """Return an object that was parsed again after it was built."""
    data = kind.build(content)
    kind.parse(data, name)
    return data
