# SPDX-License-Identifier: Apache-2.0
"""Legal content of every kind, arbitrary within what the format allows; and ways to damage bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st
from msgspec.structs import replace

from deltaimg.arrays import RUN
from deltaimg.format.annotation import Annotation
from deltaimg.format.config import Config
from deltaimg.format.cut_entries import CutEntries
from deltaimg.format.deletion import Deletion, DeletionLocks
from deltaimg.format.framing import digest_bytes
from deltaimg.format.index import ENTRY, IndexObject, no_links
from deltaimg.format.key_slot import KEY_FILE, PASSPHRASE, WRAPPED_BYTES, WRITE_ONLY, KeySlot
from deltaimg.format.limits import (
    MAX_ARGON2_ITERATIONS,
    MAX_ARGON2_LANES,
    MAX_ARGON2_WORK_KIB,
    MAX_BLOCKS,
)
from deltaimg.format.lock import Lock
from deltaimg.format.manifest import (
    FreeSpaceSkipped,
    Group,
    Manifest,
    Statistics,
    Tracking,
    find_name_problem,
    format_time,
)
from deltaimg.format.map import MapObject
from deltaimg.format.parity import ParityTables, digest_shards
from deltaimg.format.record import RecordHeader
from deltaimg.format.roster import Roster
from deltaimg.format.signature import SignatureObject
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.format.verified import VerifiedObject
from tests.golden.kinds import PackContent, ParityObject

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
EDGES = st.sampled_from(
    [0, 1, 2, 63, 64, 2**12, 2**16 - 1, 2**16, 2**28, 2**31, 2**32 - 1, 2**32, 2**48, 2**63, 2**64 - 1]
)


def hexadecimal(digits: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=digits // 2, max_size=digits // 2).map(bytes.hex)


TEXT = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=20)
"""Of what is printable."""
SIZES = st.one_of(st.integers(0, 2**60), st.sampled_from([0, 2**60]))
TIMES = st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9998, 1, 1)).map(
    lambda moment: format_time(moment.replace(tzinfo=UTC))
)
IDS = hexadecimal(16)

CONFIGS = st.builds(Config, repository_id=hexadecimal(32), created=TEXT, digest_key=hexadecimal(64), software=TEXT)
LOCKS = st.builds(
    Lock,
    owner=TEXT,
    host=TEXT,
    boot_id=TEXT,
    pid=st.integers(1, 2**31),
    process_start=st.integers(0, 2**64),
    created=TEXT,
    purpose=TEXT,
    token=TEXT,
    machine=TEXT,
    namespace=TEXT,
    renewals=st.integers(0, 2**31),
)
KEY_SLOT = {
    "id": hexadecimal(16),
    "label": TEXT,
    "created": TEXT,
    "salt": hexadecimal(64),
    "wrapped": hexadecimal(2 * WRAPPED_BYTES[KEY_FILE]),
}
HOST_SLOT = KEY_SLOT | {"wrapped": hexadecimal(2 * WRAPPED_BYTES[WRITE_ONLY])}
KEY_SLOTS = (
    st.builds(KeySlot, type=st.just(KEY_FILE), **KEY_SLOT)
    | st.builds(KeySlot, type=st.just(WRITE_ONLY), **HOST_SLOT)
    | st.builds(
        KeySlot,
        type=st.just(PASSPHRASE),
        memory_kib=st.integers(8 * MAX_ARGON2_LANES, MAX_ARGON2_WORK_KIB // MAX_ARGON2_ITERATIONS),
        iterations=st.integers(1, MAX_ARGON2_ITERATIONS),
        lanes=st.integers(1, MAX_ARGON2_LANES),
        **KEY_SLOT,
    )
)
NAMES = st.lists(hexadecimal(64), max_size=3).map(tuple)
DELETIONS = st.builds(
    Deletion,
    id=IDS,
    created=TEXT,
    packs=NAMES,
    indexes=NAMES,
    signatures=NAMES,
    maps=NAMES,
)
DELETION_LOCKS = st.builds(DeletionLocks, id=IDS, waits_for=st.lists(TEXT, max_size=3).map(tuple))
IMAGES = st.text(min_size=1, max_size=60).filter(lambda name: find_name_problem(name) is None)
_FULL_MANIFESTS = st.builds(
    Manifest,
    id=IDS,
    image=IMAGES,
    time=TIMES,
    base=st.none(),
    base_time=st.none(),
    size_bytes=SIZES,
    block_bytes=st.integers(12, 20).map(lambda shift: 1 << shift),
    maps=st.lists(hexadecimal(64), min_size=1, max_size=64, unique=True).map(tuple),
    root_digest=hexadecimal(32),
    statistics=st.builds(
        Statistics,
        apparent_bytes=SIZES,
        allocated_bytes=SIZES,
        read_bytes=SIZES,
        changed_bytes=SIZES,
        referenced_bytes=SIZES,
        new_bytes=SIZES,
        stored_bytes=SIZES,
        duration_s=st.floats(0, 1e9),
    ),
    free_space=st.none() | st.builds(FreeSpaceSkipped, skipped_bytes=SIZES, reason=TEXT),
    tracking=st.none()
    | st.builds(
        Tracking,
        method=TEXT,
        reason=TEXT,
        last_scan=st.none() | TIMES,
        unchanged_bytes=SIZES,
        audited_blocks=st.integers(0, 2**31),
        refuted_blocks=st.integers(0, 2**31),
    ),
    group=st.none(),
    tags=st.lists(TEXT, max_size=3).map(tuple),
    is_live=st.booleans(),
    container=TEXT,
    source=TEXT,
    host=TEXT,
    software=TEXT,
    comment=TEXT,
    started=TIMES,
    ended=TIMES,
)
_GROUPED_MANIFESTS = st.builds(
    lambda manifest, disks, spread_s: msgspec.structs.replace(
        manifest,
        image=f"g.{disks[0]}",
        group=Group(name="g", members=tuple(f"g.{each}" for each in disks), spread_s=spread_s),
    ),
    _FULL_MANIFESTS,
    st.lists(st.sampled_from(["config", "disk0", "disk1", "xvda", "a.b"]), min_size=1, unique=True),
    st.floats(0, 1e3),
)
MANIFESTS = (_FULL_MANIFESTS | _GROUPED_MANIFESTS) | st.builds(
    lambda manifest, base, time: msgspec.structs.replace(manifest, base=base, base_time=time),
    _FULL_MANIFESTS,
    IDS,
    TIMES,
)
ROSTERS = st.builds(
    lambda roster, ids, count: msgspec.structs.replace(
        roster,
        snapshots=tuple(ids[:count]),
        unsettled=tuple(ids[count:]),
        written=tuple(each + "0f" * 16 for each in ids[::2]),
    ),
    st.builds(
        Roster,
        repository_id=hexadecimal(32),
        image=IMAGES,
        number=st.integers(1, 99_999_999),
        time=TIMES,
        snapshots=st.just(()),
        newest_time=st.none() | TIMES,
        trail=st.lists(hexadecimal(32), max_size=3).map(tuple),
        removed=st.lists(IDS, max_size=3).map(tuple),
        host=TEXT,
    ),
    st.lists(IDS, max_size=5, unique=True),
    st.integers(0, 5),
)
ANNOTATIONS = st.builds(
    Annotation,
    image=IMAGES,
    snapshot=IDS,
    number=st.integers(1, 99_999_999),
    time=TIMES,
    pinned=st.none() | TEXT,
    tags=st.lists(TEXT, max_size=3).map(tuple),
    comment=TEXT,
    owner=TEXT,
    host=TEXT,
)


@st.composite
def _shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    """Return the block shift, slots and payload bytes of a record."""
    shift = draw(st.integers(12, 20))
    slots = draw(st.integers(1, 2**24 >> shift))
    return shift, slots, draw(st.integers(0, slots << shift))


def _ids(draw: st.DrawFn, count: int) -> Any:
    return np.frombuffer(draw(st.binary(min_size=16 * count, max_size=16 * count)), np.uint8).reshape(count, 16)


@st.composite
def indexes(draw: st.DrawFn) -> IndexObject:
    packs = draw(st.lists(hexadecimal(64), max_size=4))
    signatures = draw(st.lists(hexadecimal(64), max_size=3))
    shapes = draw(st.lists(_shapes(), max_size=5)) if packs and signatures else []
    entries = np.zeros(len(shapes), ENTRY)
    entries["id"] = _ids(draw, len(shapes))
    for number, (shift, slots, payload_bytes) in enumerate(shapes):
        row = entries[number]
        row["block_shift"], row["slots"], row["payload_bytes"] = shift, slots, payload_bytes
        row["pack"], row["signature"] = draw(st.integers(0, len(packs) - 1)), draw(st.integers(0, len(signatures) - 1))
        row["offset"], row["first_digest"], row["encoding"] = draw(st.integers(64, 2**32 - 1)), draw(U32), draw(U8)
    cuts = draw(_cuts(entries["slots"].tolist()))
    return IndexObject(draw(U64), tuple(packs), tuple(signatures), entries, no_links(len(entries)), cuts)


@st.composite
def kept_runs(draw: st.DrawFn, slots: int) -> Any:
    """Some but not all of a record's slots, at least one, as runs that do not touch."""
    kept = draw(st.sets(st.integers(0, slots - 1), min_size=1, max_size=min(slots - 1, 6)))
    firsts = [slot for slot in sorted(kept) if slot - 1 not in kept]
    ends = [slot + 1 for slot in sorted(kept) if slot + 1 not in kept]
    return np.array([(first, end - first) for first, end in zip(firsts, ends, strict=True)], SLOT_RUN)


