# SPDX-License-Identifier: Apache-2.0
"""Families of repositories: one key of digests, and nothing else in common."""

from __future__ import annotations

import msgspec
import pytest

from deltaimg.errors import FamilyConflict
from deltaimg.format.config import Config
from deltaimg.repo.creation import create_repository
from deltaimg.repo.family import is_same_family
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.clock import START
from tests.support.images import make_mixed_image
from tests.support.repositories import assert_restores, back_up_image, make_repository


def make_like(other: Repository) -> Repository:
    return create_repository(MemoryStore("second"), created=START, software="tests", like=other)


def change(repository: Repository, **fields: object) -> Repository:
    return Repository(repository.objects.store, msgspec.structs.replace(repository.config, **fields))


def test_a_member_of_a_family_has_its_keys_and_an_id_of_its_own():
    first = make_repository()
    second = make_like(first)
    third = make_like(second)
    assert first.keys == second.keys == third.keys
    assert len({each.config.repository_id for each in (first, second, third)}) == 3
    assert {each.config.family_id for each in (first, second, third)} == {first.config.repository_id}
    assert is_same_family(first, third)
    assert is_same_family(third, second)


def test_what_is_stored_in_one_is_valid_in_another():
    first, image = make_repository(), make_mixed_image(600_000)
    manifest = back_up_image(first, image)
    second = make_like(first)
    for name, data in first.objects.store.objects.items():
        if name.startswith(("packs/", "index/", "signatures/", "maps/", "snapshots/")):
            second.objects.put_bytes(name, [data])
    assert_restores(Repository.open(second.objects.store), manifest, image.content)


def test_repositories_of_two_inits_are_of_different_families():
    assert not is_same_family(make_repository(), make_repository())


@pytest.mark.parametrize("field", ["repository_id", "family"])
def test_one_id_with_two_keys_is_an_error_that_names_both(field):
    first, other = make_repository(MemoryStore("here")), make_repository(MemoryStore("there"))
    fake = change(other, **{field: first.config.repository_id})
    with pytest.raises(FamilyConflict, match=f"here and there have the .* {first.config.repository_id[:8]} in common"):
        is_same_family(first, fake)


def test_the_config_of_the_first_of_a_family_is_written_without_the_field():
    first = make_repository()
    assert b"family" not in first.objects.get_bytes("config")
    found = Repository.open(make_like(first).objects.store).config
    assert isinstance(found, Config)
    assert found.family == first.config.repository_id
