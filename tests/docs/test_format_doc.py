# SPDX-License-Identifier: Apache-2.0
"""docs/format.md against the code: every table, limit, magic, key and dump in it is read here and compared."""

from __future__ import annotations

import importlib
import re
import struct
import types
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
import pytest
import zstandard
from blake3 import blake3

from deltaimg.arrays import RUN
from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.codec.none import NoneCodec
from deltaimg.codec.zstd import ZstdCodec
from deltaimg.delta.deltaimg_delta import DeltaimgDelta
from deltaimg.delta.signature import root_digest
from deltaimg.delta.xdelta import XdeltaDelta
from deltaimg.delta.zstd_delta import ZstdDelta
from deltaimg.format import delta, index, mirror, pack, parity, record, sealing, signature, sums, verified
from deltaimg.format import map as map_format
from deltaimg.format.annotation import Annotation
from deltaimg.format.config import Config
from deltaimg.format.deletion import Deletion, DeletionLocks
from deltaimg.format.framing import HEADER, HEADER_BYTES, VERSION, Kind
from deltaimg.format.key_slot import KeySlot
from deltaimg.format.lock import Lock
from deltaimg.format.manifest import FreeSpaceSkipped, Freezing, Group, Manifest, Statistics, Tracking
from deltaimg.format.roster import Roster
from deltaimg.kernels import digest_blocks, digest_buffer
from deltaimg.model import MAX_IMAGE_BYTES, Extent
from deltaimg.repo.repository import Keys
from tests.docs import dump
from tests.docs.doc_tables import (
    FIELD_COLUMNS,
    TYPE_BYTES,
    layout,
    layout_titles,
    number,
    read_document,
    section,
    struct_format,
    table,
    tables,
)
from tests.golden import forge
from tests.golden.samples import SAMPLES

STRUCTS = {
    "Common header": (HEADER, 0),
    "Record header": (record.RECORD_HEADER, 0),
    "Trailer": (pack.TRAILER, 0),
    "Index head": (index.HEAD, HEADER_BYTES),
    "Verified head": (verified.HEAD, HEADER_BYTES),
    "Signature head": (signature.HEAD, HEADER_BYTES),
    "Map head": (map_format.HEAD, HEADER_BYTES),
    "Parity head": (parity.HEAD, HEADER_BYTES),
    "Parity trailer": (parity.TRAILER, 0),
    "Sums head": (sums.HEAD, HEADER_BYTES),
    "Delta head": (delta.HEAD, HEADER_BYTES),
    "Mirror state head": (mirror.STATE_HEAD, HEADER_BYTES),
    "Mirror journal head": (mirror.BEGIN, HEADER_BYTES),
    "Mirror undo head": (mirror.UNDO_HEAD, HEADER_BYTES),
    "Sealed body": (sealing.OBJECT_PREFIX, 0),
    "Sealed payload": (sealing.RECORD_PREFIX, 0),
    "Sealed body of a write-only host": (sealing.HOST_OBJECT_PREFIX, 0),
    "Sealed payload of a write-only host": (sealing.HOST_RECORD_PREFIX, 0),
}
ROWS = {
    "Footer entry": pack.FOOTER_ENTRY,
    "Index entry": index.ENTRY,
    "Verified entry": verified.ENTRY,
    "Parity pack": parity.PACK_ENTRY,
}
DOCUMENTS = [
    ("Config", 0, Config),
    ("Lock", 0, Lock),
    ("Deletions", 0, Deletion),
    ("Deletions", 1, DeletionLocks),
    ("Manifest", 0, Manifest),
    ("Manifest", 1, Statistics),
    ("Manifest", 2, Freezing),
    ("Manifest", 3, Tracking),
    ("Manifest", 4, FreeSpaceSkipped),
    ("Manifest", 5, Group),
    ("Annotation", 0, Annotation),
    ("Key slot", 0, KeySlot),
    ("Roster", 0, Roster),
]
MAGICS = {"Record header": record.RECORD_MAGIC, "Trailer": pack.TRAILER_MAGIC, "Parity trailer": parity.TRAILER_MAGIC}


# -- byte tables -------------------------------------------------------------------------------------------------------


def test_every_byte_table_is_compared_with_code():
    assert set(layout_titles()) == set(STRUCTS) | set(ROWS)


@pytest.mark.parametrize("title", [*STRUCTS, *ROWS])
def test_a_byte_table_has_no_gap_and_sizes_that_fit_its_types(title):
    fields = layout(title)
    expected = STRUCTS[title][1] if title in STRUCTS else 0
    for field in fields:
        assert field.offset == expected, field
        assert field.type == "bytes" or field.size == TYPE_BYTES[field.type], field
        expected += field.size


