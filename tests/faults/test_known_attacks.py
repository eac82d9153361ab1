# SPDX-License-Identifier: Apache-2.0
"""Attacks on other backup programs, each tried here; more of the kind is in `test_sealed_damage.py`."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.restore.run import restore
from deltaimg.errors import DeltaimgError, PaddingMissing, SealBroken
from deltaimg.format.config import CONFIG_NAME, build_config
from deltaimg.format.map import MAPS
from deltaimg.format.pack import PACKS
from deltaimg.format.padding import padded_bytes
from deltaimg.kernels import digest_blocks
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository, SnapshotRef
from deltaimg.store.memory import MemoryStore
from tests.support.clock import FixedClock
from tests.support.images import SyntheticImage
from tests.support.repositories import KEY, assert_restores, back_up_image, make_repository, open_again


def make_image(text: bytes = b"content", size_bytes: int = 200_000) -> SyntheticImage:
    image = SyntheticImage(size_bytes, seed=3)
    image.write(4096, text * 300)
    return image


def objects_of(repository: Repository) -> dict[str, bytes]:
    return repository.objects.store.objects  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("key", [KEY, None], ids=["of another repository", "not sealed"])
def test_whoever_can_write_to_the_store_adds_no_snapshot(key, tmp_path: Path):
    """CVE-2023-36811 of borg: archives were taken whose tag had not been made with the repository's key."""
    repository, image = make_repository(MemoryStore(f"attacked {key is None}"), key=KEY), make_image()
    manifest = back_up_image(repository, image)
    other = make_repository(key=key)
    spoofed = back_up_image(other, make_image(b"evil"), clock=FixedClock())
    for name, data in objects_of(other).items():
        if not name.startswith(("config", "keys/", "locks/", "reserve")):
            objects_of(repository)[name] = data
    with pytest.raises(SealBroken):
        restore(repository, repository.load_manifest(SnapshotRef.of(spoofed)), str(tmp_path / "restored"), workers=1)
    assert any(each.object_name == spoofed.object_name for each in check(repository).of(Severity.ERROR))
    assert_restores(repository, manifest, image.content)


def test_the_list_of_snapshots_cannot_be_made_up(tmp_path: Path):
    """CVE-2016-10099 of borg: a manifest of other archives, or of none, was taken for the repository's."""
    repository = make_repository(MemoryStore("listed"), key=KEY)
    image, clock = make_image(), FixedClock()
    first = back_up_image(repository, image, clock=clock)
    clock.advance(hours=1)
    image.write(0, b"later")
    second = back_up_image(repository, image, clock=clock)
    objects_of(repository)[second.object_name] = objects_of(repository)[first.object_name]
    with pytest.raises(DeltaimgError, match="it belongs at"):
        repository.load_manifest(SnapshotRef.of(second))
    del objects_of(repository)[second.object_name]
    assert any(second.id[:8] in each.problem for each in check(repository).of(Severity.ERROR))


def test_no_guest_can_prepare_blocks_that_a_repository_takes_for_equal():
    """CVE-2014-8242 of librsync: truncated digests without a key, for which a guest finds collisions beforehand."""
    blocks = np.frombuffer(os.urandom(64 * 4096), np.uint8)
    found = []
    for _ in range(2):
        repository = make_repository(key=KEY)
        found.append({row.tobytes() for row in digest_blocks(repository.keys.block, blocks.data, 4096)})
        image = make_image()
        back_up_image(repository, image)
        found.append({row.tobytes() for row in load_index(repository).entries["id"]})
    assert len(set().union(*found)) == sum(len(each) for each in found)


def test_a_link_in_the_place_of_a_target_is_not_followed(tmp_path: Path):
    """As in duplicacy until 2026: a restore wrote through a link that someone had put in its place."""
    repository, image = make_repository(), make_image()
    manifest = back_up_image(repository, image)
    precious = tmp_path / "precious"
    precious.write_bytes(b"not to be overwritten")
    (tmp_path / "restored").symlink_to(precious)
    with pytest.raises(DeltaimgError):
        restore(repository, manifest, str(tmp_path / "restored"), workers=1)
    assert precious.read_bytes() == b"not to be overwritten"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DeltaimgError):
        restore(repository, manifest, str(tmp_path / "dangling"), workers=1)
    assert not (tmp_path / "nowhere").exists()


