# SPDX-License-Identifier: Apache-2.0
"""Write-only hosts: they back up, nothing that is stored can be read with their key, and it can be taken from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest

from deltaimg.crypto.key_slots import KeyFile, Passphrase
from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.prune.run import prune
from deltaimg.engine.repair.run import repair
from deltaimg.engine.restore.run import restore
from deltaimg.engine.restore.verify import verify
from deltaimg.engine.retention.forget import forget
from deltaimg.errors import LastKey, OnlyWrites, SealBroken, StoreUnavailable, UsageError
from deltaimg.format.framing import salt_object
from deltaimg.format.key_slot import KeySlot
from deltaimg.format.manifest import Manifest
from deltaimg.format.pack import PACKS
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.index import load_index
from deltaimg.repo.key_slots import add_key_slot, open_key_slots, remove_key_slot
from deltaimg.repo.object_kinds import INDEX, KEY_SLOT, MANIFEST, ROSTER
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.repo.retention import plan_named
from deltaimg.store.interface import Store
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.faults import FaultyStore
from tests.support.images import SyntheticImage
from tests.support.repositories import KEY, Warnings, assert_restores, back_up_image, make_repository
from tests.support.sync import run_sync
from tests.support.wrapping import WatchedStore

HOST_KEY = KeyFile(b"\x31" * 32)
OTHER_HOST_KEY = KeyFile(b"\x32" * 32)
THOROUGH = PruneOptions(max_unused_percent=0.0, trim="full")
_names = count()


@pytest.fixture(autouse=True)
def own_memory(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a host remembers of repositories is of this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def repository() -> Repository:
    """A repository that is open with its secret."""
    return make_repository(MemoryStore(f"write-only {next(_names)}"), key=KEY)


def add_host(repository: Repository, key: KeyFile = HOST_KEY, label: str = "web1") -> tuple[Repository, KeySlot]:
    """Return the repository as a new write-only host sees it, and the slot of the host."""
    slot = add_key_slot(repository, key, label, START, is_write_only=True)
    secret, _ = open_key_slots(repository.objects, repository.config, key)
    return Repository(repository.objects.store, repository.config, secret), slot


def make_image(seed: int = 1) -> SyntheticImage:
    image = SyntheticImage(3 << 20, seed=seed)
    image.write_pages(0, 2 << 20)
    return image


def objects_of(repository: Repository) -> dict[str, bytes]:
    return repository.objects.store.objects  # type: ignore[attr-defined, no-any-return]


def problems(repository: Repository, severity: Severity = Severity.ERROR) -> list[str]:
    return [f"{each.object_name}: {each.problem}" for each in check(repository).of(severity)]


def forget_snapshots(repository: Repository, *manifests: Manifest) -> None:
    ids = frozenset(each.id for each in manifests)
    forget(
        repository, manifests[0].image, lambda snapshots: plan_named(snapshots, ids, is_forced=True), clock=FixedClock()
    )


def put_manifest(host: Repository, manifest: Manifest) -> None:
    """Store a manifest as a write-only host seals it, in the place of what has its name."""
    host.objects.replace(MANIFEST, manifest.object_name, manifest)


def test_what_a_host_stored_is_read_by_those_who_have_the_secret_and_not_by_the_host(repository, tmp_path):
    host, _ = add_host(repository)
    image = make_image()
    manifest = back_up_image(host, image)
    assert_restores(repository, manifest, image.content)
    assert not verify(repository, repository.list_snapshots(), workers=1)[0].damage
    assert not problems(repository)
    assert not problems(repository, Severity.WARNING)
    with pytest.raises(OnlyWrites, match="the key that was given only writes"):
        restore(host, manifest, str(tmp_path / "restored"), workers=1)
    assert not any((tmp_path / "restored").glob("*"))


def test_the_next_backup_of_a_host_stores_what_changed_and_warns_of_nothing(repository):
    host, _ = add_host(repository)
    image = make_image()
    first = back_up_image(host, image)
    image.write(600_000, b"changed" * 5000)
    progress = Warnings()
    second = back_up_image(host, image, progress=progress)
    assert second.base == first.id
    assert second.statistics.new_bytes < first.statistics.new_bytes / 20
    assert not progress.messages
    assert_restores(repository, second, image.content)


def test_no_record_of_a_host_is_read_for_its_backups(repository, monkeypatch):
    host, _ = add_host(repository)
    image = make_image()
    back_up_image(host, image)
    image.write_pages(400_000, 300_000)

    get_range = host.objects.store.get_range

    def refuse(name: str, offset: int, length: int) -> bytes:
        assert not name.startswith(PACKS)
        return get_range(name, offset, length)

    monkeypatch.setattr(host.objects.store, "get_range", refuse)
    second = back_up_image(host, image)
    monkeypatch.undo()
    assert_restores(repository, second, image.content)


def test_a_host_knows_nothing_of_what_others_stored(repository):
    host, _ = add_host(repository)
    other, _ = add_host(repository, OTHER_HOST_KEY, "web2")
    image = make_image()
    own = back_up_image(repository, image, "own")
    theirs = back_up_image(other, image, "theirs")
    for manifest in (own, theirs):
        with pytest.raises(OnlyWrites):
            host.load_manifest(SnapshotRef.of(manifest))
    assert not len(load_index(host))
    # Its first backup of an image that others have stored is a full one, and names nothing of theirs.
    manifest = back_up_image(host, image, "own")
    assert manifest.base is None
    assert manifest.statistics.referenced_bytes < manifest.statistics.new_bytes
    assert_restores(repository, manifest, image.content)


def test_holders_of_the_secret_continue_what_a_host_began_and_refer_to_nothing_else_of_it(repository):
    host, _ = add_host(repository)
    image = make_image()
    first = back_up_image(host, image)
    assert back_up_image(repository, image, "another").statistics.new_bytes == first.statistics.new_bytes
    image.write(0, b"changed")
    second = back_up_image(repository, image)
    assert second.base == first.id
    assert second.statistics.new_bytes < first.statistics.new_bytes / 20
    assert_restores(repository, second, image.content)
    # The host cannot read that one: its own are what it compares with.
    third = back_up_image(host, image)
    assert third.base == first.id
    assert third.time > second.time


def test_a_prune_leaves_a_host_what_it_needs_for_its_next_backup(repository):
    host, _ = add_host(repository)
    image = make_image()
    first = back_up_image(host, image)
    image.write(0, bytes(range(256)) * 4096)
    second = back_up_image(host, image)
    forget_snapshots(repository, first)
    before = set(objects_of(repository))
    result = prune(repository, THOROUGH, clock=FixedClock())
    assert result.freed_bytes
    assert any(name.startswith(PACKS) for name in set(objects_of(repository)) - before), "records were copied"
    assert not problems(repository)
    assert_restores(repository, second, image.content)
    progress = Warnings()
    image.write(2_000_000, b"a little")
    third = back_up_image(host, image, progress=progress)
    assert not progress.messages
    assert third.base == second.id
    assert third.statistics.new_bytes <= 8192
    assert_restores(repository, third, image.content)


def test_only_a_key_file_is_write_only_and_the_last_key_that_reads_stays(repository):
    with pytest.raises(UsageError, match="a passphrase cannot be write-only"):
        add_key_slot(repository, Passphrase("long and secret"), "", START, is_write_only=True)
    _, slot = add_host(repository)
    reading = next(each.id for each in open_slots(repository) if not each.is_write_only)
    with pytest.raises(LastKey):
        remove_key_slot(repository, reading, START)
    assert remove_key_slot(repository, slot.label, START) == slot


def open_slots(repository: Repository) -> list[KeySlot]:
    return [repository.objects.get(KEY_SLOT, each.name) for each in repository.objects.list("keys/")]


# -- what a stolen key can do ------------------------------------------------------------------------------------------


def test_a_host_can_make_only_what_backups_make(repository):
    host, _ = add_host(repository)
    manifest = back_up_image(repository, make_image())
    (name,) = [name for name in objects_of(repository) if name.startswith("rosters/")]
    roster = repository.objects.get(ROSTER, name)
    objects_of(host)[name] = host.objects.build_stored(ROSTER, name, roster)
    with pytest.raises(SealBroken, match="was sealed by a write-only host, and no backup makes such objects"):
        repository.objects.get(ROSTER, name)
    assert any(name in each for each in problems(repository))
    assert repository.load_manifest(SnapshotRef.of(manifest)) == manifest


def test_a_host_cannot_exchange_a_snapshot_of_another(repository):
    host, _ = add_host(repository)
    image = make_image()
    manifest = back_up_image(repository, image)
    bad = make_image(seed=5)
    forged = back_up_image(host, bad, "mine")
    put_manifest(host, replace_content(manifest, forged))
    fresh = reopen(repository)
    with pytest.raises(SealBroken, match="was not when it was recorded: it was exchanged"):
        fresh.load_manifest(SnapshotRef.of(manifest))
    assert any("it was exchanged" in each for each in problems(fresh))


def test_what_a_host_stored_cannot_be_exchanged_once_it_was_recorded(repository):
    host, _ = add_host(repository)
    image = make_image()
    first = back_up_image(host, image)
    second = back_up_image(repository, image)  # records the first one
    forged = back_up_image(host, make_image(seed=5), "mine")
    put_manifest(host, replace_content(first, forged))
    with pytest.raises(SealBroken, match=r"is not what the write-only host .* had stored"):
        reopen(repository).load_manifest(SnapshotRef.of(first))
    assert_restores(reopen(repository), second, image.content)


def replace_content(manifest: Manifest, other: Manifest) -> Manifest:
    import msgspec

    return msgspec.structs.replace(
        manifest, maps=other.maps, root_digest=other.root_digest, size_bytes=other.size_bytes
    )


def reopen(repository: Repository, store: Store | None = None) -> Repository:
    return Repository(store or repository.objects.store, repository.config, repository.secret)


def test_a_host_whose_key_was_removed_adds_nothing_and_what_it_had_stored_stays(repository):
    host, slot = add_host(repository)
    image = make_image()
    first = back_up_image(host, image)
    before = {name: data for name, data in objects_of(repository).items() if not name.startswith(("keys/", "rosters/"))}
    remove_key_slot(repository, "web1", START)
    after = {name: data for name, data in objects_of(repository).items() if not name.startswith(("keys/", "rosters/"))}
    assert before == after, "no data is written again"
    image.write(0, b"after the theft")
    late = back_up_image(host, image)
    other = back_up_image(host, image, "never seen")
    fresh = reopen(repository)
    for manifest in (late, other):
        with pytest.raises(SealBroken, match="after its key was removed"):
            fresh.load_manifest(SnapshotRef.of(manifest))
    assert_restores(fresh, first, make_image().content)
    # Neither does it help to put the slot back.
    fresh.objects.put(KEY_SLOT, slot.object_name, slot)
    with pytest.raises(SealBroken, match="after its key was removed"):
        reopen(repository).load_manifest(SnapshotRef.of(late))
    assert any("after its key was removed" in each for each in problems(reopen(repository)))


def test_content_of_a_host_is_not_referred_to_by_others(repository):
    """It knows the key of digests, and may store anything under the digests of what others will back up."""
    host, _ = add_host(repository)
    image = make_image()
    manifest = back_up_image(host, image, "bait")
    spoil_packs(repository)
    own = back_up_image(repository, image, "own")
    assert own.statistics.new_bytes == manifest.statistics.new_bytes
    assert_restores(repository, own, image.content)


def spoil_packs(repository: Repository) -> None:
    for name, data in objects_of(repository).items():
        if name.startswith(PACKS):
            objects_of(repository)[name] = data[:300] + bytes(200) + data[500:]


def test_an_index_of_a_host_hides_no_record_of_others_and_a_prune_deletes_none_for_it(repository):
    image = make_image()
    own = back_up_image(repository, image, "own")
    host, _ = add_host(repository)
    victim, _ = add_host(repository, OTHER_HOST_KEY, "web2")
    image.write(0, b"of the victim" * 9000)
    theirs = back_up_image(victim, image, "theirs")
    # What has the same ids, but lies elsewhere: here a copy of each pack in which all is spoiled.
    for name in [name for name in objects_of(repository) if name.startswith("index/")]:
        content = repository.objects.get(INDEX, name)
        forged = tuple(store_spoiled(repository, pack) for pack in content.packs)
        host.objects.put_new(INDEX, msg_replace(content, packs=forged, created_us=content.created_us + 10**12))
    assert_restores(repository, own, make_image().content)
    prune(repository, THOROUGH, clock=FixedClock())
    assert_restores(repository, own, make_image().content)
    remaining = {name for name in objects_of(repository) if name.startswith(PACKS)}
    kept = [entry for entry in packs_of(victim) if entry in remaining]
    assert kept == packs_of(victim)
    assert kept
    assert theirs.id


def packs_of(host: Repository) -> list[str]:
    return [f"packs/{digest[:2]}/{digest}" for digest in load_index(host).packs]


def msg_replace(content: object, **changes: object):
    from msgspec.structs import replace

    return replace(content, **changes)  # type: ignore[type-var]


def store_spoiled(repository: Repository, digest: str) -> str:
    from deltaimg.format.framing import name_object

    data = objects_of(repository)[f"packs/{digest[:2]}/{digest}"]
    spoiled = b"".join(salt_object([data], b"\x77" * 16))
    spoiled = spoiled[:200] + bytes(len(spoiled) - 200)
    name = name_object([spoiled])
    objects_of(repository)[f"packs/{name[:2]}/{name}"] = spoiled
    return name


def test_a_sync_vouches_for_what_a_host_stored(repository):
    host, _ = add_host(repository)
    image = make_image()
    manifest = back_up_image(host, image)
    for key in (KEY, None):
        member = make_repository(MemoryStore(f"member {next(_names)}"), key=key, like=repository)
        run_sync(repository, member)
        assert_restores(member, member.load_manifest(SnapshotRef.of(manifest)), image.content)
        assert not problems(member)
        assert not problems(member, Severity.WARNING)


# -- failures ----------------------------------------------------------------------------------------------------------


def fail_at_each_call(repository: Repository, act: Callable[[Repository], object]) -> Iterator[Repository]:
    """Yield the repository as it is after `act` failed at one call that changes something, for each of these."""
    original, error = dict(objects_of(repository)), StoreUnavailable("x", "gone")
    counting = WatchedStore(copy_store(original))
    act(reopen(repository, counting))
    assert counting.changing
    for number in counting.changing:
        inner = copy_store(original)
        with suppress(StoreUnavailable):
            act(reopen(repository, FaultyStore(inner, error, fail_at=number, is_lasting=True)))
        for name in [name for name in inner.objects if name.startswith("locks/")]:
            inner.delete(name)  # its owner, this process, lives on
        yield reopen(repository, inner)


def copy_store(objects: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore(f"copy {next(_names)}")
    store.objects = dict(objects)
    return store


def as_host(repository: Repository, key: KeyFile = HOST_KEY) -> Repository:
    secret, _ = open_key_slots(repository.objects, repository.config, key)
    return Repository(repository.objects.store, repository.config, secret)


def test_the_removal_of_a_key_that_fails_anywhere_is_done_again(repository):
    host, _ = add_host(repository)
    image = make_image()
    manifests = [back_up_image(host, image, name) for name in ("one", "two")]
    for broken in fail_at_each_call(repository, lambda each: remove_key_slot(each, "web1", START)):
        for manifest in manifests:
            assert broken.load_manifest(SnapshotRef.of(manifest)) == manifest
        if any(slot.is_write_only for slot in open_slots(broken)):
            remove_key_slot(broken, "web1", START)
        assert not any(slot.is_write_only for slot in open_slots(broken))
        assert not problems(broken)
        assert not problems(broken, Severity.WARNING)
        assert_restores(broken, manifests[0], image.content)


def test_a_prune_that_fails_anywhere_costs_a_host_nothing(repository):
    host, _ = add_host(repository)
    image = make_image()
    first = back_up_image(host, image)
    image.write(0, bytes(range(256)) * 4096)
    second = back_up_image(host, image)
    forget_snapshots(repository, first)
    content = bytes(image.content)
    image.write(2_000_000, b"a little")
    for broken in fail_at_each_call(repository, lambda each: prune(each, THOROUGH, clock=FixedClock())):
        assert_restores(broken, second, content)
        progress = Warnings()
        third = back_up_image(as_host(broken), image, progress=progress)
        assert third.base == second.id
        assert third.statistics.new_bytes <= 8192
        prune(broken, THOROUGH, clock=FixedClock())
        assert_restores(broken, third, image.content)


def test_a_backup_of_a_host_that_fails_anywhere_leaves_what_was_there(repository):
    host, _ = add_host(repository)
    image = make_image()
    first = back_up_image(host, image)
    content = bytes(image.content)
    image.write(2_000_000, b"a little")
    for broken in fail_at_each_call(repository, lambda each: back_up_image(as_host(each), image)):
        assert_restores(broken, first, content)
        assert_restores(broken, back_up_image(as_host(broken), image), image.content)
        assert not problems(broken)


def test_what_moves_or_removes_is_refused_before_anything_is_done(repository):
    """Of what others have stored the host sees nothing: all of it would seem to be of no use."""
    host, _ = add_host(repository)
    image = make_image()
    back_up_image(repository, image, "own")
    manifest = back_up_image(host, image)
    before = dict(objects_of(repository))
    for act in (
        lambda: prune(host, clock=FixedClock()),
        lambda: forget_snapshots(host, manifest),
        lambda: repair(host),
        lambda: add_key_slot(host, OTHER_HOST_KEY, "", START, is_write_only=True),
    ):
        with pytest.raises(OnlyWrites):
            act()
    assert objects_of(repository) == before


def test_a_record_that_a_stolen_key_claims_to_be_elsewhere_is_found_again_by_repair(repository):
    victim, _ = add_host(repository, OTHER_HOST_KEY, "web2")
    thief, _ = add_host(repository)
    image = make_image()
    theirs = back_up_image(victim, image)
    for name in [name for name in objects_of(repository) if name.startswith("index/")]:
        content = repository.objects.get(INDEX, name)
        forged = tuple(store_spoiled(repository, pack) for pack in content.packs)
        thief.objects.put_new(INDEX, msg_replace(content, packs=forged, created_us=content.created_us + 10**12))
    assert problems(repository)
    repair(repository)
    assert_restores(repository, theirs, image.content)
