# SPDX-License-Identifier: Apache-2.0
"""Sealing as docs/format.md describes it, written from that page: it imports nothing of deltaimg, and only `cryptography`.

`python -m tests.golden.sealing_twin` writes the known answers, once; files that exist are left alone.
"""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ANSWERS = Path(__file__).parent / "v1" / "sealed" / "known-answers.json"
PADDED_ANSWERS = ANSWERS.with_name("padded-answers.json")


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
    features = int.from_bytes(header[10:12], "little")
    assert features in (1, 5)
    assert int.from_bytes(header[16:24], "little") == len(sealed)
    body = object_cipher(master_key, sealed[:32]).decrypt(bytes(12), sealed[32:], header[:24] + header[40:56])
    return unpad(body) if features == 5 else body


# -- padding -----------------------------------------------------------------------------------------------------------


def pad(content: bytes, most: int | None = None) -> bytes:
    """Return content, the mark and zeroes. Args: most: the length of all blocks of a record."""
    length, step = len(content), 1
    while (
        length >= 2
        and step.bit_length() - 1 < math.floor(math.log2(length)) - math.floor(math.log2(math.log2(length))) - 1
    ):
        step *= 2
    padded = math.ceil(length / step) * step
    return content + b"\x80" + bytes((padded if most is None else min(padded, most)) - length)


def unpad(padded: bytes, most: int | None = None) -> bytes:
    content = padded[: padded.rindex(b"\x80")]
    assert pad(content, most) == padded
    return content


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
    payload = record_cipher(master_key, seed).decrypt(count + bytes(8), sealed[36:], header[:40])
    assert header[35] in (0, 1)
    most = int.from_bytes(header[32:34], "little") << header[34]
    return unpad(payload, most) if header[35] else payload


# -- write-only hosts --------------------------------------------------------------------------------------------------


def host_key_of(master_key: bytes, host: bytes) -> bytes:
    return hkdf(master_key, "deltaimg 2026 write-only host", host)


