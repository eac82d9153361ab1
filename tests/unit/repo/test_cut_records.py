# SPDX-License-Identifier: Apache-2.0
"""Records that have lost slots which nobody needs: what is there is read, what is not is neither used nor invented."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from deltaimg.engine.check.findings import Severity
from deltaimg.engine.check.run import check
from deltaimg.engine.content.snapshot import SnapshotContent
from deltaimg.engine.repair.run import repair
from deltaimg.errors import IntegrityError
from deltaimg.format.cut_entries import no_cuts
from deltaimg.format.index import INDEXES, parse_index
from deltaimg.format.manifest import Manifest
from deltaimg.format.pack import pack_name
from deltaimg.format.signature import SIGNATURES
from deltaimg.repo.index import load_index
from deltaimg.repo.object_kinds import INDEX
from deltaimg.repo.repository import Repository
from tests.support.clock import FixedClock
from tests.support.cutting import remove_index_objects, store_cut
from tests.support.images import PAGE, SyntheticImage, make_incompressible_image
from tests.support.repositories import assert_restores, back_up_image, make_repository
from tests.support.retention import keep_only, list_manifests

PAGES = 128
"""One record."""
GONE = range(40, 90)
KEPT = [page for page in range(PAGES) if page not in GONE]


def overwrite(image: SyntheticImage, pages: range) -> None:
    image.write_random(pages.start * PAGE, len(pages) * PAGE)


def make_scene() -> tuple[Repository, SyntheticImage, Manifest, SyntheticImage]:
    """Return a repository of one snapshot, its image and manifest, and the image of a snapshot that was forgotten.

    The snapshot needs the first record without the pages GONE, and that record was cut.
    """
    repository, image, clock = make_repository(), make_incompressible_image(PAGES * PAGE, seed=1), FixedClock()
    back_up_image(repository, image, clock=clock)
    before = image.copy()
    overwrite(image, GONE)
    kept = back_up_image(repository, image, clock=clock, delta="none")
    keep_only(repository, [kept.id])
    (kept,) = list_manifests(repository)
    old = load_index(repository)
    store_cut(repository, {entry: KEPT if slots == PAGES else range(slots) for entry, slots in enumerate(sizes(old))})
    remove_index_objects(repository, old)
    return repository, image, kept, before


def sizes(index: object) -> list[int]:
    return index.entries["slots"].tolist()  # type: ignore[attr-defined]


def test_a_snapshot_that_needs_what_is_left_restores() -> None:
    repository, image, kept, _ = make_scene()
    index = load_index(repository)
    assert sorted(index.cuts.count(np.arange(len(index))).tolist()) == sorted([len(KEPT), len(GONE)])
    assert_restores(repository, kept, bytes(image.content))
    assert not check(repository, read_packs=True).of(Severity.ERROR)


def test_a_map_that_needs_what_is_gone_is_refused_by_name() -> None:
    repository, _, kept, _ = make_scene()
    index = load_index(repository)
    store_cut(
        repository, {entry: KEPT[1:] if slots == PAGES else range(slots) for entry, slots in enumerate(sizes(index))}
    )
    remove_index_objects(repository, index)
    with pytest.raises(
        IntegrityError,
        match=f"({'|'.join(kept.maps)}): needs block 0 of record [0-9a-f]{{16}}, which no copy of it has",
    ):
        SnapshotContent(repository, kept, load_index(repository))


def test_what_is_gone_is_stored_again_by_the_next_backup_that_meets_it() -> None:
    repository, image, kept, before = make_scene()
    again = back_up_image(repository, before, "other")
    assert again.statistics.new_bytes == len(GONE) * PAGE
    assert again.statistics.referenced_bytes == len(KEPT) * PAGE
    assert_restores(repository, again, bytes(before.content))
    assert_restores(repository, kept, bytes(image.content))


def test_a_few_changed_blocks_are_not_found_in_what_is_gone() -> None:
    repository, image, _, before = make_scene()
    image.write(GONE.start * PAGE, bytes(before.content[GONE.start * PAGE : (GONE.start + 2) * PAGE]))
    image.write(0, bytes(before.content[PAGE : 2 * PAGE]))
    manifest = back_up_image(repository, image)
    assert (manifest.statistics.new_bytes, manifest.statistics.referenced_bytes) == (2 * PAGE, PAGE)
    assert_restores(repository, manifest, bytes(image.content))


def test_what_is_gone_is_no_delta_source(tmp_path) -> None:
    """The anchors of this host still know the record as it was."""
    repository, clock = make_repository(), FixedClock()
    image = make_incompressible_image(PAGES * PAGE, seed=3)
    options = {"clock": clock, "cache_folder": str(tmp_path), "match_budget_bytes": 1 << 20}
    back_up_image(repository, image, **options)
    before = image.copy()
    overwrite(image, GONE)
    kept = back_up_image(repository, image, delta="none", **options)
    keep_only(repository, [kept.id])
    old = load_index(repository)
    store_cut(repository, {entry: KEPT if slots == PAGES else range(slots) for entry, slots in enumerate(sizes(old))})
    remove_index_objects(repository, old)
    for page in range(PAGES):
        before.write(page * PAGE + 100, b"edited")
    manifest = back_up_image(repository, before, **options)
    index = load_index(repository)
    assert index.links.counts.any()
    assert (index.links.depths >= 0).all()
    assert_restores(repository, manifest, bytes(before.content))


def test_copies_with_different_slots_are_used_side_by_side() -> None:
    """As two prunes that did not know of the same snapshots may leave them."""
    repository, image = make_repository(), make_incompressible_image(PAGES * PAGE, seed=2)
    manifest = back_up_image(repository, image)
    old = load_index(repository)
    store_cut(repository, {0: range(70)})
    store_cut(repository, {0: range(65, PAGES)})
    assert_restores(repository, manifest, bytes(image.content))
    remove_index_objects(repository, old)
    assert len(load_index(repository)) == 2
    assert_restores(repository, manifest, bytes(image.content))
    again = back_up_image(repository, image)
    assert again.statistics.changed_bytes == 0


def test_parts_that_are_there_are_read_rather_than_a_whole_copy_that_is_gone() -> None:
    """As after a prune that was frozen, and indexed a pack that another had deleted meanwhile."""
    repository, image = make_repository(), make_incompressible_image(PAGES * PAGE, seed=2)
    manifest = back_up_image(repository, image)
    (whole,) = load_index(repository).packs
    store_cut(repository, {0: range(70)})
    store_cut(repository, {0: range(65, PAGES)})
    repository.objects.delete(pack_name(whole))
    assert_restores(repository, manifest, bytes(image.content))
    again = back_up_image(repository, image)
    assert again.statistics.changed_bytes == 0


def test_digests_and_index_are_made_again_from_packs() -> None:
    repository, image, kept, _ = make_scene()
    for folder in (INDEXES, SIGNATURES):
        for found in list(repository.objects.store.list(folder)):
            repository.objects.store.delete(found.name)
    assert check(repository).of(Severity.ERROR)
    report = repair(repository, clock=FixedClock())
    assert not report.damage
    assert not check(repository, read_packs=True).of(Severity.ERROR)
    index = load_index(repository)
    assert sorted(index.cuts.count(np.arange(len(index))).tolist()) == sorted([len(KEPT), len(GONE)])
    assert_restores(repository, kept, bytes(image.content))


def test_an_index_that_names_other_slots_than_its_pack_is_detected() -> None:
    repository, _, _, _ = make_scene()
    (name,) = (found.name for found in repository.objects.store.list(INDEXES))
    content = parse_index(repository.objects.store.get(name), name)
    repository.objects.store.delete(name)
    repository.objects.put_new(INDEX, replace(content, cuts=no_cuts()))
    found = check(repository).of(Severity.ERROR)
    assert any("do not lie in packs/" in finding.problem for finding in found)


def test_a_snapshot_that_needs_what_is_gone_is_an_error_to_check() -> None:
    repository, _, kept, _ = make_scene()
    index = load_index(repository)
    store_cut(
        repository, {entry: KEPT[1:] if slots == PAGES else range(slots) for entry, slots in enumerate(sizes(index))}
    )
    remove_index_objects(repository, index)
    found = check(repository).of(Severity.ERROR)[0]
    assert found.object_name == f"maps/{kept.maps[0]}"
    assert found.problem.endswith("needs 1 record of which no copy has all blocks that it needs")


def test_a_delta_whose_sources_were_cut_away_is_an_error_to_check_and_to_readers() -> None:
    repository, image, clock = make_repository(), make_incompressible_image(PAGES * PAGE, seed=4), FixedClock()
    first = back_up_image(repository, image, clock=clock)
    for page in range(10):
        image.write(page * PAGE + 100, b"edited")
    delta = back_up_image(repository, image, clock=clock, delta="zstd")
    assert load_index(repository).links.counts.any()
    keep_only(repository, [delta.id])
    index = load_index(repository)
    (literal,) = np.flatnonzero(index.links.counts == 0).tolist()
    store_cut(repository, {literal: range(10, PAGES)})
    assert not check(repository).of(Severity.ERROR)
    assert_restores(repository, delta, bytes(image.content))  # the whole copy is there still
    repository.objects.store.delete(INDEXES + index.names[int(index.object_of[literal])])
    problems = [each.problem for each in check(repository).of(Severity.ERROR)]
    assert "1 record of it need sources that no index has" in problems
    with pytest.raises(IntegrityError, match="needs sources that the index does not have"):
        SnapshotContent(repository, delta, load_index(repository))
    assert first.id != delta.id
