# SPDX-License-Identifier: Apache-2.0
"""Each file kind by name: how to read it, how to write it, and what it says in plain JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from deltaimg.errors import DigestMismatch, Malformed, Truncated
from deltaimg.format.annotation import Annotation, build_annotation, parse_annotation
from deltaimg.format.config import Config, build_config, parse_config
from deltaimg.format.deletion import (
    Deletion,
    DeletionLocks,
    build_deletion,
    build_deletion_locks,
    parse_deletion,
    parse_deletion_locks,
)
from deltaimg.format.framing import HEADER_BYTES, SALT_BYTES, Kind, digest_bytes, parse_header, salt_object
from deltaimg.format.index import build_index, parse_index
from deltaimg.format.key_slot import KeySlot, build_key_slot, parse_key_slot
from deltaimg.format.lock import Lock, build_lock, parse_lock
from deltaimg.format.manifest import Manifest, build_manifest, parse_manifest
from deltaimg.format.map import build_map, parse_map
from deltaimg.format.pack import finish_pack, parse_pack_footer, scan_records
from deltaimg.format.parity import TRAILER, ParityTables, digest_shards, lay_out_parity, parse_tables, parse_trailer
from deltaimg.format.record import RECORD_HEADER_BYTES, RecordHeader, check_payload
from deltaimg.format.roster import Roster, build_roster, parse_roster
from deltaimg.format.signature import build_signature, parse_signature
from deltaimg.format.verified import build_verified, parse_verified


class PackContent(msgspec.Struct, frozen=True):
    """A pack read both ways: by its footer, and front to back without it."""

    footer: Any
    records: list[tuple[RecordHeader, bytes]]


def parse_pack(data: bytes, name: str) -> PackContent:
    """Read a pack by its footer, then record by record, and compare each payload with its header."""
    footer = parse_pack_footer(name, data)
    records = []
    for offset, header in scan_records(name, data):
        payload = data[offset + RECORD_HEADER_BYTES :][: header.payload_bytes]
        check_payload(name, offset, header, payload)
        records.append((header, payload))
    return PackContent(footer, records)


class ParityObject(msgspec.Struct, frozen=True):
    """A whole parity object; `planes` as one stretch of bytes."""

    tables: ParityTables
    planes: bytes | memoryview


def parse_parity(data: bytes, name: str) -> ParityObject:
    """Read a parity object all of which must be right: tables, twin, and every shard of the planes."""
    header = parse_header(Kind.PARITY, name, data)
    end = HEADER_BYTES + header.body_bytes
    if len(data) < end:
        raise Truncated(name, len(data), end, len(data))
    if len(data) > end:
        raise Malformed(name, end, f"{len(data) - end} bytes follow its end")
    tables = parse_tables(name, data, len(data))
    twin_offset = parse_trailer(name, data, len(data))
    view = memoryview(data)
    if view[twin_offset : end - TRAILER.size] != view[: tables.planes_offset]:
        raise Malformed(name, twin_offset, "its tables and their twin differ")
    planes = view[tables.planes_offset : twin_offset]
    wrong = np.flatnonzero(
        np.any(digest_shards(planes, tables.shard_bytes) != tables.digests[tables.data_shards :], axis=1)
    )
    if len(wrong):
        at = int(wrong[0]) * tables.shard_bytes
        raise DigestMismatch(
            name,
            tables.planes_offset + at,
            "the shard here",
            tables.digests[tables.data_shards + int(wrong[0])].tobytes(),
            digest_bytes(planes[at : at + tables.shard_bytes]),
        )
    return ParityObject(tables, planes)


SALT = bytes(range(0x50, 0x50 + SALT_BYTES))


def build_pack(content: PackContent) -> bytes:
    """Lay out the records of a pack."""
    return b"".join(salt_object(finish_pack(content.records)[0], SALT))


def build_salted_parity(content: ParityObject) -> bytes:
    """Lay out a parity object; its twin has the salt too."""
    return b"".join(salt_object(lay_out_parity(content.tables, [content.planes]), SALT))


def salted(build: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Return a writer that gives objects the same salt each time."""
    return lambda content: b"".join(salt_object([build(content)], SALT))


class KindIO(msgspec.Struct, frozen=True):
    """Reader and writer of a file kind."""

    kind: Kind
    build: Callable[[Any], bytes]
    parse: Callable[[bytes, str], Any]


KINDS = {
    "config": KindIO(Kind.CONFIG, build_config, parse_config),
    "key_slot": KindIO(Kind.KEY_SLOT, build_key_slot, parse_key_slot),
    "roster": KindIO(Kind.ROSTER, build_roster, parse_roster),
    "lock": KindIO(Kind.LOCK, build_lock, parse_lock),
    "deletion": KindIO(Kind.DELETION, build_deletion, parse_deletion),
    "deletion_locks": KindIO(Kind.DELETION_LOCKS, build_deletion_locks, parse_deletion_locks),
    "annotation": KindIO(Kind.ANNOTATION, build_annotation, parse_annotation),
    "manifest": KindIO(Kind.MANIFEST, build_manifest, parse_manifest),
    "index": KindIO(Kind.INDEX, salted(build_index), parse_index),
    "map": KindIO(Kind.MAP, salted(build_map), parse_map),
    "verified": KindIO(Kind.VERIFIED, build_verified, parse_verified),
    "signature": KindIO(Kind.SIGNATURE, salted(build_signature), parse_signature),
    "parity": KindIO(Kind.PARITY, build_salted_parity, parse_parity),
    "pack": KindIO(Kind.PACK, build_pack, parse_pack),
}


DOCUMENTS = (Annotation, Config, Deletion, DeletionLocks, KeySlot, Lock, Manifest, Roster)
"""What is JSON in its object as well."""


def describe(value: Any) -> Any:
    """Return what a parser returned as plain JSON: bytes and digests as hexadecimal text, rows as objects."""
    if isinstance(value, DOCUMENTS):
        return msgspec.json.decode(msgspec.json.encode(value))
    if isinstance(value, msgspec.Struct):
        return {name: describe(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, np.ndarray):
        if value.dtype.names:
            return [{name: describe(row[name]) for name in value.dtype.names} for row in value]
        if value.dtype == np.uint8 and value.ndim:
            return value.tobytes().hex() if value.ndim == 1 else [describe(row) for row in value]
        return value.tolist()
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [describe(each) for each in value]
    return value