@st.composite
def _cuts(draw: st.DrawFn, slots: list[int]) -> CutEntries:
    cut = [number for number, count in enumerate(slots) if count > 1 and draw(st.booleans())]
    runs = [draw(kept_runs(slots[number])) for number in cut]
    joined = np.concatenate([np.empty(0, SLOT_RUN), *runs])
    return CutEntries(np.array(cut, np.uint32), np.array([len(each) for each in runs], np.uint16), joined)


@st.composite
def signatures(draw: st.DrawFn) -> SignatureObject:
    slots = draw(st.lists(st.integers(1, 12), max_size=6))
    return SignatureObject(_ids(draw, len(slots)), np.array(slots, np.uint16), _ids(draw, sum(slots)))


@st.composite
def maps(draw: st.DrawFn) -> MapObject:
    slots = draw(st.lists(st.integers(1, 4096), max_size=5))
    slot_end = 2 + sum(slots)
    position, runs = 0, []
    for _ in range(draw(st.integers(0, 8))):
        position += draw(st.one_of(st.just(0), st.integers(0, 300), st.integers(0, 2**44)))
        slot = draw(st.integers(0, slot_end - 1))
        longest = 2**32 - 1 if slot < 2 else slot_end - slot
        count = draw(st.one_of(st.integers(1, min(9, longest)), st.integers(1, longest)))
        runs.append((position, count, slot))
        position += count
    block_count = draw(st.one_of(st.just(position), st.integers(position, MAX_BLOCKS)))
    return MapObject(block_count, _ids(draw, len(slots)), np.array(slots, np.uint16), np.array(runs, RUN))