def readers_private(master_key: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(hkdf(master_key, "deltaimg 2026 readers"))


def host_secret(secret: bytes, host: bytes) -> bytes:
    """Return what the slot of a write-only host wraps."""
    public = readers_private(secret[:32]).public_key().public_bytes_raw()
    return host_key_of(secret[:32], host) + secret[32:] + public


def seal_host_body(host: bytes, host_key: bytes, seed: bytes, header: bytes, body: bytes) -> bytes:
    """Return what follows the header of an object that a write-only host sealed."""
    return host + seal_body(host_key, seed, header, body)


def open_host_body(master_key: bytes, data: bytes) -> bytes:
    """Return the body of a whole object that a write-only host sealed."""
    header, host, sealed = data[:64], data[64:72], data[72:]
    assert int.from_bytes(header[10:12], "little") == 3
    assert int.from_bytes(header[16:24], "little") == len(sealed) + 8
    cipher = object_cipher(host_key_of(master_key, host), sealed[:32])
    return cipher.decrypt(bytes(12), sealed[32:], header[:24] + header[40:56])


def host_record_cipher(host_key: bytes, agreed: bytes, ephemeral: bytes, readers: bytes) -> AESGCM:
    salt = hkdf(agreed, "deltaimg 2026 key agreement", ephemeral + readers)
    return AESGCM(hkdf(hkdf(host_key, "deltaimg 2026 sealed records"), "deltaimg 2026 batch of records", salt))


def seal_host_payload(
    host: bytes, wrapped: bytes, private: X25519PrivateKey, number: int, header: bytes, payload: bytes
) -> bytes:
    """Return the payload of a record as a write-only host seals it. Args: wrapped: what is in its slot."""
    host_key, readers, count = wrapped[:32], wrapped[64:], number.to_bytes(4, "little")
    ephemeral = private.public_key().public_bytes_raw()
    agreed = private.exchange(X25519PublicKey.from_public_bytes(readers))
    cipher = host_record_cipher(host_key, agreed, ephemeral, readers)
    return host + ephemeral + count + cipher.encrypt(count + bytes(8), payload, header[:40])


def open_host_payload(master_key: bytes, header: bytes, sealed: bytes) -> bytes:
    """Return the payload of a record that a write-only host sealed."""
    assert header[5] == 2
    host, ephemeral, count = sealed[:8], sealed[8:40], sealed[40:44]
    private = readers_private(master_key)
    agreed = private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    readers = private.public_key().public_bytes_raw()
    cipher = host_record_cipher(host_key_of(master_key, host), agreed, ephemeral, readers)
    return cipher.decrypt(count + bytes(8), sealed[44:], header[:40])


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
    kind = {"passphrase": b"\1\0\0\0", "keyfile": b"\2\0\0\0", "writeonly": b"\3\0\0\0"}[slot["type"]]
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
    write_only = {"id": "00000000000000cc", "type": "writeonly"} | common
    host = bytes.fromhex("00000000000000cc")
    of_host = host_secret(secret, host)
    host_header = object_header[:10] + b"\3" + object_header[11:16] + (56 + len(object_body)).to_bytes(8, "little")
    host_header += object_header[24:]
    host_record_header = record_header[:5] + b"\2" + record_header[6:8] + (60 + len(payload)).to_bytes(4, "little")
    host_record_header += record_header[12:]
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
        "host_object": {
            "header": host_header.hex(),
            "body": object_body.hex(),
            "sealed": seal_host_body(host, of_host[:32], seed, host_header, object_body).hex(),
        },
        "host_record": {
            "number": 70000,
            "header": host_record_header.hex(),
            "payload": payload.hex(),
            "sealed": seal_host_payload(
                host, of_host, X25519PrivateKey.from_private_bytes(seed), 70000, host_record_header, payload
            ).hex(),
        },
        # The last letter but one is e and a combining accent: both ways to write it are one passphrase.
        "passphrase": {
            "text": "correct horse cafe\u0301 battery",
            "slot": wrap(passphrase, family_id, "correct horse caf\u00e9 battery", secret),
        },
        "key_file": {"key": (b"\x42" * 32).hex(), "slot": wrap(key_file, family_id, b"\x42" * 32, secret)},
        "write_only": {
            "key": (b"\x43" * 32).hex(),
            "slot": wrap(write_only, family_id, b"\x43" * 32, of_host),
            "wrapped": of_host.hex(),
        },
    }


def make_padded_answers() -> dict[str, object]:
    """Return known answers with padding, of the same keys and seed."""
    known = make_answers()
    secret, seed = bytes.fromhex(str(known["secret"])), bytes.fromhex(str(known["seed"]))
    answers: dict[str, object] = {
        "lengths": {
            str(length): len(pad(bytes(length)))
            for length in (0, 1, 2, 7, 8, 9, 100, 1000, 4096, 99_999, 524_288, 2**24 - 1)
        }
    }
    for size in (0, 9, 300, 1023):
        body = b"{}" * (size // 2) + b" " * (size % 2)
        header = bytes.fromhex("8b44494d47534e500100050000000000") + (48 + len(pad(body))).to_bytes(8, "little")
        header += bytes(16) + bytes(range(0x50, 0x60)) + bytes(8)
        answers[f"object of {size}"] = {
            "header": header.hex(), "body": body.hex(), "sealed": seal_body(secret[:32], seed, header, pad(body)).hex()
        }  # fmt: skip
    for size in (0, 9, 1500, 4095, 4096):
        payload = bytes(number % 251 for number in range(size))
        padded = pad(payload, 4096)
        header = b"\x8bREC\1\1\x40\0" + (52 + len(padded)).to_bytes(4, "little") + b"\xa1" * 16
        header += bytes(4) + b"\1\0" + b"\x0c\1" + bytes(4) + bytes(24)
        answers[f"record of {size}"] = {
            "header": header.hex(), "payload": payload.hex(),
            "sealed": seal_payload(secret[:32], seed, 70000, header, padded).hex(),
        }  # fmt: skip
    return answers


if __name__ == "__main__":
    ANSWERS.parent.mkdir(exist_ok=True)
    for path, make in ((ANSWERS, make_answers), (PADDED_ANSWERS, make_padded_answers)):
        if not path.exists():
            path.write_text(json.dumps(make(), indent=1) + "\n")
