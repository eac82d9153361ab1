# SPDX-License-Identifier: Apache-2.0
"""Seal objects and records, and open them: AES-256-GCM, under keys each of which is used once.

Always  every object, and every batch of records, has a key of its own, derived from the master key and a *seed* that lies
        before the ciphertext. Within a batch the nonce is the record's number; an object has a single nonce. So no nonce
        meets a key twice, without any state that could be lost or copied (docs/decisions/0018-sealing.md).
Always  a seed is a keyed digest of random bytes and of what is sealed: should random numbers ever come twice, as in a virtual
        machine that is resumed twice, then different content has different seeds all the same.
Always  what a seal authenticates besides is the header: kind, version, lengths, ids, encoding.
Memory  one copy of what is sealed or opened; the keys of the latest batches; the largest record that a thread has opened.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from deltaimg.crypto.secret import Secret, derive_key
from deltaimg.errors import SealBroken, Truncated
from deltaimg.format.framing import HEADER_BYTES, Kind, digest_bytes, finish_header, parse_header, unframe
from deltaimg.format.limits import RECORD_SEAL_BYTES
from deltaimg.format.record import RecordHeader, bound_record_fields
from deltaimg.format.sealing import (
    OBJECT_NONCE,
    OBJECT_PREFIX,
    RECORD_PREFIX,
    SEED_BYTES,
    bound_fields,
    frame_opened,
    record_nonce,
    start_sealed,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RECORDS_CONTEXT: Final = "deltaimg 2026 sealed records"
OBJECTS_CONTEXT: Final = "deltaimg 2026 sealed objects"
BATCH_CONTEXT: Final = "deltaimg 2026 batch of records"
OBJECT_CONTEXT: Final = "deltaimg 2026 object"
_SEEDS_CONTEXT: Final = "deltaimg 2026 seeds"
_KEPT_KEYS: Final = 256

_MADE_OTHERWISE = "was changed, moved here, or sealed with another key"


class ReusedRoom:
    """Memory that is used again and again: the pages of new memory cost several times what AES-GCM does."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def take(self, size_bytes: int) -> memoryview:
        """Return so many bytes; what was taken before is overwritten."""
        if len(self._buffer) < size_bytes:
            self._buffer = bytearray(size_bytes)
        return memoryview(self._buffer)[:size_bytes]


