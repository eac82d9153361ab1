# SPDX-License-Identifier: Apache-2.0
"""Wrap the secret of a repository with a passphrase or a key file, and unwrap it.

A wrapping key comes from the passphrase or the key file and from the slot's salt, which is 32 random bytes: so it wraps one
secret, once, and a single nonce will do.

Source  RFC 9106 (argon2id), RFC 5869 (HKDF), NIST SP 800-38D (AES-GCM).
"""

from __future__ import annotations

import secrets
import time
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from deltaimg.crypto.secret import KEY_BYTES, HostSecret, Secret, derive_key
from deltaimg.format.key_slot import KEY_FILE, PASSPHRASE, WRITE_ONLY, KeySlot, bound_slot_fields
from deltaimg.format.sealing import NONCE_BYTES
from deltaimg.memory import check_room, limit_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_FILE_CONTEXT: Final = "deltaimg 2026 key file"
_NONCE: Final = bytes(NONCE_BYTES)

_LANES: Final = 4
_MOST_KIB: Final = 256 << 10
_LEAST_KIB: Final = 64 << 10
_MOST_ITERATIONS: Final = 16
_AIM_S: Final = 0.6
"""What opening a repository should take: nothing to a user, and much to whoever tries passphrases."""


class Costs(Struct, frozen=True):
    """What argon2id takes: memory in KiB, passes over it, and how many lanes may be computed at once."""

    memory_kib: int
    iterations: int
    lanes: int = _LANES


@dataclass(frozen=True, slots=True)
class Passphrase:
    """What a person remembers, or a password manager."""

    text: str = field(repr=False)
    costs: Costs | None = None
    """Of a new slot; chosen for this host if not given."""
    source: str = "the passphrase"
    """How messages name it."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The random bytes of a key file."""

    key: bytes = field(repr=False)
    source: str = "the key file"
    """How messages name it."""


Key = Passphrase | KeyFile


def wrap_secret(
    secret: Secret, key: Key, *, family_id: str, label: str, created: str, is_write_only: bool = False
) -> KeySlot:
    """Return a new key slot, which `key` opens.

    Args:
        is_write_only: of a host that only writes; `key` is a key file.

    Raises:
        MemoryLimitReached, MemoryError: there is too little memory for what a passphrase is turned into a key with.
    """
    kind = _choose_type(key, is_write_only=is_write_only)
    costs = Costs(0, 0, 0) if isinstance(key, KeyFile) else key.costs or choose_costs()
    slot = KeySlot(
        id=secrets.token_hex(8),
        type=kind,
        label=label,
        created=created,
        salt=secrets.token_hex(32),
        wrapped="",
        memory_kib=costs.memory_kib,
        iterations=costs.iterations,
        lanes=costs.lanes,
    )
    data = secret.make_host_secret(slot.host).build() if is_write_only else secret.build()
    wrapped = _make_cipher(slot, key).encrypt(_NONCE, data, bound_slot_fields(slot, family_id))
    return msgspec.structs.replace(slot, wrapped=wrapped.hex())


def unwrap_secret(slot: KeySlot, key: Key, *, family_id: str) -> Secret | HostSecret | None:
    """Return the secret in a slot, or that of the write-only host; None if `key` does not open it, or it was changed.

    Raises:
        MemoryLimitReached, MemoryError: there is too little memory for what a passphrase is turned into a key with.
    """
    from cryptography.exceptions import InvalidTag

    if (slot.type == PASSPHRASE) != isinstance(key, Passphrase):
        return None
    try:
        data = _make_cipher(slot, key).decrypt(_NONCE, bytes.fromhex(slot.wrapped), bound_slot_fields(slot, family_id))
    except InvalidTag:
        return None
    return HostSecret.parse(slot.host, data) if slot.is_write_only else Secret.parse(data)


def _choose_type(key: Key, *, is_write_only: bool) -> Literal["passphrase", "keyfile", "writeonly"]:
    if is_write_only:
        assert isinstance(key, KeyFile)
        return WRITE_ONLY
    return PASSPHRASE if isinstance(key, Passphrase) else KEY_FILE


def choose_costs() -> Costs:
    """Return what opening a repository with a new passphrase shall cost: about half a second of this host's time."""
    memory_kib = max(_LEAST_KIB, min(_MOST_KIB, limit_bytes() // 2 >> 10))
    started = time.process_time()  # not the clock of the wall: other processes may be busy
    _derive_from_passphrase("", bytes(KEY_BYTES), Costs(memory_kib, 1))
    taken_s = time.process_time() - started
    return Costs(memory_kib, max(1, min(_MOST_ITERATIONS, int(_AIM_S / max(taken_s, 1e-3)))))


def _make_cipher(slot: KeySlot, key: Key) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt = bytes.fromhex(slot.salt)
    if isinstance(key, KeyFile):
        return AESGCM(derive_key(key.key, KEY_FILE_CONTEXT, salt))
    check_room(slot.object_name, slot.memory_kib << 10)
    return AESGCM(_derive_from_passphrase(key.text, salt, Costs(slot.memory_kib, slot.iterations, slot.lanes)))


def _derive_from_passphrase(text: str, salt: bytes, costs: Costs) -> bytes:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    return Argon2id(
        salt=salt, length=KEY_BYTES, iterations=costs.iterations, lanes=costs.lanes, memory_cost=costs.memory_kib
    ).derive(unicodedata.normalize("NFC", text).encode())
