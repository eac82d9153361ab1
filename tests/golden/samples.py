# SPDX-License-Identifier: Apache-2.0
"""Legal content of every kind, small and fixed: what the good golden files hold."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import zstandard

from deltaimg.arrays import RUN
from deltaimg.format.annotation import Annotation
from deltaimg.format.config import Config
from deltaimg.format.cut_entries import CutEntries
from deltaimg.format.deletion import Deletion, DeletionLocks
from deltaimg.format.framing import digest_bytes, name_object
from deltaimg.format.index import ENTRY, IndexObject, link_sources, no_links
from deltaimg.format.key_slot import KeySlot
from deltaimg.format.lock import Lock
from deltaimg.format.manifest import FreeSpaceSkipped, Freezing, Group, Manifest, Statistics, Tracking
from deltaimg.format.map import MapObject
from deltaimg.format.parity import ParityTables, digest_shards
from deltaimg.format.record import WHOLE_LITERAL, CutTable, RecordHeader, RecordTables, build_tables
from deltaimg.format.roster import Roster
from deltaimg.format.signature import SignatureObject
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.format.sources import SourceTable
from deltaimg.format.verified import VerifiedObject
from deltaimg.model import Extent
from tests.golden.kinds import PackContent, ParityObject
from tests.support.galois import parity_planes


def ids(*seeds: int) -> Any:
    """Return 16-byte ids, each of one repeated byte."""
    return np.repeat(np.array(seeds, np.uint8), 16).reshape(-1, 16)


CONFIG = Config(
    repository_id="00112233445566778899aabbccddeeff",
    created="20261123T020304.000005Z",
    digest_key="0f" * 32,
    software="deltaimg 0.1.0",
)
ENCRYPTED = Config(
    repository_id="00112233445566778899aabbccddeeff", created="20261123T020304.000005Z", encryption="aes-256-gcm"
)
PASSPHRASE_SLOT = KeySlot(
    id="00000000000000dd",
    type="passphrase",
    label="operator",
    created="20261123T020304.000005Z",
    salt="1a" * 32,
    wrapped="2b" * 80,
    memory_kib=262144,
    iterations=2,
    lanes=4,
)
KEY_FILE_SLOT = KeySlot(
    id="00000000000000ee",
    type="keyfile",
    label="",
    created="20261123T020304.000005Z",
    salt="3c" * 32,
    wrapped="4d" * 80,
)
WRITE_ONLY_SLOT = KeySlot(
    id="00000000000000ff",
    type="writeonly",
    label="web1",
    created="20261123T020304.000005Z",
    salt="3c" * 32,
    wrapped="4d" * 112,
)
LOCK = Lock(
    owner="operator",
    host="backup.example",
    boot_id="a1b2c3d4-0000-1111-2222-333344445555",
    pid=4711,
    process_start=123456789,
    created="20261123T020304.000005Z",
    purpose="backup of /dev/vg0/vm1-snap",
    token="0123456789abcdef",
)
HEARTBEAT = msgspec.structs.replace(LOCK, machine="0f" * 16, namespace="pid:[4026531836]", renewals=7)
DELETION = Deletion(id="00000000000000cc", created="20261123T020304.000005Z", packs=("11" * 32,), maps=("ab" * 32,))
OF_ALL_KINDS = msgspec.structs.replace(DELETION, indexes=("44" * 32,), signatures=("33" * 32,))
WAITING = DeletionLocks(id=DELETION.id, waits_for=("0123456789abcdef",))
FREE_TO_GO = DeletionLocks(id=DELETION.id, waits_for=())
FULL = Manifest(
    id="00000000000000aa",
    image="vm1",
    time="20261123T020304.000005Z",
    base=None,
    base_time=None,
    size_bytes=40961,
    block_bytes=4096,
    maps=("ab" * 32,),
    root_digest="cd" * 16,
    statistics=Statistics(
        apparent_bytes=40961,
        allocated_bytes=32768,
        read_bytes=32768,
        changed_bytes=28672,
        referenced_bytes=8192,
        new_bytes=20480,
        stored_bytes=9000,
        duration_s=0.125,
        rewritten_bytes=4096,
        rewritten_payload_bytes=700,
    ),
    started="20261123T020303.875005Z",
    ended="20261123T020304.000005Z",
)
INCREMENTAL = msgspec.structs.replace(
    FULL,
    id="00000000000000bb",
    image="Prüfstand.夜",
    time="20261124T020304.000005Z",
    base="00000000000000aa",
    base_time="20261123T020304.000005Z",
    maps=("ab" * 32, "cd" * 32),
    started="20261122T020303.800005Z",
    ended="20261122T020304.000005Z",
    tags=("weekly", "vor dem Update"),
    comment="die Uhr ging nach",
    is_live=True,
    container="qcow2",
    unreadable=(Extent(512, 1024), Extent(8192, 40961)),
    freeze=Freezing(method="lvm", frozen_s=0.25, used_bytes=1 << 20),
    tracking=Tracking(
        method="hints",
        last_scan="20261101T020304.000005Z",
        unchanged_bytes=1 << 30,
        audited_blocks=459,
        refuted_blocks=0,
    ),
    free_space=FreeSpaceSkipped(
        skipped_bytes=1 << 28, reason="partition 2 (swap): free space of swap is not known here"
    ),
    group=Group(name="Prüfstand", members=("Prüfstand.config", "Prüfstand.夜"), spread_s=0.125),
    source="/dev/vg0/vm1",
    host="hyper1",
    software="deltaimg 0.1.0",
)
TAGGED = Annotation(
    image="vm1",
    snapshot="00000000000000aa",
    number=1,
    time="20261124T080000.000000Z",
    tags=("weekly", "vor dem Update"),
    comment="la nuit d'avant",
    owner="operator",
    host="backup.example",
)
ROSTER = Roster(
    repository_id="00112233445566778899aabbccddeeff",
    image="vm1",
    number=7,
    time="20261124T080000.000000Z",
    snapshots=("00000000000000aa", "00000000000000ab"),
    newest_time="20261124T075958.000000Z",
    trail=("0123456789abcdef" * 2, "00" * 16),
    host="backup.example",
)
HOSTS_ROSTER = msgspec.structs.replace(
    ROSTER, number=8, written=("00000000000000ab" + "5e" * 16,), removed=("00000000000000ff",)
)
UNSETTLED_ROSTER = msgspec.structs.replace(
    ROSTER, image="Prüfstand Nächte, 夜", number=99_999_999, snapshots=(), unsettled=("00000000000000ac",), trail=()
)
PINNED = msgspec.structs.replace(
    TAGGED, image="Prüfstand Nächte, 夜", number=99_999_999, pinned="before the upgrade", tags=()
)


def _entries(*rows: tuple[Any, ...]) -> Any:
    entries = np.zeros(len(rows), ENTRY)
    for number, (seed, *rest) in enumerate(rows):
        entries["id"][number] = seed
        for field, value in zip(ENTRY.names[1:], rest, strict=True):
            entries[field][number] = value
    return entries


INDEX = IndexObject(
    created_us=1_795_399_384_000_005,
    packs=("11" * 32, "22" * 32),
    signatures=("33" * 32,),
    entries=_entries(
        (0xA1, 0, 64, 4096, 0, 0, 1, 0, 12),
        (0xA2, 0, 4224, 20, 0, 1, 256, 1, 12),
        (0xA3, 1, 64, 60_000, 0, 257, 16, 2, 12),
    ),
    # The last record is a delta against blocks 0, 2 and 3 of the second, and the only one of the first.
    links=link_sources(
        [
            None,
            None,
            SourceTable(ids(0xA1, 0xA2), np.array([1, 2], np.uint16), np.array([(0, 1), (0, 1), (2, 2)], SLOT_RUN)),
        ]
    ),
)

CUT_INDEX = IndexObject(
    created_us=1_795_399_384_000_006,
    packs=("11" * 32,),
    signatures=("33" * 32,),
    entries=_entries((0xA1, 0, 64, 4096, 0, 0, 1, 0, 12), (0xA2, 0, 4224, 5000, 0, 1, 4, 0, 12)),
    cuts=CutEntries(np.array([1], np.uint32), np.array([2], np.uint16), np.array([(0, 1), (3, 1)], SLOT_RUN)),
    links=no_links(2),
)

MAPS = {
    "full": MapObject(
        block_count=1000,
        record_ids=ids(0xA1, 0xA2),
        record_slots=np.array([1, 256], np.uint16),
        # Over both records in one run, then back: the step of the last run is negative.
        runs=np.array([(0, 10, 0), (10, 257, 2), (267, 700, 1), (967, 32, 100), (999, 1, 2)], RUN),
    ),
    "incremental": MapObject(
        block_count=2**36,
        record_ids=ids(0xA3),
        record_slots=np.array([4096], np.uint16),
        runs=np.array([(5, 1, 4097), (7, 2**32 - 1, 0), (2**36 - 2, 2, 4000)], RUN),
    ),
    "nothing-changed": MapObject(1000, ids(), np.empty(0, np.uint16), np.empty(0, RUN)),
    # So regular that its columns get zeros before them.
    "regular": MapObject(600, ids(), np.empty(0, np.uint16), np.array([(at, 1, at % 2) for at in range(300)], RUN)),
}

SIGNATURES = {
    "two-records": SignatureObject(ids(0xA1, 0xA2), np.array([1, 2], np.uint16), ids(0xD0, 0xD1, 0xD2)),
    "no-records": SignatureObject(ids(), np.empty(0, np.uint16), ids()),
}


def _verified(verified_us: dict[int, int]) -> VerifiedObject:
    """Return when packs whose digests are a byte repeated were verified."""
    packs = np.frombuffer(b"".join(bytes([seed]) * 32 for seed in verified_us), np.uint8).reshape(-1, 32)
    return VerifiedObject(packs, np.array(list(verified_us.values()), np.uint64))


def record(
    seed: int, payload: bytes, *, encoding: int, slots: int, tables: RecordTables = WHOLE_LITERAL
) -> tuple[RecordHeader, bytes]:
    """Return a record of `slots` blocks of 4 KiB, cut if its tables say so."""
    payload = build_tables(tables) + payload
    absent = 0 if tables.cut is None else len(tables.cut.absent_digests)
    sources = 0 if tables.sources is None else len(tables.sources.ids)
    digest = digest_bytes(payload)
    return RecordHeader(bytes([seed]) * 16, encoding, slots, 12, len(payload), digest, sources, absent), payload


_TEXT = b"the same line again and again\n" * 300
PACKS = {
    "two-records": PackContent(
        None,
        [
            record(0xA1, bytes(range(256)) * 16, encoding=0, slots=1),
            record(0xA2, zstandard.compress(_TEXT[:8192]), encoding=1, slots=2),
        ],
    ),
    "cut-record": PackContent(
        None,
        [
            record(
                0xA2,
                bytes(range(256)) * 16 + bytes(4096),
                encoding=0,
                slots=4,
                tables=RecordTables(CutTable(np.array([(0, 1), (3, 1)], SLOT_RUN), ids(0xD1, 0xD2))),
            ),
        ],
    ),
    # Runs with short and long gaps, of few and of many slots, from two records.
    "delta-record": PackContent(
        None,
        [
            record(
                0xA4,
                zstandard.compress(bytes(5) + bytes(range(256)) * 16),
                encoding=4,
                slots=1,
                tables=RecordTables(
                    sources=SourceTable(
                        ids(0xA1, 0xA2),
                        np.array([3, 1], np.uint16),
                        np.array([(2, 2), (64, 10), (75, 3), (31, 67)], SLOT_RUN),
                    )
                ),
            ),
        ],
    ),
    "no-records": PackContent(None, []),
}


def parity_of(sizes: tuple[int, ...], *, columns: int, parity_columns: int) -> ParityObject:
    """Return parity, in shards of 4 KiB, for packs of these sizes whose bytes count up from 1, 2 and so on."""
    packs = [bytes((first + at) % 256 for at in range(size)) for first, size in enumerate(sizes, start=1)]
    stripes = -(-sum(-(-size // 4096) for size in sizes) // columns)
    planes = parity_planes(packs, shard_bytes=4096, stripes=stripes, columns=columns, parity_columns=parity_columns)
    tables = ParityTables(
        tuple(name_object([pack]) for pack in packs),
        np.array(sizes, np.uint64),
        4096,
        stripes,
        columns,
        parity_columns,
        np.concatenate([digest_shards(each, 4096) for each in (*packs, planes)]),
    )
    return ParityObject(tables, planes)


PARITIES = {
    "two-packs": parity_of((9000, 4096), columns=4, parity_columns=1),
    "two-stripes": parity_of((16384, 100), columns=3, parity_columns=2),
}

SAMPLES: dict[str, dict[str, tuple[str, Any]]] = {
    "config": {
        "plain": ("config", CONFIG),
        "encrypted": ("config", ENCRYPTED),
        "padded": ("config", msgspec.structs.replace(ENCRYPTED, padding="padme")),
    },
    "key_slot": {
        "passphrase": (PASSPHRASE_SLOT.object_name, PASSPHRASE_SLOT),
        "key-file": (KEY_FILE_SLOT.object_name, KEY_FILE_SLOT),
        "write-only": (WRITE_ONLY_SLOT.object_name, WRITE_ONLY_SLOT),
    },
    "lock": {
        "backup": ("locks/vm1/20261123T020304.000005Z-0123456789abcdef", LOCK),
        "heartbeat": ("locks/.alive-0123456789abcdef", HEARTBEAT),
    },
    "deletion": {
        "packs-and-maps": (DELETION.object_name, DELETION),
        "of-all-kinds": (OF_ALL_KINDS.object_name, OF_ALL_KINDS),
    },
    "deletion_locks": {
        "waits-for-a-backup": (WAITING.object_name, WAITING),
        "waits-for-nothing": (FREE_TO_GO.object_name, FREE_TO_GO),
    },
    "manifest": {
        name: (content.object_name, content) for name, content in {"full": FULL, "incremental": INCREMENTAL}.items()
    },
    "annotation": {
        name: (content.object_name, content) for name, content in {"tagged": TAGGED, "pinned": PINNED}.items()
    },
    "roster": {
        name: (content.object_name, content)
        for name, content in {"settled": ROSTER, "unsettled": UNSETTLED_ROSTER, "of-hosts": HOSTS_ROSTER}.items()
    },
    "index": {
        "two-packs": ("index/" + "44" * 32, INDEX),
        "cut-records": ("index/" + "46" * 32, CUT_INDEX),
        "no-records": ("index/" + "55" * 32, IndexObject(0, (), (), _entries(), no_links(0))),
    },
    "map": {name: ("maps/" + "ab" * 32, content) for name, content in MAPS.items()},
    "parity": {name: ("parity/" + "66" * 32, content) for name, content in PARITIES.items()},
    "verified": {
        "two-packs": ("verified", _verified({0x11: 1_795_399_384_000_005, 0x22: 0})),
        "no-packs": ("verified", _verified({})),
    },
    "signature": {name: ("signatures/" + "33" * 32, content) for name, content in SIGNATURES.items()},
    "pack": {name: ("packs/11/" + "11" * 32, content) for name, content in PACKS.items()},
}
"""Kind, case: the object's name and its content."""
