# SPDX-License-Identifier: Apache-2.0
"""What `parity add` covers, what it makes again, and what it leaves alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from deltaimg.engine.parity.add import add_parity
from deltaimg.engine.parity.plan import PackSize, _cut, largest_group, plan_parity
from deltaimg.engine.parity.protection import survey_parity
from deltaimg.errors import ParityExhausted
from deltaimg.format.deletion import Deletion
from deltaimg.format.framing import HEADER_BYTES
from deltaimg.format.index import INDEXES
from deltaimg.format.pack import pack_name
from deltaimg.format.parity import PARITY
from deltaimg.model import KIB, MIB
from deltaimg.repo.deletions import put_deletion
from deltaimg.repo.object_kinds import INDEX
from deltaimg.repo.parity import load_parity, recover_pack
from deltaimg.repo.repository import Repository
from deltaimg.store.file_port import FilePort
from deltaimg.store.interface import always
from deltaimg.store.local import LocalStore
from tests.support.clock import FixedClock
from tests.support.flips import flip_object
from tests.support.images import edit_at_random, make_mixed_image
from tests.support.parity import list_packs, protect, repository_of_packs, store_packs
from tests.support.repositories import assert_restores, back_up_image, make_repository


def groups_of(repository: Repository) -> list[set[str]]:
    return [set(group.layout.packs) for group in load_parity(repository).groups]


def forget_index(repository: Repository) -> None:
    """Remove all index objects, as a prune does that replaces them."""
    for found in list(repository.objects.store.list(INDEXES)):
        repository.objects.store.delete(found.name)


def test_an_existing_repository_gets_parity_and_a_lost_pack_is_recovered() -> None:
    repository = make_repository()
    image = make_mixed_image(3_000_001, seed=8)
    first = back_up_image(repository, image)
    before = bytes(image.content)
    edit_at_random(image, 9)
    second = back_up_image(repository, image)
    added = protect(repository, 60)
    assert added.packs == len(list_packs(repository))
    assert added.protection.unprotected_packs == 0
    for pack in list_packs(repository):
        content = repository.objects.store.get(pack_name(pack))
        if len(content) * 2 > added.protection.protected_bytes:
            continue  # more than the parity can stand for
        repository.objects.store.delete(pack_name(pack))
        assert recover_pack(repository, pack) == content
        repository.objects.store.put(pack_name(pack), [content])
    assert_restores(repository, first, before)
    assert_restores(repository, second, bytes(image.content))


def test_a_second_run_has_nothing_to_do() -> None:
    repository, store, _ = repository_of_packs([10_000, 20_000], seed=1)
    protect(repository)
    before = dict(store.objects)
    again = protect(repository)
    assert (again.groups, again.read_bytes, again.removed_groups) == (0, 0, 0)
    assert store.objects == before


def test_an_empty_repository_needs_no_parity() -> None:
    repository = make_repository()
    assert protect(repository).groups == 0
    assert survey_parity(repository).groups == ()


def test_backups_of_equal_size_leave_few_groups_and_are_read_a_few_times() -> None:
    repository, _, _ = repository_of_packs([5000], seed=0)
    read_bytes = protect(repository).read_bytes
    for number in range(1, 60):
        store_packs(repository, [5000], seed=number)
        read_bytes += protect(repository).read_bytes
        assert survey_parity(repository).unprotected_packs == 0
        assert len(groups_of(repository)) <= 4
    assert read_bytes < 7 * 60 * 5200


def test_small_new_packs_do_not_cause_a_large_group_to_be_remade() -> None:
    repository, _, packs = repository_of_packs([400_000, 300_000], seed=2)
    protect(repository)
    store_packs(repository, [20_000], seed=3)
    assert protect(repository).packs == 1
    assert set(packs) in groups_of(repository)


def test_more_parity_is_made_where_more_is_asked_for_and_not_less_where_less_is() -> None:
    repository, _, _ = repository_of_packs([100_000] * 4, seed=4)
    protect(repository, 5)
    stronger = protect(repository, 20)
    assert (stronger.groups, stronger.removed_groups) == (1, 1)
    assert protect(repository, 5).groups == 0
    assert survey_parity(repository).parity_bytes >= 0.2 * 400_000


def test_packs_that_prune_deleted_weaken_a_group_until_it_is_remade() -> None:
    repository, _, packs = repository_of_packs([40_000] * 6, seed=5)
    protect(repository, 40)
    strong = survey_parity(repository).groups[0]
    gone, *left = list(packs)
    forget_index(repository)
    repository.objects.store.delete(pack_name(gone))
    _index_again(repository, left)
    weak = survey_parity(repository).groups[0]
    assert weak.gone_packs == 1
    assert weak.survives_packs == strong.survives_packs - 1 >= 1
    # What is left of the group stays recoverable all the while.
    content = repository.objects.store.get(pack_name(left[0]))
    repository.objects.store.delete(pack_name(left[0]))
    assert recover_pack(repository, left[0]) == content
    repository.objects.store.put(pack_name(left[0]), [content])
    renewed = protect(repository, 40)
    assert (renewed.packs, renewed.removed_groups) == (5, 1)
    assert groups_of(repository) == [set(left)]


def test_parity_whose_packs_are_all_gone_is_removed() -> None:
    repository, store, packs = repository_of_packs([10_000, 20_000], seed=6)
    protect(repository)
    forget_index(repository)
    for pack in packs:
        store.delete(pack_name(pack))
    assert protect(repository).removed_groups == 1
    assert not list(store.list(PARITY))


def test_packs_pending_deletion_get_no_parity() -> None:
    repository, _, packs = repository_of_packs([10_000, 20_000, 30_000], seed=7)
    going = next(iter(packs))
    put_deletion(repository, Deletion(id="0" * 16, created="x", packs=(going,)), always)
    protect(repository)
    assert groups_of(repository) == [set(packs) - {going}]


def test_a_group_with_a_lost_pack_stays_whatever_else_happens() -> None:
    repository, store, packs = repository_of_packs([10_000] * 30, seed=8)
    protect(repository, 10)
    lost = next(iter(packs))
    store.delete(pack_name(lost))
    store_packs(repository, [10_000] * 40, seed=9)
    added = protect(repository, 20)
    assert added.protection.lost == (lost,)
    assert recover_pack(repository, lost) == packs[lost]
    store.put(pack_name(lost), [packs[lost]])
    assert protect(repository, 20).protection.lost == ()
    assert all(group.parity_bytes * 5 >= group.pack_bytes for group in survey_parity(repository).groups)


def test_a_damaged_pack_is_left_out_and_its_old_parity_kept() -> None:
    repository, store, packs = repository_of_packs([10_000] * 20, seed=10)
    protect(repository, 10)
    damaged = next(iter(packs))
    flip_object(store, pack_name(damaged), 5000)
    stronger = protect(repository, 30)
    assert stronger.damaged == (damaged,)
    assert stronger.removed_groups == 0
    assert set(packs) - {damaged} in groups_of(repository)
    assert recover_pack(repository, damaged) == packs[damaged]
    again = protect(repository, 30)
    assert (again.groups, again.damaged) == (0, (damaged,))
    store.objects[pack_name(damaged)] = packs[damaged]
    assert protect(repository, 30).damaged == ()
    assert survey_parity(repository).unprotected_packs == 0


def test_a_damaged_pack_without_parity_is_named_and_the_others_are_protected() -> None:
    repository, store, packs = repository_of_packs([10_000] * 5, seed=11)
    damaged = next(iter(packs))
    flip_object(store, pack_name(damaged), 5000)
    assert protect(repository).damaged == (damaged,)
    assert groups_of(repository) == [set(packs) - {damaged}]
    assert recover_pack(repository, damaged) is None


def test_what_an_interrupted_run_left_twice_is_removed() -> None:
    repository, store, packs = repository_of_packs([10_000] * 5, seed=12)
    protect(repository)
    old = {name: data for name, data in store.objects.items() if name.startswith(PARITY)}
    store_packs(repository, [10_000] * 5, seed=13)
    protect(repository)
    store.objects.update(old)
    assert len(groups_of(repository)) == 2
    assert protect(repository).removed_groups == 1
    assert len(groups_of(repository)) == 1
    assert set(packs) < groups_of(repository)[0]


def test_parity_whose_tables_are_lost_twice_is_reported_and_remade() -> None:
    repository, store, packs = repository_of_packs([10_000] * 5, seed=14)
    protect(repository)
    (name,) = (found.name for found in store.list(PARITY))
    flip_object(store, name, 70)
    assert survey_parity(repository).damage == ()
    flip_object(store, name, len(store.objects[name]) - 1)
    survey = survey_parity(repository)
    assert [name in str(error) for error in survey.damage] == [True]
    assert survey.protected_packs == 0
    assert protect(repository).packs == len(packs)


def test_parity_that_cannot_be_read_any_more_is_no_more_than_exhausted() -> None:
    repository, store, packs = repository_of_packs([10_000] * 5, seed=14)
    protect(repository)
    parity = load_parity(repository)
    store.objects[parity.groups[0].name] = b"something else"
    with pytest.raises(ParityExhausted, match="its parity cannot be read"):
        recover_pack(repository, next(iter(packs)), parity)
    assert recover_pack(repository, "0" * 64, parity) is None


@pytest.mark.parametrize("place", ["front", "planes", "twin", "trailer", "end"])
def test_damage_of_parity_is_found_where_it_is_looked_for_and_repaired(place: str) -> None:
    repository, store, _ = repository_of_packs([10_000] * 5, seed=19)
    protect(repository)
    (group,) = load_parity(repository, is_thorough=True).groups
    assert group.damaged_parts == 0
    whole = store.objects[group.name]
    planes = group.layout.planes_offset
    if place == "end":
        store.objects[group.name] = whole[:-1]
    else:
        flip_object(store, group.name, {"front": 90, "planes": planes, "twin": -40, "trailer": -1}[place])
    assert load_parity(repository, is_thorough=True).groups[0].damaged_parts == 1
    assert survey_parity(repository).groups[0].damaged_parts == 0
    assert protect(repository).groups == 0
    add_parity(repository, 5.0, clock=FixedClock(), is_thorough=True)
    (renewed,) = load_parity(repository, is_thorough=True).groups
    assert renewed.damaged_parts == 0
    assert renewed.name != group.name
    assert store.objects[renewed.name][HEADER_BYTES:planes] == whole[HEADER_BYTES:planes]


def test_packs_that_no_index_names_count_only_where_the_index_is_damaged() -> None:
    repository, store, packs = repository_of_packs([10_000, 20_000], seed=15)
    (index,) = (found.name for found in store.list(INDEXES))
    whole = store.objects.pop(index)
    assert protect(repository).groups == 0
    store.objects[index] = whole[:-1]
    assert protect(repository).packs == len(packs)


def test_more_loss_than_parity_says_so() -> None:
    repository, store, packs = repository_of_packs([100_000] * 3, seed=16)
    protect(repository)
    for pack in packs:
        store.delete(pack_name(pack))
    for pack in packs:
        with pytest.raises(ParityExhausted, match=r"shards of one stripe are lost, and parity/\w+ can recover"):
            recover_pack(repository, pack)


class BadSectors(FilePort):
    """A disk that cannot read some sectors of a file."""

    def __init__(self, path: str, start: int, end: int) -> None:
        self._path, self._start, self._end = path, start, end

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        size = os.stat(path).st_size if path == self._path else 0
        end = size if length is None else offset + length
        if path == self._path and offset < self._end and end > self._start:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return super().read(path, offset, length)


def test_sectors_that_cannot_be_read_are_recovered(tmp_path: Path) -> None:
    repository = make_repository(LocalStore(str(tmp_path / "repo")))
    packs = store_packs(repository, [90_000] * 3, seed=17)
    protect(repository, 10)
    contents = {pack: repository.objects.store.get(pack_name(pack)) for pack in packs}
    path = str(tmp_path / "repo" / pack_name(packs[1]))
    store = LocalStore(str(tmp_path / "repo"), BadSectors(path, 20_000, 24_096))
    broken = Repository(store, repository.config)
    assert recover_pack(broken, packs[1]) == contents[packs[1]]
    store_packs(repository, [90_000] * 20, seed=18)
    assert protect(broken, 20).damaged == (packs[1],)


def test_the_plan_cuts_groups_evenly_and_none_too_large() -> None:
    packs = [PackSize(f"{number:064x}", 33 * MIB) for number in range(200)]
    groups = list(_cut(packs, largest_group(5)))
    assert [pack for group in groups for pack in group] == packs
    sizes = [sum(pack.size_bytes for pack in group) for group in groups]
    assert max(sizes) <= largest_group(5)
    assert max(sizes) - min(sizes) <= 66 * MIB


def test_a_full_group_survives_three_packs_of_the_usual_size() -> None:
    pack_bytes = 32 * MIB + 600 * KIB
    needed = {f"{number:064x}": pack_bytes for number in range(78)}
    (group,) = plan_parity(needed, [], 5).groups
    assert _survived_packs(group) == 3


def _survived_packs(group: tuple[PackSize, ...]) -> int:
    from deltaimg.engine.parity.plan import choose_shape

    shape = choose_shape([pack.size_bytes for pack in group], 5)
    longest = max(-(-pack.size_bytes // shape.shard_bytes) for pack in group)
    return shape.parity_columns // -(-longest // shape.stripe_count)


def _index_again(repository: Repository, packs: list[str]) -> None:
    """Write an index that names `packs` only."""
    import numpy as np

    from deltaimg.format.index import ENTRY, IndexObject, no_links

    repository.objects.put_new(INDEX, IndexObject(1, tuple(packs), (), np.empty(0, ENTRY), no_links(0)))