def test_sizes_do_not_show_where_content_has_been_cut():
    """Sizes of content-defined chunks are a fingerprint of content (eprint 2025/558); blocks are cut by their offset."""
    sizes = []
    for number in range(2):
        repository, image = make_repository(key=KEY), SyntheticImage(3 << 20, seed=number)
        image.write_random(0, 2 << 20)
        back_up_image(repository, image)
        sizes.append(
            sorted(len(data) for name, data in objects_of(repository).items() if name.startswith((PACKS, MAPS)))
        )
        entries = load_index(repository).entries
        assert len(set(entries["slots"][:-1].tolist())) == 1
    assert sizes[0] == sizes[1]


def lengths_of(repository: Repository) -> list[tuple[str, int]]:
    """Return what whoever lists a store sees of it, names that are random left out, and what headers of records say."""
    sizes = sorted((name.partition("/")[0], len(data)) for name, data in objects_of(repository).items())
    return sizes + sorted(("record", int(each)) for each in load_index(repository).entries["payload_bytes"])


@pytest.mark.parametrize("is_padded", [False, True])
def test_with_padding_content_that_compresses_a_little_better_looks_the_same(is_padded):
    """Sizes of what is compressed are a fingerprint, wherever it is cut: records of one Padmé class have one length."""
    found = []
    for number in range(3):
        repository = make_repository(MemoryStore(f"padded {is_padded} {number}"), KEY, is_padded=is_padded)
        image = SyntheticImage(1 << 20, seed=7)
        for block in range(0, 1 << 20, 4096):
            image.write_random(block, 2048 + 5 * number)  # what is not written is zeroes, which compress to nothing
        manifest = back_up_image(repository, image, comment="x" * (100 + number))
        assert_restores(repository, manifest, image.content)
        assert not check(repository).of(Severity.ERROR)
        found.append(lengths_of(repository))
    assert (found[0] == found[1] == found[2]) == is_padded


def test_whoever_takes_padding_out_of_config_gets_no_backup_without_it():
    repository, image = make_repository(MemoryStore("unpadded"), KEY, is_padded=True), make_image()
    manifest = back_up_image(repository, image)
    data = objects_of(repository)[CONFIG_NAME]
    objects_of(repository)[CONFIG_NAME] = build_config(msgspec.structs.replace(repository.config, padding=None))
    exchanged, before = open_again(repository.objects.store), set(objects_of(repository))
    image.write(0, b"changed")
    with pytest.raises(PaddingMissing, match=r"^rosters/vm1/00000001: is padded, and 'config' says"):
        back_up_image(exchanged, image)
    assert {name for name in set(objects_of(repository)) - before if not name.startswith("locks/")} == set()
    objects_of(repository)[CONFIG_NAME] = data
    assert_restores(open_again(repository.objects.store), manifest, make_image().content)


def test_what_was_stored_without_padding_is_read_where_there_is_padding_now():
    repository, image = make_repository(MemoryStore("mixed"), KEY), make_image()
    first, clock, before = back_up_image(repository, image, clock=FixedClock()), FixedClock(), bytes(image.content)
    objects_of(repository)[CONFIG_NAME] = build_config(msgspec.structs.replace(repository.config, padding="padme"))
    padding = open_again(repository.objects.store)
    clock.advance(hours=1)
    image.write(0, b"changed")
    second = back_up_image(padding, image, clock=clock)
    assert_restores(padding, first, before)
    assert_restores(padding, second, image.content)
    entries = load_index(padding).entries
    assert padded_bytes(int(entries["payload_bytes"][-1]) - 52 - 1, 1 << 24) == int(entries["payload_bytes"][-1]) - 52
