# SPDX-License-Identifier: Apache-2.0
"""What every store promises. A new kind of store is added to the `store` fixture and has to pass all of this."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deltaimg.errors import ObjectExists, ObjectNotFound, StoreError
from deltaimg.options.bandwidth import parse_bandwidth
from deltaimg.options.store import StoreOptions
from deltaimg.store.compose import compose_store
from deltaimg.store.interface import Store
from deltaimg.store.local import LocalStore
from deltaimg.store.memory import MemoryStore
from deltaimg.store.open import open_store
from deltaimg.store.planned import PlannedStore
from deltaimg.store.wrapped import WrappedStore
from tests.support.s3_servers import S3Server
from tests.support.sshd import SshServer, ssh_server

IMPOSSIBLE_NAMES = [
    "",
    "..",
    "../outside",
    "packs/../../outside",
    "packs/./a",
    "/etc/passwd",
    "packs//a",
    "packs/",
    "a\0b",
]


_LIMITS = StoreOptions(bandwidth=parse_bandwidth("1G"), max_requests=100_000)


@pytest.fixture(
    params=[
        "memory",
        "local",
        "planned",
        "wrapped",
        "composed",
        "s3",
        "s3 at a pace",
        "s3 behind a cache",
        "rclone",
        "sftp",
        "sftp behind a cache",
        "sftp without extensions",
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each kind of store in turn, empty."""
    if request.param in ("s3", "rclone"):
        server: S3Server = request.getfixturevalue("s3_server" if request.param == "s3" else "rclone_server")
        yield open_store(server.make_place())
    elif request.param == "s3 at a pace":
        paced: S3Server = request.getfixturevalue("s3_server")
        yield compose_store(paced.make_place(), _LIMITS, writer=lambda: "")
    elif request.param.endswith(" behind a cache"):
        if request.param.startswith("s3"):
            place = request.getfixturevalue("s3_server").make_place()
        else:
            place = request.getfixturevalue("sshd").url(tmp_path / "repository")
        cached = compose_store(place, None, writer=lambda: "", cache_folder=str(tmp_path / "cache"))
        yield cached
        cached.close()
    elif request.param == "planned":
        planned = PlannedStore(LocalStore(str(tmp_path / "repository")))
        yield planned
        planned.close()
        assert not (tmp_path / "repository").exists(), "a plan changes nothing"
    elif request.param == "wrapped":
        yield WrappedStore(MemoryStore())
    elif request.param == "composed":
        yield compose_store(str(tmp_path / "repository"), _LIMITS, writer=lambda: "")
    elif request.param.startswith("sftp"):
        server = request.getfixturevalue("sshd" if request.param == "sftp" else "plain_sshd")
        remote = open_store(server.url(tmp_path / "repository"))
        yield remote
        remote.close()
    else:
        yield MemoryStore() if request.param == "memory" else LocalStore(str(tmp_path / "repository"))