class Sealer:
    """Seals and opens with the keys of one repository; any number of threads may use one."""

    def __init__(self, secret: Secret, draw: Callable[[int], bytes] = os.urandom) -> None:
        """Args: draw: returns so many random bytes."""
        self._master_key, self._draw = secret.master_key, draw
        self._records_key = derive_key(secret.master_key, RECORDS_CONTEXT)
        self._objects_key = derive_key(secret.master_key, OBJECTS_CONTEXT)
        self._seeds_key = derive_key(secret.master_key, _SEEDS_CONTEXT)
        self._local = threading.local()
        self._find_batch_cipher = lru_cache(_KEPT_KEYS)(self._make_batch_cipher)

    def is_alike(self, other: Sealer | None) -> bool:
        """Return whether what either of two has sealed is sealed for the other, too."""
        return other is not None and self._master_key == other._master_key

    # -- whole objects -----------------------------------------------------------------------------------------------

    def seal_object(self, data: bytes) -> bytes:
        """Return the sealed object for a whole unsealed one."""
        header, body = start_sealed(data), data[HEADER_BYTES:]
        bound = bound_fields(header)
        seed = self._make_seed(self._draw(SEED_BYTES), bound, body)
        sealed = seed + _make_cipher(self._objects_key, OBJECT_CONTEXT, seed).encrypt(OBJECT_NONCE, body, bound)
        return finish_header(header, digest_bytes(sealed)) + sealed

    def open_object(self, kind: Kind, name: str, data: bytes) -> bytes:
        """Return the unsealed object for a whole sealed one.

        Raises:
            IntegrityError, UnsupportedFormat: it is damaged; SealBroken: it is not sealed, or not so by this key.
        """
        from cryptography.exceptions import InvalidTag

        if not parse_header(kind, name, data, may_be_sealed=True).is_sealed:
            raise SealBroken(name, 0, "is not sealed, though the repository is encrypted")
        body = unframe(kind, name, data, is_sealed=True)
        seed = bytes(body[:SEED_BYTES])
        try:
            opened = _make_cipher(self._objects_key, OBJECT_CONTEXT, seed).decrypt(
                OBJECT_NONCE, body[OBJECT_PREFIX.size :], bound_fields(data)
            )
        except InvalidTag as error:
            raise SealBroken(name, HEADER_BYTES, _MADE_OTHERWISE) from error
        return frame_opened(kind, opened)

    # -- records -----------------------------------------------------------------------------------------------------

    def seal_records(
        self,
        records: Sequence[tuple[RecordHeader, bytes]],
        *,
        is_repeatable: bool = False,
        room: ReusedRoom | None = None,
    ) -> list[tuple[RecordHeader, bytes | memoryview]]:
        """Return records sealed, one by one, as a batch of their own; those that are sealed already stay as they are.

        Args:
            is_repeatable: the same records always give the same bytes; the seed is a keyed digest of all of them.
            room: where they are put, until it is used again; memory of their own, if not given.
        """
        bare = [(header, payload) for header, payload in records if not header.is_sealed]
        if not bare:
            return list(records)
        if is_repeatable:
            content = [part for header, payload in bare for part in (bound_record_fields(header), payload)]
            seed = self._make_seed(bytes(SEED_BYTES), *content)
        else:
            content = [bound_record_fields(header) + header.payload_digest for header, _ in bare]
            seed = self._make_seed(self._draw(SEED_BYTES), *content)
        cipher = _make_cipher(self._records_key, BATCH_CONTEXT, seed)
        left = (room or ReusedRoom()).take(sum(len(payload) + RECORD_SEAL_BYTES for _, payload in bare))
        sealed: list[tuple[RecordHeader, bytes | memoryview]] = []
        for number, (header, payload) in enumerate(records):
            if header.is_sealed:
                sealed.append((header, payload))
                continue
            out, left = left[: len(payload) + RECORD_SEAL_BYTES], left[len(payload) + RECORD_SEAL_BYTES :]
            sealed.append((_seal_record(cipher, seed, number, header, payload, out), out))
        return sealed

    def open_record(
        self, pack: str, offset: int, header: RecordHeader, payload: bytes | memoryview, *, is_brief: bool = False
    ) -> memoryview:
        """Return the payload of a record without its seal.

        Args:
            pack, offset: where its header is, for errors.
            is_brief: the result is used before this thread opens another record so.

        Raises:
            SealBroken: it is not sealed, or not so by this key.
        """
        from cryptography.exceptions import InvalidTag

        if not header.is_sealed:
            raise SealBroken(pack, offset, "the record here is not sealed, though the repository is encrypted")
        if len(payload) != header.payload_bytes:
            raise Truncated(pack, offset, header.payload_bytes, len(payload))
        seed, number = RECORD_PREFIX.unpack_from(payload)
        cipher, nonce, bound = self._find_batch_cipher(seed), record_nonce(number), bound_record_fields(header)
        ciphertext = payload[RECORD_PREFIX.size :]
        try:
            if not is_brief or not hasattr(cipher, "decrypt_into"):
                return memoryview(cipher.decrypt(nonce, ciphertext, bound))
            opened = self._find_own_room().take(len(payload) - RECORD_SEAL_BYTES)
            cipher.decrypt_into(nonce, ciphertext, bound, opened)
        except InvalidTag as error:
            raise SealBroken(pack, offset, f"the record here {_MADE_OTHERWISE}") from error
        return opened

    # -- parts -------------------------------------------------------------------------------------------------------

    def _make_seed(self, drawn: bytes, *content: bytes) -> bytes:
        hasher = blake3(drawn, key=self._seeds_key)
        for each in content:
            hasher.update(each)
        return hasher.digest(SEED_BYTES)

    def _find_own_room(self) -> ReusedRoom:
        """Return the room of this thread."""
        room: ReusedRoom | None = getattr(self._local, "room", None)
        if room is None:
            room = self._local.room = ReusedRoom()
        return room

    def _make_batch_cipher(self, seed: bytes) -> AESGCM:
        return _make_cipher(self._records_key, BATCH_CONTEXT, seed)


def bare_header(header: RecordHeader, opened: memoryview) -> RecordHeader:
    """Return the header of a sealed record as it is without the seal, `opened` being its payload."""
    return replace(header, payload_bytes=len(opened), payload_digest=digest_bytes(opened), is_sealed=False)


def _seal_record(
    cipher: AESGCM, seed: bytes, number: int, header: RecordHeader, payload: bytes, out: memoryview
) -> RecordHeader:
    """Fill `out` with a sealed payload, and return its header."""
    header = replace(header, payload_bytes=header.payload_bytes + RECORD_SEAL_BYTES, is_sealed=True)
    nonce, bound = record_nonce(number), bound_record_fields(header)
    RECORD_PREFIX.pack_into(out, 0, seed, number)
    if hasattr(cipher, "encrypt_into"):  # not in all versions of cryptography
        cipher.encrypt_into(nonce, payload, bound, out[RECORD_PREFIX.size :])
    else:
        out[RECORD_PREFIX.size :] = cipher.encrypt(nonce, payload, bound)
    return replace(header, payload_digest=digest_bytes(out))


def _make_cipher(key: bytes, context: str, seed: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(derive_key(key, context, seed))
