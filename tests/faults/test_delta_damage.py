# SPDX-License-Identifier: Apache-2.0
"""Damage to delta sources, several levels down, and records that lie about their delta sources."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.restore.run import restore
from deltaimg.engine.restore.verify import verify
from deltaimg.errors import IntegrityError, ObjectNotFound, SnapshotIncomplete
from deltaimg.format.framing import digest_bytes
from deltaimg.format.index import IndexObject, build_index, link_sources, parse_index
from deltaimg.format.limits import MAX_DELTA_DEPTH
from deltaimg.format.record import RecordHeader
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.format.sources import SourceTable
from deltaimg.repo.index import LoadedIndex, load_index
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.golden.kinds import PackContent, build_pack, parse_pack
from tests.golden.samples import INDEX, ids
from tests.support.flips import flip
from tests.support.images import SyntheticImage, make_incompressible_image
from tests.support.repositories import assert_restores, back_up_image, make_repository

KINDS = ("packs/", "index/", "signatures/")
MODES = ("zstd", "xdelta", "deltaimg")
BACKUPS = 4
BLOCKS = 48


class Chain:
    """An image whose middle is half rewritten before each backup: each backup's records depend on those of the one before."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.store = MemoryStore()
        self.repository = make_repository(self.store)
        self.image = make_incompressible_image(128 * 4096, seed=5)
        self.taken = []
        self.objects: list[list[str]] = []
        for number in range(BACKUPS):
            before = set(self.store.objects)
            options = {"delta": mode, "cache_folder": str(folder), "max_read_amplification": 9.0}
            manifest = back_up_image(self.repository, self.image, **options)
            self.taken.append((manifest, bytes(self.image.content)))
            self.objects.append(sorted(set(self.store.objects) - before))
            change_half(self.image, number)
        self.manifest, self.content = self.taken[-1]
        assert load_index(self.repository).links.depths.max() == BACKUPS - 1

    def object_of(self, number: int, kind: str) -> str:
        return next(name for name in self.objects[number] if name.startswith(kind))

    def reindex(self, number: int, change: Callable[[list[SourceTable | None], IndexObject], object]) -> None:
        """Let `change` edit what the index of a backup says of the sources of its records; all checksums stay right."""
        name = self.object_of(number, "index/")
        content = parse_index(self.store.objects.pop(name), name)
        tables = tables_of(content)
        change(tables, content)
        data = build_index(replace(content, links=link_sources(tables)))
        self.store.objects["index/" + digest_bytes(data, length=32).hex()] = data

    def repack(self, number: int, change: Callable[[bytes, RecordHeader], bytes]) -> None:
        """Let `change` edit the payload of a backup's records; all checksums, and the index, stay right."""
        name = self.object_of(number, "packs/")
        records = []
        for header, payload in parse_pack(self.store.objects.pop(name), name).records:
            changed = change(bytes(payload), header)
            records.append((replace(header, payload_bytes=len(changed), payload_digest=digest_bytes(changed)), changed))
        data = build_pack(PackContent(None, records))
        digest = digest_bytes(data, length=32).hex()
        self.store.objects[f"packs/{digest[:2]}/{digest}"] = data
        index = self.object_of(number, "index/")
        content = parse_index(self.store.objects.pop(index), index)
        entries, at = content.entries.copy(), 64
        for entry, (_, changed) in zip(entries, records, strict=True):
            entry["offset"], entry["payload_bytes"] = at, len(changed)
            at += 64 + len(changed)
        data = build_index(replace(content, entries=entries, packs=(digest,)))
        self.store.objects["index/" + digest_bytes(data, length=32).hex()] = data

    def expect_refusal(self, target: Path, match: str, intact: int) -> None:
        """The newest snapshot is refused in one clear line, by restore, streams and reads; the first `intact` are whole."""
        repository = Repository.open(self.store)
        for path in (str(target), "-"):
            with pytest.raises((IntegrityError, ObjectNotFound, SnapshotIncomplete), match=match) as caught:
                restore(repository, self.manifest, path, workers=2)
            assert "\n" not in str(caught.value)
            assert not target.exists()
        with pytest.raises((IntegrityError, ObjectNotFound, SnapshotIncomplete), match=match):
            SnapshotContent(repository, self.manifest, load_index(repository)).make_reader().read(0, len(self.content))
        for manifest, content in self.taken[:intact]:
            assert_restores(repository, manifest, content)


