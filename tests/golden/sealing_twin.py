# SPDX-License-Identifier: Apache-2.0
"""Sealing as docs/format.md describes it, written from that page: it imports nothing of deltaimg, and only `cryptography`.

`python -m tests.golden.sealing_twin` writes the known answers, once; files that exist are left alone.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ANSWERS = Path(__file__).parent / "v1" / "sealed" / "known-answers.json"


def hkdf(key: bytes, info: str, salt: bytes | None = None) -> bytes:
    return HKDF(SHA256(), 32, salt, info.encode()).derive(key)


# -- objects -----------------------------------------------------------------------------------------------------------


def object_cipher(master_key: bytes, seed: bytes) -> AESGCM:
    return AESGCM(hkdf(hkdf(master_key, "deltaimg 2026 sealed objects"), "deltaimg 2026 object", seed))


def seal_body(master_key: bytes, seed: bytes, header: bytes, body: bytes) -> bytes:
    """Return what follows the header of a sealed object. Args: header: its 64 bytes, whatever its digests are."""
    return seed + object_cipher(master_key, seed).encrypt(bytes(12), body, header[:24] + header[40:56])


def open_body(master_key: bytes, data: bytes) -> bytes:
    """Return the body of a whole sealed object."""
    header, sealed = data[:64], data[64:]
    assert int.from_bytes(header[10:12], "little") == 1
    assert int.from_bytes(header[16:24], "little") == len(sealed)
    return object_cipher(master_key, sealed[:32]).decrypt(bytes(12), sealed[32:], header[:24] + header[40:56])


# -- records -----------------------------------------------------------------------------------------------------------


def record_cipher(master_key: bytes, seed: bytes) -> AESGCM:
    return AESGCM(hkdf(hkdf(master_key, "deltaimg 2026 sealed records"), "deltaimg 2026 batch of records", seed))


def seal_payload(master_key: bytes, seed: bytes, number: int, header: bytes, payload: bytes) -> bytes:
    """Return the sealed payload of a record. Args: header: its 64 bytes as they are before a sealed payload."""
    count = number.to_bytes(4, "little")
    return seed + count + record_cipher(master_key, seed).encrypt(count + bytes(8), payload, header[:40])


def open_payload(master_key: bytes, header: bytes, sealed: bytes) -> bytes:
    """Return the payload of a sealed record."""
    assert header[5] == 1
    seed, count = sealed[:32], sealed[32:36]
    return record_cipher(master_key, seed).decrypt(count + bytes(8), sealed[36:], header[:40])


# -- key slots ---------------------------------------------------------------------------------------------------------


def slot_cipher(slot: dict[str, object], key: bytes | str) -> AESGCM:
    salt = bytes.fromhex(str(slot["salt"]))
    if isinstance(key, bytes):
        return AESGCM(hkdf(key, "deltaimg 2026 key file", salt))
    derivation = Argon2id(
        salt=salt, length=32, iterations=slot["iterations"], lanes=slot["lanes"], memory_cost=slot["memory_kib"]
    )
    return AESGCM(derivation.derive(unicodedata.normalize("NFC", key).encode()))


def slot_bound(slot: dict[str, object], family_id: str) -> bytes:
    numbers = [slot.get(name, 0).to_bytes(4, "little") for name in ("memory_kib", "iterations", "lanes")]
    kind = {"passphrase": b"\1\0\0\0", "keyfile": b"\2\0\0\0"}[slot["type"]]
    ids = bytes.fromhex(family_id) + bytes.fromhex(str(slot["id"]))
    return b"deltaimg 2026 key slot" + ids + kind + b"".join(numbers) + f"{slot['label']}\0{slot['created']}".encode()


def wrap(slot: dict[str, object], family_id: str, key: bytes | str, secret: bytes) -> dict[str, object]:
    """Return a slot with the secret in it."""
    sealed = slot_cipher(slot, key).encrypt(bytes(12), secret, slot_bound(slot, family_id))
    return slot | {"wrapped": sealed.hex()}


def unwrap(slot: dict[str, object], family_id: str, key: bytes | str) -> bytes:
    """Return the secret in a slot."""
    return slot_cipher(slot, key).decrypt(bytes(12), bytes.fromhex(str(slot["wrapped"])), slot_bound(slot, family_id))


# -- known answers -----------------------------------------------------------------------------------------------------


def make_answers() -> dict[str, object]:
    """Return known answers, of fixed keys and seeds."""
    secret, seed = bytes(range(64)), bytes(range(100, 132))
    master_key, family_id = secret[:32], "00112233445566778899aabbccddeeff"
    object_body = b'{"id":"00000000000000cc"}'
    object_header = bytes.fromhex("8b44494d47534e500100010000000000") + (48 + len(object_body)).to_bytes(8, "little")
    object_header += bytes(16) + bytes(range(0x50, 0x60)) + bytes(8)
    payload = b"a payload of a record" * 3
    record_header = b"\x8bREC\1\1\x40\0" + (52 + len(payload)).to_bytes(4, "little") + b"\xa1" * 16
    record_header += bytes(4) + b"\1\0" + b"\x0c\0" + bytes(4) + bytes(24)
    common = {"label": "the operator's", "created": "20261123T020304.000005Z", "salt": bytes(range(32)).hex()}
    passphrase = {
        "id": "00000000000000aa",
        "type": "passphrase",
        "memory_kib": 64,
        "iterations": 2,
        "lanes": 4,
    } | common
    key_file = {"id": "00000000000000bb", "type": "keyfile"} | common
    return {
        "secret": secret.hex(),
        "family_id": family_id,
        "seed": seed.hex(),
        "object": {
            "header": object_header.hex(),
            "body": object_body.hex(),
            "sealed": seal_body(master_key, seed, object_header, object_body).hex(),
        },
        "record": {
            "number": 70000,
            "header": record_header.hex(),
            "payload": payload.hex(),
            "sealed": seal_payload(master_key, seed, 70000, record_header, payload).hex(),
        },
        # The last letter but one is e and a combining accent: both ways to write it are one passphrase.
        "passphrase": {
            "text": "correct horse cafe\u0301 battery",
            "slot": wrap(passphrase, family_id, "correct horse caf\u00e9 battery", secret),
        },
        "key_file": {"key": (b"\x42" * 32).hex(), "slot": wrap(key_file, family_id, b"\x42" * 32, secret)},
    }


if __name__ == "__main__":
    if not ANSWERS.exists():
        ANSWERS.parent.mkdir(exist_ok=True)
        ANSWERS.write_text(json.dumps(make_answers(), indent=1) + "\n")
