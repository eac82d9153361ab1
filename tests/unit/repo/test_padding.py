# SPDX-License-Identifier: Apache-2.0
"""A repository with padding through all that is done with one: nothing is stored there but padded, and all of it restores."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltaimg.api.repositories import create_repository
from deltaimg.crypto.key_slots import KeyFile
from deltaimg.engine.check.run import check
from deltaimg.engine.parity.add import add_parity
from deltaimg.engine.prune.run import prune
from deltaimg.engine.repair.run import repair
from deltaimg.engine.restore.verify import verify
from deltaimg.engine.retention.forget import forget
from deltaimg.errors import Malformed, UsageError
from deltaimg.format.config import CONFIG_NAME, build_config, parse_config
from deltaimg.format.framing import Kind, frame, parse_header
from deltaimg.format.pack import PACKS, scan_records
from deltaimg.format.padding import padded_bytes
from deltaimg.format.record import SEAL_BYTES
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.index import load_index
from deltaimg.repo.key_slots import add_key_slot, open_key_slots
from deltaimg.repo.keys import expect_kind
from deltaimg.repo.repository import Repository
from deltaimg.repo.retention import plan_named
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START, FixedClock
from tests.support.images import edit_at_random, make_mixed_image
from tests.support.repositories import KEY, assert_restores, back_up_image, make_repository
from tests.support.sync import run_sync

HOST_KEY = KeyFile(b"\x31" * 32)
THOROUGH = PruneOptions(max_unused_percent=0.0, trim="full")


@pytest.fixture(autouse=True)
def own_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a host remembers of repositories is of this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def assert_padded(repository: Repository) -> None:
    """All that is sealed has a length that padding gives, and is sound."""
    objects: dict[str, bytes] = repository.objects.store.objects  # type: ignore[attr-defined]
    for name, data in objects.items():
        kind = expect_kind(name)
        if kind.is_sealed:
            assert kind.magic is not None
            assert parse_header(kind.magic, name, data, may_be_sealed=True).is_padded, name
    lengths = set()
    for name in (each for each in objects if each.startswith(PACKS)):
        for _, header in scan_records(name, objects[name]):
            assert header.is_padded
            content_bytes = header.payload_bytes - SEAL_BYTES[header.sealed]
            assert content_bytes == padded_bytes(content_bytes - 1, header.raw_bytes)
            lengths.add(header.payload_bytes)
    assert set(load_index(repository).entries["payload_bytes"].tolist()) <= lengths
    assert not check(repository, read_packs=True).findings
    assert not any(each.damage for each in verify(repository, repository.list_snapshots(), workers=1))


@pytest.mark.parametrize("is_write_only", [False, True])
def test_all_that_is_done_with_a_repository_leaves_it_padded_and_whole(is_write_only: bool):
    repository = writer = make_repository(MemoryStore(f"padded for life {is_write_only}"), KEY, is_padded=True)
    if is_write_only:
        add_key_slot(repository, HOST_KEY, "web1", START, is_write_only=True)
        secret, _ = open_key_slots(repository.objects, repository.config, HOST_KEY)
        writer = Repository(repository.objects.store, repository.config, secret)
    image, clock, contents = make_mixed_image(900_000), FixedClock(), {}
    for _ in range(5):
        manifest = back_up_image(writer, image, clock=clock, delta="best")
        contents[manifest.id] = bytes(image.content)
        clock.advance(days=1)
        edit_at_random(image)
    assert_padded(repository)
    add_parity(repository, 100.0, clock=clock)
    objects: dict[str, bytes] = repository.objects.store.objects  # type: ignore[attr-defined]
    name = min(each for each in objects if each.startswith(PACKS))
    whole, objects[name] = objects[name], objects[name][:200] + bytes(300) + objects[name][500:]
    assert not repair(repository, clock=clock).damage
    assert objects[name] == whole
    gone = repository.list_snapshots()[1:3]
    ids = frozenset(ref.id for ref in gone)
    forget(repository, "vm1", lambda found: plan_named(found, ids, is_forced=True), clock=clock)
    prune(repository, THOROUGH, clock=clock)
    assert_padded(repository)
    copy = make_repository(MemoryStore(f"copy {is_write_only}"), KEY, like=repository, is_padded=True)
    run_sync(repository, copy)
    assert_padded(copy)
    for each in (repository, copy):
        assert len(each.list_snapshots()) == 3
        for ref in each.list_snapshots():
            assert_restores(each, each.load_manifest(ref), contents[ref.id])


def test_an_unpadded_repository_has_the_sizes_that_it_had():
    sealer = make_repository(key=KEY).objects.sealer
    assert sealer is not None
    assert len(sealer.seal_object(frame(Kind.MAP, bytes(1000)))) == 64 + 32 + 1000 + 16


def test_padding_without_encryption_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="only an encrypted repository is padded"):
        create_repository(str(tmp_path / "repo"), is_padded=True)
    assert not (tmp_path / "repo").exists()
    config = make_repository(key=KEY, is_padded=True).config
    assert parse_config(build_config(config)) == config
    bare = frame(Kind.CONFIG, build_config(make_repository().config)[64:].replace(b"{", b'{"padding":"padme",', 1))
    with pytest.raises(Malformed, match=f"^{CONFIG_NAME}: it has padding and is not encrypted"):
        parse_config(bare)
