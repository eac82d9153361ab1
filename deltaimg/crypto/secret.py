# SPDX-License-Identifier: Apache-2.0
"""The secret of an encrypted repository, and the keys that are derived from it.

Always  a secret has no `repr` and no text: it cannot reach a message, a log or a traceback by accident.
Source  RFC 5869 (HKDF), with SHA-256.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

KEY_BYTES: Final = 32
SECRET_BYTES: Final = 2 * KEY_BYTES


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


def derive_key(key: bytes, context: str, salt: bytes = b"") -> bytes:
    """Return a key of 32 bytes for one purpose: HKDF-SHA256 of `key`, with `context` as info."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY_BYTES, salt or None, context.encode()).derive(key)
