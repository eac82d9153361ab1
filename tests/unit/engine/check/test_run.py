# SPDX-License-Identifier: Apache-2.0
"""What a check of the structure reports, and what it accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from deltaimg.engine.check.findings import Finding, FindingKind, Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.prune.run import prune
from deltaimg.errors import StoreUnavailable
from deltaimg.format.framing import name_object
from deltaimg.format.index import build_index, parse_index
from deltaimg.format.lock import HEARTBEATS, READER_LOCKS
from deltaimg.format.manifest import build_manifest
from deltaimg.format.map import MapObject, build_map, parse_map
from deltaimg.format.pack import pack_name
from deltaimg.format.record import RECORD_HEADER_BYTES
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.store.memory import MemoryStore
from tests.golden.kinds import KINDS
from tests.support.clock import FixedClock
from tests.support.faults import FaultyStore
from tests.support.images import edit_at_random, make_database_image, make_mixed_image
from tests.support.repositories import back_up_image, make_repository
from tests.support.retention import keep_only, list_manifests
from tests.support.wrapping import WatchedStore

GOLDEN = Path(__file__).parents[3] / "golden" / "v1"


@cache
def make_three_backups() -> tuple[Repository, dict[str, bytes]]:
    store = MemoryStore()
    repository = make_repository(store)
    image = make_mixed_image(600_000, seed=1)
    for _ in range(3):
        back_up_image(repository, image)
        edit_at_random(image)
    return repository, store.objects


def three_backups() -> tuple[Repository, MemoryStore]:
    repository, objects = make_three_backups()
    store = MemoryStore()
    store.objects = dict(objects)
    return Repository(store, repository.config), store


def errors_of(repository: Repository, *, read_packs: bool = False) -> list[Finding]:
    return check(repository, read_packs=read_packs).of(Severity.ERROR)


def find_object(store: MemoryStore, folder: str) -> str:
    return next(name for name in store.objects if name.startswith(folder))


def put_named(store: MemoryStore, folder: str, data: bytes) -> str:
    name = folder + name_object([data])
    store.objects[name] = data
    return name


def test_a_sound_repository_has_nothing_to_find() -> None:
    repository, store = three_backups()
    report = check(repository)
    assert report.findings == ()
    assert report.snapshots == 3
    assert report.records >= 3
    assert report.unused_records == 0
    assert sum(report.objects.values()) == len(store.objects) - 1
    assert check(repository, read_packs=True).findings == ()
    assert check(make_repository()).findings == ()


@pytest.mark.parametrize("folder", ["packs/", "index/", "maps/", "signatures/"])
@pytest.mark.parametrize("harm", ["flip", "cut", "lose", "empty"])
def test_a_damaged_object_is_named_and_so_is_who_needs_it(folder: str, harm: str) -> None:
    repository, store = three_backups()
    name = find_object(store, folder)
    data = store.objects[name]
    if harm == "lose":
        del store.objects[name]
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
        store.objects[name] = {"flip": flipped, "cut": data[:-1], "empty": b""}[harm]
    found = errors_of(repository, read_packs=True)
    if (folder, harm) != ("index/", "lose"):  # of a lost index nobody knows the name
        kind = FindingKind.MISSING if harm == "lose" else FindingKind.DAMAGED
        assert {each.kind for each in found if each.object_name == name} == {kind}
    # Of a pack that ends a byte early every record is good: a restore would not notice.
    needs_no_more = folder == "maps/" or (folder, harm) == ("packs/", "cut")
    assert any("vm1@" in each.problem for each in found) or needs_no_more


def test_packs_are_only_read_when_asked_for() -> None:
    repository, store = three_backups()
    name = find_object(store, "packs/")
    data = bytearray(store.objects[name])
    data[64 + RECORD_HEADER_BYTES + 9] ^= 1
    store.objects[name] = bytes(data)
    counting = WatchedStore(store)
    assert errors_of(Repository(counting, repository.config)) == []
    assert not [call for call in counting.calls if call.startswith("get packs/")]
    first = errors_of(repository, read_packs=True)[0]
    assert (first.object_name, first.kind, first.offset) == (name, FindingKind.DAMAGED, 64)


def test_an_index_that_lies_about_a_pack_is_the_one_to_blame() -> None:
    repository, store = three_backups()
    name = find_object(store, "index/")
    content = parse_index(store.objects.pop(name), name)
    entries = content.entries.copy()
    entries["offset"][0] += 1
    forged = put_named(store, "index/", build_index(replace(content, entries=entries)))
    blamed = [each for each in errors_of(repository) if each.object_name == forged]
    assert [each.kind for each in blamed] == [FindingKind.CONTRADICTORY]
    assert "do not lie in packs/" in blamed[0].problem


def test_digests_that_are_those_of_other_records_are_found() -> None:
    repository, store = three_backups()
    name = find_object(store, "index/")
    content = parse_index(store.objects.pop(name), name)
    entries = content.entries.copy()
    entries["first_digest"][0] += 1
    put_named(store, "index/", build_index(replace(content, entries=entries)))
    assert any("are not those of 1 record" in each.problem for each in errors_of(repository))


def test_what_nothing_names_is_a_note() -> None:
    repository, store = three_backups()
    store.delete(repository.list_snapshots()[-1].object_name)
    report = check(repository)
    assert not report.of(Severity.ERROR)
    assert {each.kind for each in report.of(Severity.NOTE)} == {FindingKind.ORPHAN}
    assert {each.object_name.partition("/")[0] for each in report.of(Severity.NOTE)} >= {"maps", "index"}
    assert report.unused_records > 0


def test_what_no_repository_holds_is_a_warning() -> None:
    repository, store = three_backups()
    for name in ("packs/readme", "maps/x", "snapshots/vm1/notes.txt", "quarantine/maps/x"):
        store.objects[name] = b"hello"
    report = check(repository)
    assert not report.of(Severity.ERROR)
    assert {each.object_name for each in report.of(Severity.WARNING)} == {
        "packs/readme", "maps/x", "snapshots/vm1/notes.txt", "quarantine/maps/x",
    }  # fmt: skip


def change_manifest(repository: Repository, which: int, **changes: object) -> None:
    manifest = list_manifests(repository)[which]
    changed = msgspec.structs.replace(manifest, **changes)
    repository.objects.store.objects[manifest.object_name] = build_manifest(changed)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("which", "changes", "said"),
    [
        (2, {"block_bytes": 8192}, "whose blocks are others in the index"),
        (1, {"size_bytes": 4_000_000}, "is of 147 blocks"),
        (1, {"maps": ("0" * 64,)}, "is missing"),
        (1, {"maps": "own layer only"}, "to no map below it"),
        (1, {"maps": "the wrong way round"}, "to no map below it"),
    ],
)
def test_a_hostile_manifest_ends_no_check(which: int, changes: dict[str, object], said: str) -> None:
    repository, _ = three_backups()
    maps = list_manifests(repository)[which].maps
    lists = {"own layer only": maps[1:], "the wrong way round": maps[::-1]}
    change_manifest(repository, which, **{key: lists.get(str(value), value) for key, value in changes.items()})
    assert any(said in each.problem for each in errors_of(repository))


def test_an_incremental_map_must_cover_what_its_image_grew_by() -> None:
    repository, store = three_backups()
    image = make_mixed_image(600_000, seed=1)
    image.resize(900_000)
    manifest = back_up_image(repository, image)
    assert not errors_of(repository)
    name = f"maps/{manifest.maps[-1]}"
    content = parse_map(store.objects[name], name)
    shorter = MapObject(content.block_count, content.record_ids, content.record_slots, content.runs[:-1])
    forged = put_named(store, "maps/", build_map(shorter))
    changed = msgspec.structs.replace(manifest, maps=(*manifest.maps[:-1], forged.removeprefix("maps/")))
    store.objects[manifest.object_name] = build_manifest(changed)
    assert any("to no map below it" in each.problem for each in errors_of(repository))


@pytest.mark.parametrize("case", sorted(json.loads((GOLDEN / "bad" / "expected.json").read_text())))
def test_every_bad_golden_object_is_found(case: str) -> None:
    """Objects whose name is right and whose content is not: past the digests a check still finds them."""
    expected = json.loads((GOLDEN / "bad" / "expected.json").read_text())[case]
    # Rosters are of encrypted repositories alone, where one that is not sealed is refused before it is parsed.
    if expected["kind"] in ("config", "lock", "verified", "deletion", "deletion_locks", "parity", "roster"):
        assert expected["kind"] in KINDS, "a kind that is no part of what a check of the structure parses"
        return
    data = (GOLDEN / "bad" / f"{case}.bin").read_bytes()
    repository, store = three_backups()
    if expected["kind"] in ("annotation", "key_slot"):
        ref = SnapshotRef("vm1", "20261123T020304.000005Z", "00000000000000aa")
        store.objects |= {ref.object_name: b"", expected["object_name"]: data}
        warned = [
            each for each in check(repository).of(Severity.WARNING) if each.object_name == expected["object_name"]
        ]
        assert [each.kind for each in warned] == [FindingKind.DAMAGED]
        return
    if expected["kind"] == "manifest":
        store.objects[expected["object_name"]] = data
        assert any(each.object_name == expected["object_name"] for each in errors_of(repository))
        return
    finders: dict[str, Callable[[], str]] = {
        "map": lambda: name_a_map(repository, data),
        "index": lambda: put_named(store, "index/", data),
        "signature": lambda: name_in_index(store, signature=data),
        "pack": lambda: name_in_index(store, pack=data),
    }
    name = finders[expected["kind"]]()
    blamed = [each for each in errors_of(repository, read_packs=True) if name in (each.object_name, each.problem)]
    assert blamed or any(name in each.problem for each in errors_of(repository, read_packs=True))


def name_a_map(repository: Repository, data: bytes) -> str:
    name = put_named(repository.objects.store, "maps/", data)  # type: ignore[arg-type]
    change_manifest(repository, 0, maps=(name.removeprefix("maps/"),))
    return name


def name_in_index(store: MemoryStore, *, pack: bytes | None = None, signature: bytes | None = None) -> str:
    """Let an index object name a forged pack or signature in place of its own."""
    name = find_object(store, "index/")
    content = parse_index(store.objects.pop(name), name)
    forged = name_object([pack or signature or b""])
    if pack is not None:
        object_name = pack_name(forged)
        content = replace(content, packs=(forged,))
    else:
        object_name = f"signatures/{forged}"
        content = replace(content, signatures=(forged,))
    store.objects[object_name] = pack if pack is not None else (signature or b"")
    put_named(store, "index/", build_index(content))
    return object_name


class MovingStore(MemoryStore):
    """Objects disappear, and reappear, between the first listing and the first read."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__()
        self.objects = dict(objects)
        self.late: dict[str, bytes] = {}

    def get(self, name: str, max_bytes: int | None = None) -> bytes:
        self.objects |= self.late
        return super().get(name, max_bytes)