@pytest.fixture(scope="module")
def shared_plain_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A server that has no extension but the one that a store cannot do without."""
    with ssh_server(
        tmp_path_factory.mktemp("plain-sshd"), subsystem="internal-sftp -P hardlink,fsync,statvfs,limits"
    ) as server:
        yield server


@pytest.fixture
def plain_sshd(shared_plain_sshd: SshServer) -> Iterator[SshServer]:
    with shared_plain_sshd.reached():
        yield shared_plain_sshd


@pytest.fixture
def exclusive(request: pytest.FixtureRequest, store: Store) -> Store:
    """Each kind of store but the one of which it is known that it overwrites: `store_trial` finds that out."""
    liars = {"rclone", "s3"} if request.config.getoption("--s3-server") == "juicefs" else {"rclone"}
    if (kind := request.node.callspec.params["store"]) in liars:
        pytest.skip(f"{kind} ignores the condition that an object must not exist")
    return store


def test_a_store_says_what_holds_for_it(store: Store) -> None:
    told = store.properties
    assert told.parallel_requests >= 1
    assert told.read_bytes >= 4096
    assert told.folder is None or not told.is_remote


def names(store: Store, prefix: str = "") -> list[str]:
    return [found.name for found in store.list(prefix)]


def test_what_was_put_is_got_back(store: Store) -> None:
    assert store.put("maps/one", [b"hello ", memoryview(b"world"), b""]) == 11
    assert store.get("maps/one") == b"hello world"
    assert store.put("empty", []) == 0
    assert store.get("empty") == b""


def test_an_object_of_many_parts_is_whole(store: Store) -> None:
    parts = [bytes([number % 256]) * (number % 7) for number in range(5000)]
    store.put("packs/ab/many", parts)
    assert store.get("packs/ab/many") == b"".join(parts)


def test_a_range_is_short_only_at_the_end(store: Store) -> None:
    store.put("packs/ab/one", [b"0123456789"])
    assert store.get_range("packs/ab/one", 3, 4) == b"3456"
    assert store.get_range("packs/ab/one", 8, 40) == b"89"
    assert store.get_range("packs/ab/one", 10, 1) == b""
    assert store.get_range("packs/ab/one", 50, 1) == b""


def test_a_pack_is_the_same_however_often_its_ranges_are_read(store: Store) -> None:
    """What a cache on this host may keep has such a name."""
    name, data = "packs/ab/" + "ab" * 32, random.Random(1).randbytes(150_000)
    for _ in range(2):
        assert store.put(name, [data[:9], memoryview(data)[9:]]) == len(data)
        for _ in range(2):
            for start, length in ((5, 1000), (0, 200_000), (149_000, 5000), (16_384, 16_384), (150_000, 1), (0, 0)):
                assert store.get_range(name, start, length) == data[start : start + length]
            assert store.get(name) == data
        assert names(store) == [name]
        store.delete(name)
        with pytest.raises(ObjectNotFound):
            store.get_range(name, 0, 1)
        data = data[::-1]


def test_a_missing_object_is_named(store: Store) -> None:
    for read in (store.get, lambda name: store.get_range(name, 0, 1)):
        with pytest.raises(ObjectNotFound, match=r"maps/none: is missing") as caught:
            read("maps/none")
        assert caught.value.object_name == "maps/none"


def test_an_object_is_never_overwritten(exclusive: Store) -> None:
    exclusive.put("config", [b"old"])
    with pytest.raises(ObjectExists, match=r"config"):
        exclusive.put("config", [b"newer"])
    assert exclusive.get("config") == b"old"
    assert names(exclusive) == ["config"]


def test_a_listing_is_in_order_of_name(store: Store) -> None:
    """Folders and names that begin alike, `vm` and `vm-2`, came in another order from a local store than from others."""
    wanted = ["snapshots/vm-2/b", "snapshots/vm/a", "snapshots/vm/c", "snapshots/vm0", "snapshots/w"]
    for name in reversed(wanted):
        store.put(name, [name.encode()])
    store.put("snapshot", [b""])
    assert names(store, "snapshots/") == sorted(wanted)
    assert names(store, "snapshots/vm/") == ["snapshots/vm/a", "snapshots/vm/c"]
    assert names(store) == sorted([*wanted, "snapshot"])
    assert [found.size_bytes for found in store.list("snapshots/")] == [len(name) for name in sorted(wanted)]


def test_listing_what_is_not_there_yields_nothing(store: Store) -> None:
    assert names(store) == []
    assert names(store, "packs/") == []


def test_deleting_removes_one_object_and_forgives_none(store: Store) -> None:
    store.put("locks/vm1", [b"1"])
    store.put("locks/vm2", [b"2"])
    store.delete("locks/vm1")
    store.delete("locks/vm1")
    store.delete("never/was")
    assert names(store) == ["locks/vm2"]
    store.put("locks/vm1", [b"3"])
    assert store.get("locks/vm1") == b"3"


def test_many_are_deleted_and_those_that_are_not_there_forgiven(store: Store) -> None:
    kept = [f"maps/{number:03}" for number in range(0, 20, 3)]
    gone = [f"maps/{number:03}" for number in range(20) if number % 3]
    for name in (*kept, *gone):
        store.put(name, [name.encode()])
    assert store.delete_many([*gone, "maps/never-was", "packs/ab/none"]) == {}
    assert names(store) == kept
    assert store.delete_many([]) == {}


def test_what_cannot_be_deleted_is_told_and_the_rest_is_deleted(store: Store) -> None:
    store.put("maps/one", [b"1"])
    assert list(store.delete_many(["maps/../one", "maps/one"])) == ["maps/../one"]
    assert names(store) == []


def test_a_replaced_object_is_the_new_one_whole(store: Store) -> None:
    assert store.replace("snapshots/vm/a", [b"first"]) == 5
    assert store.replace("snapshots/vm/a", [b"se", b"cond"]) == 6
    assert store.get("snapshots/vm/a") == b"second"
    assert names(store) == ["snapshots/vm/a"]


def test_whoever_reads_while_an_object_is_replaced_gets_one_or_the_other(store: Store) -> None:
    versions = [bytes([seed]) * 20_000 for seed in range(2)]
    store.replace("snapshots/a", [versions[0]])
    is_done = threading.Event()

    def keep_replacing() -> None:
        for turn in range(60):
            store.replace("snapshots/a", [versions[turn % 2]])
        is_done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(keep_replacing)
        while not is_done.is_set() and not writing.done():
            assert store.get("snapshots/a") in versions
        writing.result()


def test_a_moved_object_has_its_new_name_only(store: Store) -> None:
    store.put("packs/ab/one", [b"1"])
    store.move("packs/ab/one", "quarantine/packs/ab/one")
    assert names(store) == ["quarantine/packs/ab/one"]
    assert store.get("quarantine/packs/ab/one") == b"1"
    with pytest.raises(ObjectNotFound):
        store.move("packs/ab/one", "elsewhere")


def test_moving_overwrites_nothing(store: Store) -> None:
    store.put("a", [b"1"])
    store.put("b", [b"2"])
    with pytest.raises(ObjectExists):
        store.move("a", "b")
    assert (store.get("a"), store.get("b")) == (b"1", b"2")


@pytest.mark.parametrize("name", IMPOSSIBLE_NAMES)
def test_a_name_that_leads_elsewhere_is_refused(store: Store, name: str) -> None:
    for act in (
        store.get,
        store.delete,
        lambda name: store.put(name, [b"x"]),
        lambda name: store.replace(name, [b"x"]),
        lambda name: store.move(name, "elsewhere"),
        lambda name: store.get_range(name, 0, 1),
    ):
        with pytest.raises(StoreError, match=r"is no possible object name"):
            act(name)
    assert names(store) == []


@pytest.mark.parametrize("prefix", ["../", "snapshots/../../", "snapshots/\0/"])
def test_a_listing_does_not_lead_elsewhere(store: Store, prefix: str) -> None:
    """The name of an image goes into a prefix; `..` in it listed what lies beside the repository."""
    store.put("config", [b""])
    with pytest.raises(StoreError, match=r"is no possible object name"):
        names(store, prefix)


def test_of_twelve_racing_puts_one_wins(exclusive: Store) -> None:
    # A server may take seconds for twelve writers of one name.
    for turn in range(1 if exclusive.properties.is_remote else 10):
        start = threading.Barrier(12)

        def put(number: int, turn: int = turn, start: threading.Barrier = start) -> int | None:
            start.wait()
            try:
                exclusive.put(f"locks/{turn}", [bytes([number]) * 1000])
            except ObjectExists:
                return None
            return number

        with ThreadPoolExecutor(12) as pool:
            winners = [number for number in pool.map(put, range(12)) if number is not None]
        assert len(winners) == 1
        assert exclusive.get(f"locks/{turn}") == bytes(winners) * 1000


def test_racing_puts_of_equal_bytes_have_one_winner_too(exclusive: Store) -> None:
    data = b"the very same object"

    def put(_: int) -> bool:
        try:
            exclusive.put("maps/same", [data])
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(put, range(12))) == 1


def test_puts_of_many_threads_do_not_mix(store: Store) -> None:
    def put(number: int) -> None:
        store.put(f"packs/{number % 4:02x}/{number}", [b"%d" % number] * 100)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(put, range(48)))
    for number in range(48):
        assert store.get(f"packs/{number % 4:02x}/{number}") == b"%d" % number * 100