@pytest.fixture(params=MODES)
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Chain:
    return Chain(tmp_path / "cache", request.param)


def change_half(image: SyntheticImage, number: int) -> None:
    chance = random.Random(number)
    for block in range(BLOCKS):
        image.write((40 + block) * 4096 + number % 2 * 2048, chance.randbytes(2048))


def tables_of(content: IndexObject) -> list[SourceTable | None]:
    """Return what an index object says of the sources of each of its entries."""
    links, tables, link, run = content.links, [], 0, 0
    for count in content.links.link_counts.tolist():
        counts = links.run_counts[link : link + count]
        runs = int(counts.sum())
        table = SourceTable(links.ids[links.places[link : link + count]], counts, links.runs[run : run + runs].copy())
        tables.append(table if count else None)
        link, run = link + count, run + runs
    return tables


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def extents_on(chain: Chain, pack: str) -> list[tuple[int, int]]:
    """Return the extents of the newest image that nobody can know without a pack, joined; found level by level."""
    content = SnapshotContent(chain.repository, chain.manifest, load_index(chain.repository))
    lost = {record for record in range(content.table.record_count) if content.table.pack_of(record) == pack}
    for _ in range(BACKUPS):
        for record in range(content.table.record_count):
            firsts, _ = content.table.source_slots(record)
            if lost.intersection(content.table.records_of(firsts).tolist()):
                lost.add(record)
    return join((extent.start, extent.end) for record in lost for extent in content.extents_of(record))


def join(extents: object) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(extents):  # type: ignore[call-overload]
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, end))
    return joined


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", [truncate, flip, None], ids=["truncated", "flipped", "missing"])
@pytest.mark.parametrize("number", [0, 1])
def test_damage_under_a_chain_is_named_and_costs_what_stands_on_it(
    chain: Chain, tmp_path: Path, number: int, kind: str, harm: Callable[[bytes], bytes] | None
) -> None:
    name = chain.object_of(number, kind)
    data = chain.store.objects.pop(name)
    if harm is not None:
        chain.store.objects[name] = harm(data)
    newer_digests_suffice = kind == "signatures/" and number
    if newer_digests_suffice:
        # Digests of a record that only others depend on are not needed: its payload has its own.
        assert_restores(Repository.open(chain.store), chain.manifest, chain.content)
        return
    no_name = kind == "index/" and harm is None
    chain.expect_refusal(tmp_path / "restored", "needs" if no_name else name.rsplit("/", 1)[-1], number)
    assert verify(chain.repository, [chain.repository.list_snapshots()[-1]], workers=2)[0].damage