def test_what_comes_during_a_check_is_no_error() -> None:
    """An index that replaces another while a check runs: the first look finds neither, the second finds the new one."""
    repository, store = three_backups()
    moving = MovingStore(store.objects)
    name = find_object(moving, "index/")
    moving.late = {name: moving.objects.pop(name)}
    assert not errors_of(Repository(moving, repository.config))


@pytest.mark.parametrize("is_lasting", [False, True])
def test_a_store_that_fails_is_no_traceback(is_lasting: bool) -> None:
    repository, store = three_backups()
    error = StoreUnavailable("x", "gone")
    counting = WatchedStore(store)
    check(Repository(counting, repository.config))
    for number, call in enumerate(counting.calls):
        faulty = FaultyStore(store, error, fail_at=number, is_lasting=is_lasting)
        try:
            report = check(Repository(faulty, repository.config))
        except StoreUnavailable:
            continue
        is_own_lock = any(name in call for name in (READER_LOCKS, HEARTBEATS))
        assert FindingKind.UNREADABLE in {each.kind for each in report.findings} or is_own_lock, call


def test_a_prune_that_died_anywhere_leaves_no_error() -> None:
    """Index objects go one by one, some before others whose records are encoded against theirs."""
    past = make_repository()
    image = make_database_image(400_000, seed=4)
    for _ in range(5):
        last = back_up_image(past, image, delta="best")
        edit_at_random(image, 20)
    keep_only(past, [last.id])
    for call in range(1000):
        store = MemoryStore()
        store.objects = dict(past.objects.store.objects)  # type: ignore[attr-defined]
        dead = StoreUnavailable("x", "gone")
        faulty = FaultyStore(store, dead, fail_at=call, is_lasting=True)
        with suppress(StoreUnavailable):
            prune(Repository(faulty, past.config), PruneOptions(max_unused_percent=0), clock=FixedClock())
        assert errors_of(Repository(store, past.config)) == []
        if not faulty.has_failed:
            break
