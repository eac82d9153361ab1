# SPDX-License-Identifier: Apache-2.0
"""The secret of an encrypted repository, and the keys that are derived from it.

Always  a secret has no `repr` and no text: it cannot reach a message, a log or a traceback by accident.
Source  RFC 5869 (HKDF), with SHA-256; RFC 7748 (X25519).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

KEY_BYTES: Final = 32
SECRET_BYTES: Final = 2 * KEY_BYTES
HOST_SECRET_BYTES: Final = 3 * KEY_BYTES

READERS_CONTEXT: Final = "deltaimg 2026 readers"
HOST_CONTEXT: Final = "deltaimg 2026 write-only host"


@dataclass(frozen=True, slots=True)
class Secret:
    """What the key slots of a repository contain. All members of a family that are encrypted have the same."""

    master_key: bytes = field(repr=False)
    """What everything is sealed with, by way of keys that are derived from it."""
    digest_key: bytes = field(repr=False)
    """What the keys of digests are derived from; an unencrypted member of the family has it in its `config`."""

    def __post_init__(self) -> None:
        assert len(self.master_key) == len(self.digest_key) == KEY_BYTES

    @classmethod
    def make(cls, digest_key: bytes | None = None) -> Secret:
        """Return a new secret. Args: digest_key: that of the family, where there is one already."""
        return cls(secrets.token_bytes(KEY_BYTES), digest_key or secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, data: bytes) -> Secret:
        """Return the secret of these `SECRET_BYTES`."""
        return cls(data[:KEY_BYTES], data[KEY_BYTES:])

    def build(self) -> bytes:
        """Return the secret as key slots contain it."""
        return self.master_key + self.digest_key

    def make_host_secret(self, host: bytes) -> HostSecret:
        """Return what the write-only host of this id gets: with the secret, it can be made again at any time."""
        return HostSecret(host, self.derive_host_key(host), self.digest_key, public_bytes(self.derive_readers_key()))

    def derive_host_key(self, host: bytes) -> bytes:
        """Return the key of a write-only host."""
        return derive_key(self.master_key, HOST_CONTEXT, host)

    def derive_readers_key(self) -> X25519PrivateKey:
        """Return the key that opens the records of write-only hosts."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return X25519PrivateKey.from_private_bytes(derive_key(self.master_key, READERS_CONTEXT))


@dataclass(frozen=True, slots=True)
class HostSecret:
    """What a write-only host has: it seals, and opens none of what it has sealed but what it must know of it."""

    host: bytes
    """The id of its key slot, `HOST_BYTES`."""
    host_key: bytes = field(repr=False)
    """What its objects are sealed with, and what shows that its records are its own."""
    digest_key: bytes = field(repr=False)
    """As of `Secret`."""
    readers_key: bytes = field(repr=False)
    """The public half of what its records are sealed to."""

    def __post_init__(self) -> None:
        assert len(self.host_key) == len(self.digest_key) == len(self.readers_key) == KEY_BYTES

    @classmethod
    def parse(cls, host: bytes, data: bytes) -> HostSecret:
        """Return the secret of these `HOST_SECRET_BYTES`, in the key slot of this id."""
        return cls(host, *(data[at : at + KEY_BYTES] for at in range(0, HOST_SECRET_BYTES, KEY_BYTES)))

    def build(self) -> bytes:
        """Return the secret as its key slot contains it."""
        return self.host_key + self.digest_key + self.readers_key


def public_bytes(key: X25519PrivateKey) -> bytes:
    """Return the public half of a key."""
    return key.public_key().public_bytes_raw()


def derive_key(key: bytes, context: str, salt: bytes = b"") -> bytes:
    """Return a key of 32 bytes for one purpose: HKDF-SHA256 of `key`, with `context` as info."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY_BYTES, salt or None, context.encode()).derive(key)