@st.composite
def packs(draw: st.DrawFn) -> PackContent:
    records = []
    for payload in draw(st.lists(st.binary(max_size=80), max_size=4)):
        shift, slots, _ = draw(_shapes())
        # An id that begins as a record does would make a walk take the footer for one; a keyed digest does so once in 2^32.
        record_id = draw(st.binary(min_size=16, max_size=16).filter(lambda each: each[0] != 0x8B))
        header = RecordHeader(record_id, draw(U8), slots, shift, len(payload), digest_bytes(payload))
        records.append(
            (replace(header, sources=draw(st.integers(0, 4096)), absent=draw(st.integers(0, slots - 1))), payload)
        )
    return PackContent(None, records)


@st.composite
def parities(draw: st.DrawFn) -> ParityObject:
    sizes = draw(st.lists(st.integers(65, 20_000), min_size=1, max_size=3))
    shards = sum(-(-size // 4096) for size in sizes)
    stripes = draw(st.integers(1, shards))
    columns, parity_columns = -(-shards // stripes), draw(st.integers(1, 2))
    planes = draw(st.binary(min_size=1, max_size=9)) * 4096
    planes = planes.ljust(4096 * stripes * parity_columns, b"\1")[: 4096 * stripes * parity_columns]
    names = draw(st.lists(hexadecimal(64), min_size=len(sizes), max_size=len(sizes), unique=True))
    digests = np.concatenate([_ids(draw, shards), digest_shards(planes, 4096)])
    return ParityObject(
        ParityTables(tuple(names), np.array(sizes, np.uint64), 4096, stripes, columns, parity_columns, digests), planes
    )


def _verified(verified_us: dict[bytes, int]) -> VerifiedObject:
    packs = np.frombuffer(b"".join(sorted(verified_us)), np.uint8).reshape(-1, 32)
    return VerifiedObject(packs, np.array([verified_us[pack] for pack in sorted(verified_us)], np.uint64))


CONTENTS: dict[str, st.SearchStrategy[Any]] = {
    "config": CONFIGS,
    "key_slot": KEY_SLOTS,
    "lock": LOCKS,
    "deletion": DELETIONS,
    "deletion_locks": DELETION_LOCKS,
    "manifest": MANIFESTS,
    "annotation": ANNOTATIONS,
    "roster": ROSTERS,
    "index": indexes(),
    "map": maps(),
    "verified": st.dictionaries(st.binary(min_size=32, max_size=32), st.integers(0, 2**53), max_size=5).map(_verified),
    "signature": signatures(),
    "pack": packs(),
    "parity": parities(),
}


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Return `data` cut, extended, with bits flipped, with numbers overwritten, or with a part removed, doubled or moved."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        part = data[start:end]
        way = draw(st.sampled_from(["cut", "extend", "flip", "edge", "remove", "double", "move", "insert"]))
        if way == "cut":
            data = data[:start]
        elif way == "extend":
            data += draw(st.binary(min_size=1, max_size=40))
        elif way == "flip" and start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
        elif way == "edge":
            size = draw(st.sampled_from([1, 2, 4, 8]))
            number = (draw(EDGES) & (1 << 8 * size) - 1).to_bytes(size, "little")
            data = data[:start] + number + data[start + size :]
        elif way == "remove":
            data = data[:start] + data[end:]
        elif way == "double":
            data = data[:end] + part + data[end:]
        elif way == "move":
            rest = data[:start] + data[end:]
            place = draw(st.integers(0, len(rest)))
            data = rest[:place] + part + rest[place:]
        elif way == "insert":
            data = data[:start] + draw(st.binary(min_size=1, max_size=16)) + data[start:]
    return data