@pytest.mark.parametrize("title", STRUCTS)
def test_a_byte_table_is_the_struct_in_the_code(title):
    assert struct_format(layout(title)) == STRUCTS[title][0].format


@pytest.mark.parametrize("title", ROWS)
def test_a_byte_table_is_the_dtype_in_the_code(title):
    found = []
    for name in ROWS[title].names:
        kind, offset = ROWS[title].fields[name][:2]
        found.append((offset, kind.itemsize, "bytes" if kind.shape else f"u{8 * kind.itemsize}", name))
        assert kind.base.str in ("|u1", f"<u{kind.itemsize}")
    assert [(field.offset, field.size, field.type, field.name) for field in layout(title)] == found


@pytest.mark.parametrize("title", MAGICS)
def test_the_magic_of_a_part_is_that_of_the_code(title):
    assert f"`{MAGICS[title].hex(' ')}`" in section(title)


def test_every_kind_is_listed_with_its_magic():
    rows = next(rows for rows in tables("Common header") if list(rows[0]) == ["kind", "magic", "body"])
    assert {row["kind"]: row["magic"] for row in rows} == {
        kind.name.lower(): f"`{kind.value.hex(' ')}`" for kind in Kind
    }


# -- a reader made of the document -------------------------------------------------------------------------------------


def read_fields(title: str, data: bytes, base: int = 0) -> dict[str, Any]:
    return {field.name: field.read(data, base) for field in layout(title)}


def test_a_reader_made_of_the_document_finds_the_fields_of_a_header():
    written: dict[str, Any] = {"version": 1, "incompatible": 2, "compatible": 3, "reserved": 4, "body_bytes": 5}
    written |= {"body_digest": b"6" * 16, "salt": b"7" * 16}
    found = read_fields("Common header", forge.forge_object(Kind.MAP, b"", **written))
    assert {name: found[name] for name in written} == written
    assert found["magic"] == Kind.MAP.value


def test_a_reader_made_of_the_document_finds_the_fields_of_a_record():
    written: dict[str, Any] = {"encoding": 1, "sealed": 2, "header_bytes": 3, "payload_bytes": 4, "id": b"5" * 16}
    written |= {"sources": 6, "slots": 7, "block_shift": 8, "flags": 9, "absent": 10, "reserved": 11}
    found = read_fields("Record header", forge.forge_record(**written))
    assert {name: found[name] for name in written} == written


@pytest.mark.parametrize(
    ("title", "kind", "case", "expected"),
    [
        ("Index head", "index", "two-packs", {"pack_count": 2, "signature_count": 1, "entry_count": 3}),
        ("Signature head", "signature", "two-records", {"record_count": 2, "slot_count": 3}),
        ("Parity head", "parity", "two-stripes", {"pack_count": 2, "stripe_count": 2, "parity_columns": 2}),
        ("Map head", "map", "full", {"block_count": 1000, "record_count": 2, "run_count": 5, "data_run_count": 3}),
    ],
)
def test_a_reader_made_of_the_document_finds_the_counts_of_a_head(title, kind, case, expected):
    data = (dump.GOLDEN / kind / f"{case}.bin").read_bytes()
    found = read_fields(title, data)
    assert {name: found[name] for name in expected} == expected


def test_a_reader_made_of_the_document_finds_records_from_the_end_of_a_pack():
    data = (dump.GOLDEN / "pack" / "two-records.bin").read_bytes()
    count = read_fields("Trailer", data, len(data) - 16)["entry_count"]
    records = SAMPLES["pack"]["two-records"][1].records
    assert count == len(records)
    for place, (header, payload) in enumerate(records):
        entry = read_fields("Footer entry", data, len(data) - 16 - 32 * (count - place))
        found = read_fields("Record header", data, entry["offset"])
        for field in ("id", "payload_bytes", "slots", "encoding", "block_shift", "absent"):
            assert found[field] == entry[field] == getattr(header, field)
        start = entry["offset"] + found["header_bytes"]
        assert data[start : start + found["payload_bytes"]] == payload


