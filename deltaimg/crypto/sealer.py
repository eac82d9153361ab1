# SPDX-License-Identifier: Apache-2.0
"""Seal objects and records, and open them: AES-256-GCM, under keys each of which is used once.

Always  every object, and every batch of records, has a key of its own, derived from the master key and a *seed* that lies
        before the ciphertext. Within a batch the nonce is the record's number; an object has a single nonce. So no nonce
        meets a key twice, without any state that could be lost or copied (docs/decisions/0018-sealing.md).
Always  a write-only host seals records with a key that it agrees with the readers' public key and forgets: the seed is an
        ephemeral public key (docs/decisions/0027-write-only-hosts.md).
Always  a seed is a keyed digest of random bytes and of what is sealed: should random numbers ever come twice, as in a virtual
        machine that is resumed twice, then different content has different seeds all the same.
Always  what a seal authenticates besides is the header: kind, version, lengths, ids, encoding.
Always  with padding and without it, equal content has different seeds: under one key two lengths would be two messages.
Memory  one copy of what is sealed or opened; the keys of the latest batches.
Source  RFC 9180 (HPKE), modes with a pre-shared key, whose steps this follows with one HKDF each.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final, cast

from blake3 import blake3
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.crypto.secret import HostSecret, Secret, derive_key, public_bytes
from deltaimg.errors import OnlyWrites, PaddingMissing, SealBroken, Truncated
from deltaimg.format.framing import HEADER_BYTES, Kind, digest_bytes, finish_header, parse_header, unframe
from deltaimg.format.padding import MARK, find_content_bytes, padded_bytes
from deltaimg.format.record import AES_256_GCM, AES_256_GCM_TO_READERS, SEAL_BYTES, RecordHeader, bound_record_fields
from deltaimg.format.sealing import (
    HOST_OBJECT_PREFIX,
    HOST_RECORD_PREFIX,
    OBJECT_NONCE,
    OBJECT_PREFIX,
    RECORD_PREFIX,
    SEED_BYTES,
    TAG_BYTES,
    bound_fields,
    find_host,
    record_nonce,
    sealed_body_bytes,
    start_opened,
    start_sealed,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RECORDS_CONTEXT: Final = "deltaimg 2026 sealed records"
OBJECTS_CONTEXT: Final = "deltaimg 2026 sealed objects"
BATCH_CONTEXT: Final = "deltaimg 2026 batch of records"
OBJECT_CONTEXT: Final = "deltaimg 2026 object"
AGREEMENT_CONTEXT: Final = "deltaimg 2026 key agreement"
_SEEDS_CONTEXT: Final = "deltaimg 2026 seeds"
_PADDED_SEEDS_CONTEXT: Final = "deltaimg 2026 seeds of what is padded"
_KEPT_KEYS: Final = 256

_KEPT_HOSTS: Final = 64

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


class _Keys(Struct, frozen=True):
    """What is derived from a master key, or from the key of a write-only host."""

    records: bytes
    objects: bytes
    seeds: bytes

    @classmethod
    def derive(cls, key: bytes, *, is_padded: bool) -> _Keys:
        seeds = _PADDED_SEEDS_CONTEXT if is_padded else _SEEDS_CONTEXT
        return cls(*(derive_key(key, context) for context in (RECORDS_CONTEXT, OBJECTS_CONTEXT, seeds)))


class _Batch(Struct, frozen=True):
    """Records that are sealed together."""

    cipher: AESGCM
    sealed: int
    """What `sealed` is in their headers."""
    prefix: bytes
    """What lies before the number of each."""
    room: ReusedRoom | None
    """Where a payload is padded; None where none is."""

    def measure(self, header: RecordHeader, payload: bytes | memoryview) -> int:
        """Return how long a payload is once it is sealed."""
        size_bytes = len(payload) if self.room is None else padded_bytes(len(payload), header.raw_bytes)
        return size_bytes + SEAL_BYTES[self.sealed]

    def seal(self, number: int, header: RecordHeader, payload: bytes | memoryview, out: memoryview) -> RecordHeader:
        """Fill `out`, which is as long as it measures, with a sealed payload, and return its header."""
        if self.room is not None:
            padded = self.room.take(len(out) - SEAL_BYTES[self.sealed])
            padded[: len(payload)] = payload
            padded[len(payload) :] = MARK.ljust(len(padded) - len(payload), b"\0")
            payload = padded
        header = replace(header, payload_bytes=len(out), sealed=self.sealed, is_padded=self.room is not None)
        nonce, bound = record_nonce(number), bound_record_fields(header)
        prefix = self.prefix + number.to_bytes(4, "little")
        out[: len(prefix)] = prefix
        if hasattr(self.cipher, "encrypt_into"):  # not in all versions of cryptography
            self.cipher.encrypt_into(nonce, payload, bound, out[len(prefix) :])
        else:
            out[len(prefix) :] = self.cipher.encrypt(nonce, payload, bound)
        return replace(header, payload_digest=digest_bytes(out))


class Sealer(ABC):
    """Seals and opens with the keys of one repository; any number of threads may use one."""

    def __init__(self, key: bytes, draw: Callable[[int], bytes], *, is_padded: bool) -> None:
        self._keys, self._draw, self._is_padded = _Keys.derive(key, is_padded=is_padded), draw, is_padded

    @property
    @abstractmethod
    def host(self) -> bytes:
        """The id of the write-only host that can open the objects that it seals; empty where only holders of the secret can."""

    @abstractmethod
    def is_alike(self, other: Sealer | None) -> bool:
        """Return whether what either of two has sealed is sealed for the other, too."""

    @abstractmethod
    def open_record(
        self, pack: str, offset: int, header: RecordHeader, payload: bytes | memoryview, room: memoryview | None = None
    ) -> memoryview:
        """Return the payload of a record without its seal.

        Args:
            pack, offset: where its header is, for errors.
            room: memory in which the result may lie, if there is enough of it.

        Raises:
            SealBroken: it is not sealed, or not so by this key. OnlyWrites: this key opens none.
        """

    @abstractmethod
    def _find_keys(self, name: str, host: bytes) -> _Keys:
        """Return the keys of a write-only host, of a holder of the secret if empty; raises OnlyWrites about object `name`."""

    @abstractmethod
    def _start_batch(self, seed: bytes, room: ReusedRoom | None) -> _Batch:
        """Return what seals records together, `seed` being of them alone. Args: room: where they are padded, if they are."""

    # -- whole objects -----------------------------------------------------------------------------------------------

    def seal_object(self, data: bytes) -> bytes:
        """Return the sealed object for a whole unsealed one."""
        host = self.host
        header = start_sealed(data, host, is_padded=self._is_padded)
        keys, bound, body = self._find_keys("", host), bound_fields(header), data[HEADER_BYTES:]
        seed = self._make_seed(self._draw(SEED_BYTES), host, bound, body)
        if self._is_padded:
            body = (body + MARK).ljust(padded_bytes(len(body)), b"\0")
        sealed = host + seed + _make_cipher(keys.objects, OBJECT_CONTEXT, seed).encrypt(OBJECT_NONCE, body, bound)
        return finish_header(header, digest_bytes(sealed)) + sealed

    def open_object(self, kind: Kind, name: str, data: bytes) -> bytes:
        """Return the unsealed object for a whole sealed one.

        Raises:
            IntegrityError, UnsupportedFormat: it is damaged; SealBroken: it is not sealed, or not so by this key.
            OnlyWrites: it is not for this write-only host. PaddingMissing: it is padded, and nothing here should be.
        """
        from cryptography.exceptions import InvalidTag

        found = parse_header(kind, name, data, may_be_sealed=True)
        if not found.is_sealed:
            raise SealBroken(name, 0, "is not sealed, though the repository is encrypted")
        body, host = unframe(kind, name, data, is_sealed=True), find_host(data)
        prefix = HOST_OBJECT_PREFIX if host else OBJECT_PREFIX
        seed = bytes(body[prefix.size - SEED_BYTES : prefix.size])
        keys = self._find_keys(name, host)
        try:
            cipher = _make_cipher(keys.objects, OBJECT_CONTEXT, seed)
            whole = _decrypt_behind_header(cipher, body[prefix.size :], bound_fields(data))
        except InvalidTag as error:
            raise SealBroken(name, HEADER_BYTES, _MADE_OTHERWISE) from error
        if found.is_padded:
            if not self._is_padded:
                raise PaddingMissing(name)
            del whole[HEADER_BYTES + find_content_bytes(name, HEADER_BYTES, memoryview(whole)[HEADER_BYTES:]) :]
        whole[:HEADER_BYTES] = start_opened(kind, memoryview(whole)[HEADER_BYTES:])
        return cast("bytes", whole)  # never changed from here on; a copy of a large table costs more than its seal

    def measure_object(self, size_bytes: int) -> int:
        """Return the size that an unsealed object of `size_bytes` has once it is sealed."""
        body_bytes = sealed_body_bytes(size_bytes - HEADER_BYTES, self.host, is_padded=self._is_padded)
        return HEADER_BYTES + body_bytes

    # -- records -----------------------------------------------------------------------------------------------------

    def seal_records(
        self,
        records: Sequence[tuple[RecordHeader, bytes | memoryview]],
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
        batch = self._start_batch(seed, ReusedRoom() if self._is_padded else None)
        left = (room or ReusedRoom()).take(sum(batch.measure(*each) for each in bare))
        sealed: list[tuple[RecordHeader, bytes | memoryview]] = []
        for number, (header, payload) in enumerate(records):
            if header.is_sealed:
                sealed.append((header, payload))
                continue
            taken = batch.measure(header, payload)
            out, left = left[:taken], left[taken:]
            sealed.append((batch.seal(number, header, payload, out), out))
        return sealed

    def _make_seed(self, drawn: bytes, *content: bytes | memoryview) -> bytes:
        hasher = blake3(drawn, key=self._keys.seeds)
        for each in content:
            hasher.update(each)
        return hasher.digest(SEED_BYTES)


class SecretSealer(Sealer):
    """Seals and opens everything."""

    def __init__(self, secret: Secret, draw: Callable[[int], bytes] = os.urandom, *, is_padded: bool = False) -> None:
        """Args: draw: returns so many random bytes. is_padded: what is sealed is padded before."""
        super().__init__(secret.master_key, draw, is_padded=is_padded)
        self._secret, self._host = secret, b""
        self._find_host_keys = lru_cache(_KEPT_HOSTS)(
            lambda host: _Keys.derive(secret.derive_host_key(host), is_padded=is_padded)
        )
        self._find_batch_cipher = lru_cache(_KEPT_KEYS)(self._make_batch_cipher)

    @property
    def host(self) -> bytes:
        """As of `Sealer`."""
        return self._host

    def for_host(self, host: bytes) -> SecretSealer:
        """Return one whose objects a write-only host can open, too."""
        found = SecretSealer(self._secret, self._draw, is_padded=self._is_padded)
        found._host = host
        return found

    def is_alike(self, other: Sealer | None) -> bool:
        """As of `Sealer`."""
        return (
            isinstance(other, SecretSealer)
            and self._secret.master_key == other._secret.master_key
            and self._is_padded == other._is_padded
        )

    def open_record(
        self, pack: str, offset: int, header: RecordHeader, payload: bytes | memoryview, room: memoryview | None = None
    ) -> memoryview:
        """As of `Sealer`."""
        from cryptography.exceptions import InvalidTag

        if not header.is_sealed:
            raise SealBroken(pack, offset, "the record here is not sealed, though the repository is encrypted")
        if len(payload) != header.payload_bytes:
            raise Truncated(pack, offset, header.payload_bytes, len(payload))
        if header.sealed == AES_256_GCM:
            layout = RECORD_PREFIX
            host, (seed, number) = b"", layout.unpack_from(payload)
        else:
            layout = HOST_RECORD_PREFIX
            host, seed, number = layout.unpack_from(payload)
        nonce, bound, ciphertext = record_nonce(number), bound_record_fields(header), payload[layout.size :]
        try:
            cipher = self._find_batch_cipher(host, seed)
            size_bytes = len(payload) - SEAL_BYTES[header.sealed]
            if room is None or len(room) < size_bytes or not hasattr(cipher, "decrypt_into"):
                opened = memoryview(cipher.decrypt(nonce, ciphertext, bound))
            else:
                opened = room[:size_bytes]
                cipher.decrypt_into(nonce, ciphertext, bound, opened)
        except (InvalidTag, ValueError) as error:  # the latter for an ephemeral key that is none
            raise SealBroken(pack, offset, f"the record here {_MADE_OTHERWISE}") from error
        return opened[: find_content_bytes(pack, offset, opened, header.raw_bytes)] if header.is_padded else opened

    def _find_keys(self, name: str, host: bytes) -> _Keys:  # noqa: ARG002
        return self._find_host_keys(host) if host else self._keys

    def _start_batch(self, seed: bytes, room: ReusedRoom | None) -> _Batch:
        return _Batch(self._make_batch_cipher(b"", seed), AES_256_GCM, seed, room)

    def _make_batch_cipher(self, host: bytes, seed: bytes) -> AESGCM:
        if not host:
            return _make_cipher(self._keys.records, BATCH_CONTEXT, seed)
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        private = self._readers_key
        agreed = _agree(private, X25519PublicKey.from_public_bytes(seed), seed, public_bytes(private))
        return _make_cipher(self._find_host_keys(host).records, BATCH_CONTEXT, agreed)

    @cached_property
    def _readers_key(self) -> X25519PrivateKey:
        return self._secret.derive_readers_key()


class HostSealer(Sealer):
    """Seals for a write-only host, and opens only the objects that are for this host: no record."""

    def __init__(
        self, secret: HostSecret, draw: Callable[[int], bytes] = os.urandom, *, is_padded: bool = False
    ) -> None:
        """As of `SecretSealer`."""
        super().__init__(secret.host_key, draw, is_padded=is_padded)
        self._secret = secret

    @property
    def host(self) -> bytes:
        """As of `Sealer`."""
        return self._secret.host

    def is_alike(self, other: Sealer | None) -> bool:
        """As of `Sealer`."""
        return isinstance(other, HostSealer) and (self._secret, self._is_padded) == (other._secret, other._is_padded)

    def open_record(
        self,
        pack: str,
        offset: int,  # noqa: ARG002
        header: RecordHeader,  # noqa: ARG002
        payload: bytes | memoryview,  # noqa: ARG002
        room: memoryview | None = None,  # noqa: ARG002
    ) -> memoryview:
        """As of `Sealer`."""
        raise OnlyWrites(pack)

    def open_object(self, kind: Kind, name: str, data: bytes) -> bytes:
        """As of `Sealer`; PaddingMissing also of what this host cannot open, so that its first backup will notice."""
        if not self._is_padded and parse_header(kind, name, data, may_be_sealed=True).is_padded:
            raise PaddingMissing(name)
        return super().open_object(kind, name, data)

    def _find_keys(self, name: str, host: bytes) -> _Keys:
        if host != self.host:
            raise OnlyWrites(name)
        return self._keys

    def _start_batch(self, seed: bytes, room: ReusedRoom | None) -> _Batch:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

        private, readers = X25519PrivateKey.from_private_bytes(seed), self._secret.readers_key
        ephemeral = public_bytes(private)
        agreed = _agree(private, X25519PublicKey.from_public_bytes(readers), ephemeral, readers)
        cipher = _make_cipher(self._keys.records, BATCH_CONTEXT, agreed)
        return _Batch(cipher, AES_256_GCM_TO_READERS, self.host + ephemeral, room)


def make_sealer(secret: Secret | HostSecret, *, is_padded: bool = False) -> Sealer:
    """Return what seals and opens with a secret. Args: is_padded: what is sealed is padded before."""
    if isinstance(secret, Secret):
        return SecretSealer(secret, is_padded=is_padded)
    return HostSealer(secret, is_padded=is_padded)


def bare_header(header: RecordHeader, opened: memoryview) -> RecordHeader:
    """Return the header of a sealed record as it is without the seal, `opened` being its payload."""
    return replace(header, payload_bytes=len(opened), payload_digest=digest_bytes(opened), sealed=0, is_padded=False)


def _agree(private: X25519PrivateKey, public: X25519PublicKey, ephemeral: bytes, readers: bytes) -> bytes:
    """Return what the two ends of a key agreement have in common, bound to both public keys."""
    return derive_key(private.exchange(public), AGREEMENT_CONTEXT, ephemeral + readers)


def _decrypt_behind_header(cipher: AESGCM, sealed: memoryview, bound: bytes) -> bytearray:
    """Return what is sealed, behind room for a header: tables are large, and new memory costs more than opening them does.

    Raises:
        InvalidTag, ValueError: it does not open.
    """
    if len(sealed) < TAG_BYTES or not hasattr(cipher, "decrypt_into"):
        return bytearray(HEADER_BYTES) + cipher.decrypt(OBJECT_NONCE, sealed, bound)
    whole = bytearray(HEADER_BYTES + len(sealed) - TAG_BYTES)
    cipher.decrypt_into(OBJECT_NONCE, sealed, bound, memoryview(whole)[HEADER_BYTES:])
    return whole


def _make_cipher(key: bytes, context: str, salt: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(derive_key(key, context, salt))
