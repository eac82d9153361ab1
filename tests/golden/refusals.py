# SPDX-License-Identifier: Apache-2.0
"""One object for each reason a parser has to refuse: what the bad golden files hold, and what must be said of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zstandard

from deltaimg.format.framing import HEADER_BYTES, Kind
from deltaimg.format.pack import TRAILER
from deltaimg.format.record import RECORD_HEADER_BYTES
from tests.golden import forge
from tests.golden.kinds import KINDS
from tests.golden.samples import SAMPLES
from tests.support.flips import flip


@dataclass(frozen=True, slots=True)
class Refusal:
    """An object and why it is refused: the class of the error, and a part of its message."""

    kind: str
    reason: str
    data: bytes
    error: str
    message: str

    @property
    def object_name(self) -> str:
        return next(iter(SAMPLES[self.kind].values()))[0]


def sample(kind: str) -> bytes:
    """Return the first good object of a kind."""
    return KINDS[kind].build(next(iter(SAMPLES[kind].values()))[1])


def frame_refusals() -> Iterator[Refusal]:
    """Yield what every kind refuses of its frame; the checks are the same code, so one file each is kept of most."""
    for kind in KINDS:
        data = sample(kind)
        other = Kind.LOCK if kind == "config" else Kind.CONFIG
        yield Refusal(kind, "empty", b"", "Truncated", "64 bytes needed, 0 found")
        yield Refusal(kind, "ends-in-the-header", data[:63], "Truncated", "64 bytes needed, 63 found")
        yield Refusal(kind, "ends-after-the-header", data[:HEADER_BYTES], "Truncated", "64 found")
        yield Refusal(kind, "ends-a-byte-early", data[:-1], "Truncated", f"{len(data) - 1} found")
        yield Refusal(kind, "is-another-kind", forge.forge_from(data, magic=other.value), "Malformed", f"is no {kind}")
        yield Refusal(kind, "a-byte-follows", data + b"\0", "Malformed", "follow its end")
    data = sample("signature")
    for reason, header, error, message in (
        ("version-0", {"version": 0}, "UnsupportedFormat", "format version 0"),
        ("version-2", {"version": 2}, "UnsupportedFormat", "format version 2"),
        ("by-a-host-and-not-sealed", {"incompatible": 2}, "UnsupportedFormat", "0x0002"),
        ("padded-and-not-sealed", {"incompatible": 4}, "UnsupportedFormat", "0x0004"),
        ("incompatible-feature", {"incompatible": 0x8000}, "UnsupportedFormat", "0x8000"),
        ("reserved-in-use", {"reserved": 1}, "Malformed", "reserved bytes of the header"),
        ("body-beyond-4-gib", {"body_bytes": 2**32}, "Malformed", "claims a body of 4294967296 bytes"),
        ("body-longer-than-the-object", {"body_bytes": 2**32 - 1}, "Truncated", "4294967359 bytes needed"),
    ):
        yield Refusal("signature", reason, forge.forge_from(data, **header), error, message)
    yield Refusal("signature", "header-damaged", flip(data, 30), "Malformed", "the header is damaged")
    yield Refusal("signature", "header-checksum-damaged", flip(data, 63), "Malformed", "the header is damaged")
    yield Refusal("signature", "body-damaged", flip(data, len(data) - 1), "DigestMismatch", "its body is damaged")


def document_refusals() -> Iterator[Refusal]:
    """Yield JSON that is none, or not of the right types or ranges."""
    for kind, reason, body in (
        ("config", "no-json", b"{"),
        ("config", "a-list", b"[]"),
        ("config", "not-utf-8", b'{"repository_id":"\xff"}'),
        ("config", "a-second-document", forge.body_of(sample("config")) + b"{}"),
    ):
        yield Refusal(kind, reason, forge.forge_object(KINDS[kind].kind, body), "Malformed", f"not a {kind}")
    for kind, changes in (
        ("config", {"repository_id": "00" * 15, "digest_key": "0F" * 32, "created": 5, "software": None, "family": "0F" * 16}),
        ("lock", {"pid": 0, "process_start": -1, "token": 1, "host": None, "renewals": -1}),
        ("key_slot", {"id": "00", "type": "pin", "salt": "00" * 31, "wrapped": "00" * 79, "memory_kib": 2**20 + 1,
                      "iterations": 65, "lanes": 17}),
        ("deletion", {"id": "00", "packs": ["11" * 31], "maps": None}),
        ("deletion_locks", {"id": "00", "waits_for": "nobody"}),
        (
            "manifest",
            {
                "id": "aa", "base": "00000000000000AA", "base_time": 5, "maps": ["ab" * 32 + "\n"], "root_digest": "cd" * 32,
                "size_bytes": 2**60 + 1, "block_bytes": 4096.5, "statistics": {}, "started": 5, "ended": None, "tags": "weekly",
                "comment": None, "is_live": "yes", "container": None, "unreadable": [[1, -2]],
                "freeze": {"method": 1}, "tracking": {"method": "hints", "audited_blocks": -1},
                "free_space": {"reason": "x" * 2001}, "group": {"name": "web1", "members": []},
            },
        ),
        ("roster", {"repository_id": "00", "number": 0, "time": 5, "snapshots": ["aa"], "unsettled": None, "newest_time": 5,
                    "trail": ["00"] * 65, "written": ["00" * 23], "removed": ["AA" * 8], "host": None}),
        ("annotation", {"snapshot": "aa", "number": 0, "time": 5, "pinned": False, "tags": "weekly", "comment": None}),
    ):  # fmt: skip
        for field, value in changes.items():
            yield _with_fields(kind, f"{field.replace('_', '-')}-wrong", {field: value}, f"$.{field}")
        required = next(iter(changes))
        yield _with_fields(kind, f"{required.replace('_', '-')}-missing", {required: ...}, "missing required field")
    for reason, change, message in (
        ("of-another-id", {"id": "00000000000000de"}, "it belongs at keys/00000000000000de"),
        ("of-no-cost", {"memory_kib": 0, "iterations": 0, "lanes": 0}, "not those of its type"),
        ("of-cost-with-a-key-file", {"type": "keyfile"}, "not those of its type"),
        ("of-a-host-with-the-secret", {"type": "writeonly", "memory_kib": 0}, "not the length of its type"),
        ("of-absurd-cost", {"memory_kib": 2**20, "iterations": 9}, "argon2id are absurd"),
        ("of-too-many-lanes", {"memory_kib": 64, "lanes": 9}, "argon2id are absurd"),
    ):
        yield _with_fields("key_slot", reason, change, message)
    for reason, change in (("key-and-encryption", {"encryption": "aes-256-gcm"}), ("no-key", {"digest_key": ...})):
        yield _with_fields("config", reason, change, "has a digest key and is encrypted, or neither")
    yield _with_fields("config", "padding-alone", {"padding": "padme"}, "it has padding and is not encrypted")
    for reason, change, message in (
        ("of-another-image", {"image": "vm2"}, "it belongs at snapshots/vm2/"),
        ("of-another-time", {"time": "20261123T020304.000006Z"}, "it belongs at snapshots/vm1/"),
        ("started-at-no-time", {"started": "20261399T020304.000006Z"}, "its started is not a time"),
        ("ended-at-no-time", {"ended": "20261123T020304Z"}, "its ended is not a time"),
        ("base-time-no-time", {"base": "00000000000000bb", "base_time": "yesterday"}, "its base_time is not a time"),
        ("base-without-time", {"base": "00000000000000bb"}, "only one of base and base_time is there"),
        (
            "unreadable-past-the-end",
            {"unreadable": [[0, 512], [40960, 40962]]},
            "its unreadable extents are not ascending",
        ),
        ("unreadable-overlapping", {"unreadable": [[0, 512], [511, 1024]]}, "its unreadable extents are not ascending"),
        ("unreadable-empty", {"unreadable": [[512, 512]]}, "its unreadable extents are not ascending"),
        ("unreadable-too-many", {"unreadable": [[n * 2, n * 2 + 1] for n in range(4097)]}, "$.unreadable"),
        (
            "group-of-another-prefix",
            {"group": {"name": "web1", "members": ["vm1"]}},
            "whose name does not begin with web1.",
        ),
        ("group-without-this-image", {"group": {"name": "vm1", "members": ["vm1.disk0"]}}, "or not this image"),
        ("group-with-a-bad-name", {"group": {"name": "-", "members": ["-.disk0"]}}, "a name that is not valid"),
        ("unreadable-of-three", {"unreadable": [[1, 2, 3]]}, "at most length 2"),
        ("no-maps", {"maps": []}, "$.maps"),
        ("too-many-maps", {"maps": [f"{number:064x}" for number in range(65)]}, "$.maps"),
        ("of-a-map-twice", {"maps": ["ab" * 32] * 2}, "lists a map twice"),
        ("of-many-tags", {"tags": ["a"] * 65}, "length <= 64"),
        ("of-a-long-tag", {"tags": ["a" * 101]}, "length <= 100"),
        ("of-a-long-comment", {"comment": "a" * 501}, "length <= 500"),
        ("of-text-that-is-not-printable", {"source": "/dev/\x1b[2Jvg0"}, "not printable"),
        ("of-another-id", {"id": "00000000000000ab"}, "it belongs at snapshots/vm1/"),
        ("image-name-climbs", {"image": "../vm1"}, "its image name begins with a dot"),
        ("block-size-odd", {"block_bytes": 12288}, "its block size is 12288 bytes"),
        ("block-size-small", {"block_bytes": 2048}, "its block size is 2048 bytes"),
        ("block-size-huge", {"block_bytes": 2**21}, "its block size is 2097152 bytes"),
    ):
        yield _with_fields("manifest", reason, change, message)
    for kind in ("deletion", "deletion_locks"):
        yield _with_fields(
            kind, "of-another-id", {"id": "00000000000000dd"}, "it belongs at deletions/00000000000000dd"
        )
    for reason, change, message in (
        ("of-another-image", {"image": "vm2"}, "it belongs at annotations/vm2/"),
        (
            "of-another-snapshot",
            {"snapshot": "00000000000000ab"},
            "it belongs at annotations/vm1/00000000000000ab-00000001",
        ),
        ("of-another-number", {"number": 2}, "it belongs at annotations/vm1/00000000000000aa-00000002"),
        ("image-name-climbs", {"image": "../vm1"}, "its image name begins with a dot"),
        ("at-no-time", {"time": "20261399T020304.000006Z"}, "its time is not a time"),
    ):
        yield _with_fields("annotation", reason, change, message)


def roster_refusals() -> Iterator[Refusal]:
    """Yield rosters that are not where they belong, or contradict themselves."""
    for reason, change, message in (
        ("of-another-image", {"image": "vm2"}, "it belongs at rosters/vm2/00000007"),
        ("of-another-number", {"number": 8}, "it belongs at rosters/vm1/00000008"),
        ("image-name-climbs", {"image": "../vm1"}, "its image name begins with a dot"),
        ("at-no-time", {"time": "20261399T020304.000006Z"}, "its time is not a time"),
        ("newest-at-no-time", {"newest_time": "now"}, "its newest_time is not a time"),
        ("a-snapshot-twice", {"unsettled": ["00000000000000aa"]}, "it lists a snapshot twice"),
        ("a-digest-of-another-snapshot", {"written": ["00000000000000ff" + "00" * 16]}, "it does not list"),
        ("a-long-trail", {"trail": ["00" * 16] * 65}, "not a roster"),
    ):
        yield _with_fields("roster", reason, change, message)


def _with_fields(kind: str, reason: str, changes: dict[str, Any], message: str) -> Refusal:
    document = json.loads(forge.body_of(sample(kind))) | changes
    document = {field: value for field, value in document.items() if value is not ...}
    data = forge.forge_object(KINDS[kind].kind, json.dumps(document).encode())
    return Refusal(kind, reason, data, "Malformed", message)


def index_refusals() -> Iterator[Refusal]:
    """Yield indexes with counts, references and lengths that cannot be."""
    make = forge.forge_index
    for reason, data, error, message in (
        ("reserved-in-use", make(zero=1), "Malformed", "reserved bytes"),
        ("more-packs-than-bytes", make(pack_count=2**32 - 1), "Truncated", "bytes needed"),
        ("more-signatures-than-bytes", make(signature_count=2**32 - 1), "Truncated", "bytes needed"),
        ("more-entries-than-bytes", make(entry_count=2**32 - 1), "Truncated", "bytes needed"),
        ("fewer-packs-than-bytes", make(packs=2, pack_count=1), "Malformed", "32 bytes that nothing claims"),
        ("bytes-nothing-claims", make(extra=b"\0"), "Malformed", "1 bytes that nothing claims"),
        ("unlisted-pack", make(entries=[{"pack": 1}]), "Malformed", "not listed"),
        ("unlisted-signature", make(entries=[{}, {"signature": 1}]), "Malformed", "not listed"),
        ("no-packs-at-all", make(packs=0, entries=[{}]), "Malformed", "not listed"),
        ("record-in-the-header", make(entries=[{"offset": 63}]), "Malformed", "in the header of its pack"),
        ("record-without-slots", make(entries=[{"slots": 0}]), "Malformed", "no slots"),
        ("block-too-small", make(entries=[{"block_shift": 11}]), "Malformed", "absurd block size"),
        ("block-too-large", make(entries=[{"block_shift": 21}]), "Malformed", "absurd block size"),
        ("block-shift-of-255", make(entries=[{"block_shift": 255}]), "Malformed", "absurd block size"),
        ("record-too-large", make(entries=[{"slots": 4097}]), "Malformed", "larger than 16777216 bytes"),
        ("payload-too-long", make(entries=[{"payload_bytes": 4158}]), "Malformed", "longer than its content"),
        ("cut-entry-unlisted", _cut_index([2], [1], [(0, 1)]), "Malformed", "out of order or are not listed"),
        ("cut-entry-twice", _cut_index([1, 1], [1, 1], [(0, 1)] * 2), "Malformed", "out of order or are not listed"),
        ("cut-without-runs", _cut_index([1], [0], []), "Malformed", "no runs of slots"),
        ("cut-runs-unclaimed", _cut_index([1], [1], [(0, 1), (2, 1)]), "Malformed", "not as many as it says"),
        ("cut-runs-touch", _cut_index([1], [2], [(0, 1), (1, 1)]), "Malformed", "overlap or are out of order"),
        ("cut-run-outside", _cut_index([1], [1], [(7, 2)]), "Malformed", "slots outside it, or all of them"),
        ("cut-has-all-slots", _cut_index([1], [1], [(0, 8)]), "Malformed", "slots outside it, or all of them"),
    ):
        yield Refusal("index", reason, data, error, message)


def _cut_index(entries: list[int], run_counts: list[int], runs: list[tuple[int, int]]) -> bytes:
    """Return an index of two records of 8 blocks whose cut records are these."""
    columns = (
        ("H", [0, 0]), ("I", entries), ("H", run_counts), ("H", [run[0] for run in runs]), ("H", [run[1] for run in runs]),
    )  # fmt: skip
    planes = forge.pack_planes(*columns)
    packed = forge.pad(zstandard.compress(planes), len(planes))
    rows = [{"slots": 8, "payload_bytes": 9}, {"slots": 8, "payload_bytes": 9, "offset": 200}]
    head = {"cut_count": len(entries), "cut_run_count": len(runs), "packed_bytes": len(packed)}
    return forge.forge_index(entries=rows, extra=packed, **head)


def signature_refusals() -> Iterator[Refusal]:
    """Yield signatures whose counts disagree."""
    make = forge.forge_signature
    for reason, data, error, message in (
        ("zero-in-use", make(zero=1), "Malformed", "reserved bytes are not zero"),
        ("more-records-than-bytes", make(record_count=2**32 - 1), "Truncated", "bytes needed"),
        ("more-slots-than-records", make(slot_count=2**32 - 1), "Malformed", "have 1 slots, not 4294967295"),
        ("fewer-digests-than-slots", make([2], digests=1), "Truncated", "bytes needed"),
        ("bytes-nothing-claims", make(extra=b"\0" * 16), "Malformed", "16 bytes that nothing claims"),
        ("record-without-slots", make([1, 0]), "Malformed", "no slots, or more than 4096"),
        ("record-too-large", make([4097]), "Malformed", "no slots, or more than 4096"),
    ):
        yield Refusal("signature", reason, data, error, message)


def verified_refusals() -> Iterator[Refusal]:
    """Yield `verified` objects whose packs are no list of packs, and times that are none."""
    low, high = bytes(32) + bytes(8), b"\1" * 32 + bytes(8)
    late = bytes(32) + (2**53 + 1).to_bytes(8, "little")
    for reason, counts, entries, error, message in (
        ("reserved-in-use", (0, 1), b"", "Malformed", "reserved bytes are not zero"),
        ("more-packs-than-bytes", (2**32 - 1, 0), low, "Truncated", "bytes needed"),
        ("bytes-nothing-claims", (1, 0), low + high, "Malformed", "40 bytes that nothing claims"),
        ("packs-out-of-order", (2, 0), high + low, "Malformed", "out of order"),
        ("a-pack-twice", (2, 0), low + low, "Malformed", "out of order"),
        ("time-beyond-any-clock", (1, 0), late, "Malformed", "beyond any clock"),
    ):
        body = struct.pack("<II", *counts) + entries
        yield Refusal("verified", reason, forge.forge_object(Kind.VERIFIED, body), error, message)


def map_refusals() -> Iterator[Refusal]:
    """Yield maps whose runs leave the image or the records, and columns that are not what their head says."""
    make = forge.forge_map
    runs = [(0, 1, 0), (0, 1, 2)]
    planes = zstandard.compress(forge.pack_planes(("H", [1]), ("Q", [0, 0]), ("I", [1, 1]), ("B", [0, 2]), ("I", [0])))
    regular = [(0, 1, number % 2) for number in range(2000)]
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(32))
    bomb = zstandard.compress(bytes(13 * 2**20))
    for reason, data, error, message in (
        ("image-too-large", make(block_count=2**48 + 1), "Malformed", "counts are absurd"),
        ("more-runs-than-blocks", make(runs, [0], [1], block_count=1), "Malformed", "counts are absurd"),
        ("too-many-runs", make(block_count=2**48, run_count=2**28 + 1), "Malformed", "counts are absurd"),
        ("more-data-runs-than-runs", make(runs, [0, 0, 0], [1]), "Malformed", "counts are absurd"),
        ("more-records-than-bytes", make(record_count=2**32 - 1), "Truncated", "bytes needed"),
        ("columns-longer-than-the-object", make(runs, [0], [1], packed_bytes=2**32 - 1), "Truncated", "bytes needed"),
        ("bytes-nothing-claims", make(runs, [0], [1], extra=b"\0"), "Malformed", "1 bytes that nothing claims"),
        ("columns-empty", make(runs, [0], [1], packed=b""), "Malformed", "columns cannot be expanded"),
        ("columns-no-zstd", make(runs, [0], [1], packed=b"no zstd frame"), "Malformed", "columns cannot be expanded"),
        ("columns-cut-short", make(runs, [0], [1], packed=planes[:-1]), "Malformed", "fewer bytes than they say"),
        ("columns-only-zeros", make(runs, [0], [1], packed=bytes(32)), "Malformed", "columns cannot be expanded"),
        ("columns-of-two-frames", make(runs, [0], [1], packed=planes * 2), "Malformed", "more bytes than they say"),
        ("columns-before-a-zero", make(runs, [0], [1], packed=planes + b"\0"), "Malformed", "cannot be expanded"),
        ("columns-expand-too-far", make(regular, is_padded=False), "Malformed", "too few to expand to 26000"),
        ("columns-of-no-size", make(runs, [0], [1], packed=unsized), "Malformed", "do not expand to 32 bytes"),
        ("columns-a-bomb", make(runs, [0], [1], packed=bomb), "Malformed", "do not expand to 32 bytes"),
        (
            "columns-a-hollow-frame",
            make(block_count=2**28, run_count=2**28, packed=_claim_size(13 * 2**28)),
            "Malformed",
            "too few to expand to 3489660928",
        ),
        ("record-without-slots", make(runs, [0], [1, 0]), "Malformed", "no slots, or more than 4096"),
        ("record-too-large", make(runs, [0], [4097]), "Malformed", "no slots, or more than 4096"),
        ("run-empty", make([(0, 0, 1)], block_count=9), "Malformed", "a run is empty"),
        ("run-begins-past-the-end", make([(10, 1, 1)], block_count=9), "Malformed", "past the end of the image"),
        ("runs-pass-the-end", make([(8, 1, 1), (0, 1, 0)], block_count=9), "Malformed", "pass the end of the image"),
        ("gap-wraps", make([(1, 8, 0), (2**64 - 9, 1, 1)], block_count=9), "Malformed", "past the end of the image"),
        ("unknown-kind", make([(0, 1, 3)]), "Malformed", "unknown kind 3"),
        ("slots-missing", make(runs, [], [1]), "Malformed", "1 data runs, but 0 slots for them"),
        ("slots-too-many", make([(0, 1, 0)], [0], [1]), "Malformed", "0 data runs, but 1 slots for them"),
        ("slot-past-the-records", make(runs, [1], [1]), "Malformed", "slots that its records do not have"),
        ("run-past-the-records", make([(0, 2, 2)], [0], [1]), "Malformed", "slots that its records do not have"),
        ("slot-of-a-hole", make(runs, [2**32 - 2], [4]), "Malformed", "slots that its records do not have"),
        ("data-without-records", make(runs, [0]), "Malformed", "slots that its records do not have"),
    ):
        yield Refusal("map", reason, data, error, message)


def _claim_size(size_bytes: int) -> bytes:
    """Return a zstd frame that promises so many bytes and holds none."""
    return b"\x28\xb5\x2f\xfd\xe0" + size_bytes.to_bytes(8, "little") + b"\1\0\0"


def pack_refusals() -> Iterator[Refusal]:
    """Yield packs whose footers or records lie."""
    pack, record, footer = forge.forge_pack, forge.forge_record, forge.forge_footer
    one, entry = record(), {"offset": 64, "payload_bytes": 7}
    size = RECORD_HEADER_BYTES + 7
    wrong_end = TRAILER.pack(1, 0, b"\x8bDIMGEMD")
    for reason, data, error, message in (
        ("no-trailer", forge.forge_object(Kind.PACK, b""), "Truncated", "80 bytes needed, 64 found"),
        ("trailer-of-another-magic", pack(one, footer(entry), wrong_end), "Malformed", "trailer is damaged"),
        ("trailer-reserved-in-use", pack(one, footer(entry), TRAILER.pack(1, 1, b"\x8bDIMGEND")), "Malformed", "trailer is"),
        ("footer-before-the-records", pack(b"", b"", TRAILER.pack(1, 0, b"\x8bDIMGEND")), "Malformed", "trailer is damaged"),
        ("footer-damaged", pack(one, footer(entry), body_digest=bytes(16)), "DigestMismatch", "its footer is damaged"),
        ("footer-names-the-header", pack(one, footer(entry | {"offset": 63})), "Malformed", "records outside it"),
        ("footer-names-itself", pack(one, footer(entry | {"payload_bytes": 8})), "Malformed", "records outside it"),
        ("footer-offset-wraps", pack(one, footer(entry | {"offset": 2**32 - 1})), "Malformed", "records outside it"),
        ("footer-records-overlap", pack(one + one, footer(entry, {"offset": 64 + size - 1})), "Malformed", "overlap"),
        (
            "footer-out-of-order",
            pack(one + one, footer(entry | {"offset": 64 + size}, entry)),
            "Malformed",
            "overlap or are out of order",
        ),
        ("footer-reserved-in-use", pack(one, footer(entry | {"reserved": 1})), "Malformed", "reserved bytes"),
        ("footer-record-without-slots", pack(one, footer(entry | {"slots": 0})), "Malformed", "no slots"),
        ("footer-block-too-small", pack(one, footer(entry | {"block_shift": 11})), "Malformed", "absurd block size"),
        ("footer-record-too-large", pack(one, footer(entry | {"slots": 4097})), "Malformed", "larger than 16777216"),
        ("footer-payload-too-long", pack(record(bytes(5000)), footer({"offset": 64, "payload_bytes": 5000})),
         "Malformed", "longer than its content"),
        ("record-header-damaged", pack(flip(one, 20), footer(entry)), "Malformed", "a record header is damaged"),
        ("record-payload-damaged", pack(flip(one, size - 1), footer(entry)), "DigestMismatch", "the record here is damaged"),
        ("record-padded-and-not-sealed", pack(record(flags=1), footer(entry)), "UnsupportedFormat", "has a cipher or features"),
        ("record-sealed-otherwise", pack(record(sealed=3), footer(entry)), "UnsupportedFormat", "has a cipher or features"),
        ("record-sealed-too-short", pack(record(sealed=1), footer(entry)), "Malformed", "shorter than a seal"),
        ("record-sealed-by-a-host-too-short", pack(record(bytes(59), sealed=2), footer(entry)), "Malformed",
         "shorter than a seal"),
        ("record-flags-in-use", pack(record(flags=2), footer(entry)), "UnsupportedFormat", "has a cipher or features"),
        ("record-of-too-many-sources", pack(record(sources=4097), footer(entry)), "Malformed", "more than 4096 source"),
        ("record-header-longer", pack(record(header_bytes=80), footer(entry)), "UnsupportedFormat", "features unknown"),
        ("record-reserved-in-use", pack(record(reserved=1), footer(entry)), "Malformed", "absurd lengths"),
        ("record-all-slots-absent", pack(record(absent=1), footer(entry)), "Malformed", "absurd lengths"),
        ("footer-all-slots-absent", pack(one, footer(entry | {"absent": 1})), "Malformed", "without slots that are there"),
        ("record-of-no-slots", pack(record(slots=0), footer(entry)), "Malformed", "absurd lengths"),
        ("record-too-large", pack(record(slots=4097), footer(entry)), "Malformed", "absurd lengths"),
        ("record-block-too-large", pack(record(block_shift=21), footer(entry)), "Malformed", "absurd lengths"),
        ("record-payload-too-long", pack(record(bytes(4097)), b""), "Malformed", "payload is longer than its content"),
        ("record-past-the-end", pack(record(payload_bytes=4096), footer(entry)), "Truncated", "4160 bytes needed"),
    ):  # fmt: skip
        yield Refusal("pack", reason, data, error, message)


def parity_refusals() -> Iterator[Refusal]:
    """Yield parity objects whose counts cannot be, or parts of which are damaged."""
    make = forge.forge_parity
    good = sample("parity")
    planes_at, end = len(good) - len(good) // 2, len(good)
    for reason, data, error, message in (
        ("reserved-in-use", make(zero=1), "Malformed", "reserved bytes in use"),
        ("shard-too-small", make(shard_bytes=2048), "Malformed", "absurd size of shards"),
        ("shard-too-large", make(shard_bytes=2**21), "Malformed", "absurd size of shards"),
        ("shard-odd", make(shard_bytes=12288), "Malformed", "absurd size of shards"),
        ("no-packs", make(sizes=()), "Malformed", "counts are absurd"),
        ("no-stripes", make(stripe_count=0), "Malformed", "counts are absurd"),
        ("no-parity", make(parity_columns=0), "Malformed", "counts are absurd"),
        ("too-many-columns", make(data_columns=256), "Malformed", "counts are absurd"),
        ("more-packs-than-bytes", make(pack_count=2**32 - 1), "Malformed", "another length than its counts"),
        ("more-stripes-than-bytes", make(stripe_count=2**32 - 1), "Malformed", "another length than its counts"),
        ("fewer-digests-than-shards", make(digests=2), "Truncated", "bytes needed"),
        ("bytes-nothing-claims", make(extra=bytes(16)), "Malformed", "16 bytes that nothing claims"),
        ("more-shards-than-places", make(data_columns=1, digests=3), "Malformed", "2 shards, for 1 columns of 1"),
        ("column-without-shards", make(data_columns=3, digests=4), "Malformed", "2 shards, for 3 columns of 1"),
        ("pack-empty", make(sizes=(64,)), "Malformed", "a pack of an absurd size"),
        ("pack-huge", make(sizes=(2**28 + 1,), data_columns=1, digests=2), "Malformed", "a pack of an absurd size"),
        ("pack-twice", make(sizes=(100, 100), names=(1, 1)), "Malformed", "names a pack twice"),
        ("table-damaged", flip(good, 100), "DigestMismatch", "its table is damaged"),
        ("shard-damaged", flip(good, planes_at), "DigestMismatch", "the shard here is damaged"),
        ("twin-damaged", flip(good, end - 20), "Malformed", "and their twin differ"),
        ("trailer-damaged", flip(good, end - 1), "Malformed", "its trailer is damaged"),
        ("trailer-reserved-in-use", flip(good, end - 12), "Malformed", "its trailer is damaged"),
    ):
        yield Refusal("parity", reason, data, error, message)


def all_refusals() -> list[Refusal]:
    """Return every refusal, in a fixed order."""
    families = (
        frame_refusals, document_refusals, index_refusals, signature_refusals, verified_refusals, map_refusals, pack_refusals,
        parity_refusals, roster_refusals,
    )  # fmt: skip
    return [refusal for family in families for refusal in family()]