def read_runs(data: bytes) -> tuple[list[list[tuple[int, int]]], bytes]:
    """Return the runs of each record, as first slot and slots, and what follows them, by "Runs of slots" alone."""
    run_count = int.from_bytes(data[:2], "little")
    tokens, words = data[2 : 2 + run_count], data[2 + run_count :]
    gaps, counts = [token // 4 % 32 for token in tokens], [token % 4 for token in tokens]
    for values, longest in ((gaps, 31), (counts, 3)):
        for place, value in enumerate(values):
            if value == longest:
                values[place], words = value + int.from_bytes(words[:2], "little"), words[2:]
    records, end = [[]], 0
    for token, gap, count in zip(tokens, gaps, counts, strict=True):
        records[-1].append((end + gap, count + 1))
        end += gap + count + 1
        if token >= 128:
            records, end = [*records, []], 0
    return records[:-1], words


def test_a_reader_made_of_the_document_finds_the_sources_of_a_delta_and_the_slots_of_a_cut_record():
    data = (dump.GOLDEN / "pack" / "delta-record.bin").read_bytes()
    payload = SAMPLES["pack"]["delta-record"][1].records[0][1]
    assert payload in data
    assert payload[:32] == b"\xa1" * 16 + b"\xa2" * 16
    runs, encoded = read_runs(payload[32:])
    assert runs == [[(2, 2), (64, 10), (75, 3)], [(31, 67)]]
    assert zstandard.decompress(encoded) == bytes(5) + bytes(range(256)) * 16
    payload = SAMPLES["pack"]["cut-record"][1].records[0][1]
    runs, rest = read_runs(payload)
    assert runs == [[(0, 1), (3, 1)]]
    assert rest[:32] == b"\xd1" * 16 + b"\xd2" * 16


def test_a_reader_made_of_the_document_finds_tables_and_planes_of_parity_from_both_ends():
    data = (dump.GOLDEN / "parity" / "two-stripes.bin").read_bytes()
    twin_bytes = read_fields("Parity trailer", data, len(data) - 16)["twin_bytes"]
    assert data[:twin_bytes] == data[-16 - twin_bytes : -16]
    head = read_fields("Parity head", data)
    content = SAMPLES["parity"]["two-stripes"][1]
    sizes = [read_fields("Parity pack", data, 88 + 40 * number)["pack_bytes"] for number in range(2)]
    assert sizes == content.tables.pack_bytes.tolist()
    shards = sum(-(-size // head["shard_bytes"]) for size in sizes)
    assert twin_bytes == 88 + 40 * 2 + 16 * (shards + head["stripe_count"] * head["parity_columns"])
    assert data[twin_bytes : -16 - twin_bytes] == content.planes


# -- JSON, columns, codecs, limits -------------------------------------------------------------------------------------


def tell_type(annotation: Any) -> str:
    """Return a field's type in the words of the document."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [each for each in get_args(annotation) if each is not msgspec.UnsetType]
        return " or ".join("null" if each is type(None) else tell_type(each) for each in kinds)
    if get_origin(annotation) is Annotated:
        base, meta = get_args(annotation)
        if base is str and meta.pattern is not None:
            return "hex" + re.search(r"\{(\d+)\}", meta.pattern)[1]
        return "size" if (meta.ge, meta.le) == (0, MAX_IMAGE_BYTES) else tell_type(base)
    if annotation is Extent:
        return "list of size"
    if get_origin(annotation) is Literal:
        return "text"
    if get_origin(annotation) is tuple:
        return f"list of {tell_type(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return "object"
    names = {str: "text", int: "integer", float: "number", bool: "boolean"}
    return names[annotation]


@pytest.mark.parametrize(("title", "place", "document"), DOCUMENTS)
def test_a_table_of_json_fields_is_the_struct_in_the_code(title, place, document):
    rows = [rows for rows in tables(title) if list(rows[0]) == FIELD_COLUMNS][place]
    hints = get_type_hints(document, include_extras=True)
    expected = [
        (field.name, tell_type(hints[field.name]), "yes" if field.required else "no")
        for field in msgspec.structs.fields(document)
    ]
    assert [(row["field"], row["type"], row["required"]) for row in rows] == expected


def test_the_columns_of_a_map_are_in_the_order_of_the_document():
    rows = table("Map columns", ["column", "type", "length", "meaning", "a reader must refuse"])
    codes = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}
    values = {"slots": [4, 300], "gap": [1, 2, 3], "count": [4, 5, 6], "kind": [2, 0, 2], "step": [0, 2**32 - 4]}
    assert [row["column"] for row in rows] == list(values)
    packed = zstandard.compress(forge.pack_planes(*((codes[row["type"]], values[row["column"]]) for row in rows)))
    runs = list(zip(values["gap"], values["count"], values["kind"], strict=True))
    data = forge.forge_map(runs, values["step"], values["slots"], packed=packed)
    found = map_format.parse_map(data, "maps/x")
    assert found.record_slots.tolist() == [4, 300]
    assert found.runs.tolist() == [(1, 4, 2), (7, 5, 0), (15, 6, 2)]


def test_the_table_of_encodings_is_that_of_the_codecs():
    rows = table("Record header", ["encoding", "name", "the content is"])
    codecs: list[type] = [NoneCodec, ZstdCodec, DeltaimgCodec]
    deltas: list[type] = [ZstdDelta, XdeltaDelta, DeltaimgDelta]
    names = {codec.encoding_id: f"{codec.name} delta" for codec in deltas} | {c.encoding_id: c.name for c in codecs}
    assert {int(row["encoding"]): row["name"] for row in rows} == names


@pytest.mark.parametrize("row", tables("Limits")[0], ids=lambda row: row["limit"])
def test_a_limit_is_that_of_the_code(row):
    module, name = row["in the code"].strip("`").split(".")
    package = "deltaimg.format." if module == "limits" else "deltaimg."
    assert number(row["value"]) == getattr(importlib.import_module(package + module), name)


def test_every_limit_of_the_code_is_in_the_document():
    limits = importlib.import_module("deltaimg.format.limits")
    listed = {row["in the code"].strip("`").split(".")[1] for row in tables("Limits")[0]}
    own = {name for name in vars(limits) if name.startswith(("MAX_", "MIN_"))}
    assert own - listed == {"MIN_BLOCK_SHIFT", "MAX_BLOCK_SHIFT"}  # which "Record header" has


def test_every_limit_of_the_document_is_used_somewhere():
    """A reader that no longer refuses something must not be said to."""
    package = Path(importlib.import_module("deltaimg").__file__ or "").parent
    words = Counter(word for path in package.rglob("*.py") for word in re.findall(r"\w+", path.read_text()))
    names = [row["in the code"].strip("`").split(".")[1] for row in tables("Limits")[0]]
    assert not [name for name in names if words[name] < 2]


def test_the_version_history_ends_with_the_present_version():
    assert int(tables("Version history")[0][-1]["version"]) == VERSION


# -- keys and digests --------------------------------------------------------------------------------------------------


def document_keys(digest_key: bytes) -> dict[str, bytes]:
    rows = table("Keys, digests and ids", ["key", "context"])
    return {row["key"]: blake3(digest_key, derive_key_context=row["context"].strip("`")).digest() for row in rows}


def test_the_keys_are_derived_as_the_document_says():
    keys = Keys.derive(bytes(range(32)))
    assert document_keys(bytes(range(32))) == {"block": keys.block, "record": keys.record, "root": keys.root}


def test_block_digests_record_ids_and_root_digests_are_those_of_the_document():
    keys = document_keys(bytes(32))
    blocks = [bytes([seed]) * 4096 for seed in (1, 2, 3)]
    digests = [blake3(block, key=keys["block"]).digest()[:16] for block in blocks]
    assert digest_blocks(keys["block"], b"".join(blocks), 4096).tobytes() == b"".join(digests)
    assert not digest_blocks(keys["block"], bytes(4096), 4096).any()
    record_id = blake3(b"".join(digests), key=keys["record"]).digest()[:16]
    assert digest_buffer(b"".join(digests), keys["record"], 16) == record_id

    # Blocks 0 and 1 are data, 2 zero, 3 a hole, 4 data again, by three runs: two stretches.
    runs = np.array([(0, 1, 3), (1, 1, 2), (2, 1, 1), (3, 1, 0), (4, 1, 4)], RUN)
    table_of_digests = np.zeros((5, 16), np.uint8)
    table_of_digests[2:] = np.frombuffer(b"".join(digests), np.uint8).reshape(3, 16)
    message = digests[1] + digests[0] + digests[2] + struct.pack("<4Q", 0, 2, 4, 1) + struct.pack("<3Q", 2, 20000, 4096)
    found = root_digest(keys["root"], runs, table_of_digests, size_bytes=20000, block_bytes=4096)
    assert found == blake3(message, key=keys["root"]).digest()[:16]


# -- dumps and links ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [dump.signature_dump, dump.pack_dump], ids=lambda made: made.__name__)
def test_a_dump_shows_the_golden_object(made):
    assert made() in section("A dump, annotated")


def test_every_file_that_the_document_names_exists():
    names = re.findall(r"`((?:deltaimg|tests|docs)/[\w./-]+)`", read_document())
    names += [f"docs/{link}" for link in re.findall(r"\]\(([\w./-]+)\)", read_document())]
    assert len(names) > 4
    for name in names:
        assert (dump.GOLDEN.parents[2] / name).exists(), name