@pytest.mark.parametrize("number", range(BACKUPS))
@pytest.mark.parametrize("harm", [flip, None], ids=["flipped", "missing"])
def test_keep_going_lists_exactly_what_stands_on_the_damage(
    chain: Chain,
    tmp_path: Path,
    number: int,
    harm: Callable[[bytes], bytes] | None,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    name = chain.object_of(number, "packs/")
    expected = extents_on(chain, name)
    data = chain.store.objects.pop(name)
    if harm is not None:
        chain.store.objects[name] = harm(data)
    target = tmp_path / "restored"
    for path in (str(target), "-"):
        result = restore(chain.repository, chain.manifest, path, keep_going=True, workers=2)
        assert join((extent.start, extent.end) for extent in result.damage) == expected
        restored = bytearray(capfdbinary.readouterr().out if path == "-" else target.read_bytes())
        for start, end in expected:
            assert not any(restored[start:end])
            restored[start:end] = chain.content[start:end]
        assert restored == chain.content


def test_packs_that_changed_places_are_refused(chain: Chain, tmp_path: Path) -> None:
    first, second = chain.object_of(1, "packs/"), chain.object_of(2, "packs/")
    objects = chain.store.objects
    objects[first], objects[second] = objects[second], objects[first]
    chain.expect_refusal(tmp_path / "restored", "the record here is not the one", 1)


def name_nothing(tables: list[SourceTable | None], _: IndexObject) -> None:
    tables[:] = [table and replace(table, ids=ids(0xEE)[[0] * len(table.ids)]) for table in tables]


def name_itself(tables: list[SourceTable | None], content: IndexObject) -> None:
    one = np.array([(0, 1)], SLOT_RUN)
    tables[:] = [SourceTable(content.entries["id"][:1], np.ones(1, np.uint16), one) for _ in tables]


def leave_the_record(tables: list[SourceTable | None], _: IndexObject) -> None:
    for table in filter(None, tables):
        table.runs["first_slot"][-1] += 4000


def take_others(tables: list[SourceTable | None], _: IndexObject) -> None:
    for table in filter(None, tables):
        table.runs["count"][-1] -= 1


@pytest.mark.parametrize("lie", [name_nothing, name_itself, leave_the_record])
def test_sources_that_cannot_be_are_refused(
    chain: Chain, tmp_path: Path, lie: Callable[[list[SourceTable | None], IndexObject], None]
) -> None:
    chain.reindex(2, lie)
    chain.expect_refusal(tmp_path / "restored", "needs sources that the index does not have", 2)


def test_sources_in_a_circle_are_refused(chain: Chain, tmp_path: Path) -> None:
    name = chain.object_of(3, "index/")
    newest = parse_index(chain.store.objects[name], name).entries["id"][:1]

    def depend_on_the_newest(tables: list[SourceTable | None], _: IndexObject) -> None:
        tables[:] = [SourceTable(newest, np.ones(1, np.uint16), np.array([(0, 1)], SLOT_RUN)) for _ in tables]

    chain.reindex(1, depend_on_the_newest)
    chain.expect_refusal(tmp_path / "restored", "that need it in turn", 1)


def test_a_record_and_an_index_that_disagree_on_its_sources_are_refused(chain: Chain, tmp_path: Path) -> None:
    chain.reindex(2, take_others)
    chain.expect_refusal(tmp_path / "restored", "other sources than the index says", 2)


JUNK = {
    "nothing": b"",
    "zeros": b"\0" * 40,
    "a window of 2 GiB": b"\x28\xb5\x2f\xfd\xc0\xa8" + (BLOCKS * 4096).to_bytes(8, "little") + bytes(40),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
def test_a_delta_that_says_nothing_sensible_is_refused(chain: Chain, tmp_path: Path, junk: bytes) -> None:

    def replace_delta(payload: bytes, header: RecordHeader) -> bytes:
        if not header.sources:
            return payload
        counts = np.frombuffer(payload, "<u2", header.sources, 16 * header.sources)
        return payload[: 18 * header.sources + 4 * int(counts.sum())] + junk

    chain.repack(2, replace_delta)
    chain.expect_refusal(tmp_path / "restored", "the record here", 2)


def test_records_that_stand_deeper_than_may_be_are_not_decoded() -> None:
    count = MAX_DELTA_DEPTH + 6
    entries = np.repeat(INDEX.entries[:1], count)
    entries["id"] = ids(*range(count))
    one = np.array([(0, 1)], SLOT_RUN)
    tables = [SourceTable(ids(number), np.ones(1, np.uint16), one) for number in range(count - 1)]
    content = IndexObject(0, INDEX.packs, INDEX.signatures, entries, link_sources([None, *tables]))
    depths = LoadedIndex({"index/" + "44" * 32: content}).links.depths
    assert depths.tolist() == [*range(MAX_DELTA_DEPTH + 1), *[-1] * (count - MAX_DELTA_DEPTH - 1)]


def test_no_flipped_byte_under_a_delta_gives_a_wrong_image(chain: Chain, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    target, found = tmp_path / "restored", 0
    names = sorted(name for name in chain.store.objects if name.startswith(KINDS))
    for _ in range(150):
        name = chance.choice(names)
        original = chain.store.objects[name]
        place = chance.randrange(len(original))
        changed = bytes([original[place] ^ (1 << chance.randrange(8))])
        chain.store.objects[name] = original[:place] + changed + original[place + 1 :]
        try:
            restore(Repository.open(chain.store), chain.manifest, str(target), workers=1)
            assert target.read_bytes() == chain.content
        except (IntegrityError, ObjectNotFound):
            found += 1
        target.unlink(missing_ok=True)
        chain.store.objects[name] = original
    assert found
