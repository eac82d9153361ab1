# SPDX-License-Identifier: Apache-2.0
"""Which names are those of a repository's objects: all that is written is, and nothing else."""

from __future__ import annotations

import pytest

from deltaimg.engine.backup.run import back_up
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.keys import find_kind, has_folder, is_named_by_digest
from tests.golden.kinds import KINDS
from tests.support.clock import FixedClock
from tests.support.images import SyntheticSource, make_mixed_image
from tests.support.repositories import make_repository

DIGEST = "ab" * 32
SNAPSHOT = "20261123T020304.000005Z-0123456789abcdef"
OURS = [
    "annotations/vm1/0123456789abcdef-00000001",
    "rosters/vm1/00000001",
    "config",
    "verified",
    f"packs/ab/{DIGEST}",
    f"index/{DIGEST}",
    f"maps/{DIGEST}",
    f"signatures/{DIGEST}",
    f"parity/{DIGEST}",
    f"snapshots/vm1/{SNAPSHOT}",
    f"snapshots/Büro 1 (alt)/{SNAPSHOT}",
    "deletions/0123456789abcdef",
    "deletions/0123456789abcdef-locks",
    "keys/0123456789abcdef",
    "locks/vm1/20261123T020304.000006Z-0123456789abcdef",
    "locks/.maintenance/20261123T020304.000006Z-0123456789abcdef",
    "probes/0123456789abcdef",
    "locks/.reader-0123456789abcdef",
    "locks/.alive-0123456789abcdef",
    f"quarantine/packs/ab/{DIGEST}",
    f"quarantine/packs/ab/{DIGEST}.2",
    f"quarantine/snapshots/vm1/{SNAPSHOT}.17",
]
FOREIGN = [
    "",
    "Config",
    "config.bak",
    ".DS_Store",
    "packs",
    f"packs/{DIGEST}",
    f"packs/cd/{DIGEST}",
    f"packs/AB/{DIGEST}",
    f"packs/ab/{DIGEST.upper()}",
    f"packs/ab/{DIGEST}\n",
    f"packs/ab/{DIGEST[:-1]}",
    f"packs/ab/{DIGEST} (conflicted copy)",
    f"packs/ab/.nfs{DIGEST}",
    f"index/{DIGEST}.2",
    f"index/ab/{DIGEST}",
    "index/.DS_Store",
    f"snapshots/{SNAPSHOT}",
    f"snapshots/.vm1/{SNAPSHOT}",
    f"snapshots/lost+found/{SNAPSHOT}",
    f"snapshots/vm1/below/{SNAPSHOT}",
    f"snapshots/vm1/{SNAPSHOT}~",
    f"snapshots/vm\udcff/{SNAPSHOT}",
    f"snapshots/vm\n1/{SNAPSHOT}",
    "annotations/vm1/0123456789abcdef-1",
    "rosters/vm1/1",
    "rosters/00000001",
    "rosters/.Trash/00000001",
    "annotations/vm1/0123456789abcdef-00000001.bak",
    "annotations/.Trash/0123456789abcdef-00000001",
    "locks/.DS_Store",
    "locks/vm1",
    "locks/.maintenance",
    "locks/vm1/below",
    "locks/vm1/0123456789abcdef",
    "locks/.hidden/20261123T020304.000006Z-0123456789abcdef",
    "locks/.reader-0123456789ABCDEF",
    "quarantine/notes.txt",
    f"quarantine/quarantine/{DIGEST}x",
    f"other/{DIGEST}",
]


@pytest.mark.parametrize("name", OURS)
def test_a_name_of_ours_is_known_and_so_are_its_folders(name: str) -> None:
    assert find_kind(name) is not None
    pieces = name.split("/")
    assert all(has_folder("/".join(pieces[:count])) for count in range(1, len(pieces)))


@pytest.mark.parametrize("name", FOREIGN)
def test_any_other_name_is_somebody_elses(name: str) -> None:
    assert find_kind(name) is None


@pytest.mark.parametrize(
    "name",
    ["packs/abc", "packs/ab/cd", "packs/.snapshot", "maps/ab", "snapshots/.Trash", "lost+found", "quarantine/x", "a"],
)
def test_a_folder_of_others_is_not_looked_into(name: str) -> None:
    assert not has_folder(name)


def test_all_that_a_backup_writes_has_a_name_of_ours() -> None:
    repository = make_repository()
    back_up(repository, SyntheticSource(make_mixed_image(500_000)), "vm1", BackupOptions(workers=1), clock=FixedClock())
    names = list(repository.objects.store.objects)  # type: ignore[attr-defined]
    assert {name.partition("/")[0] for name in names} == {"config", "packs", "index", "maps", "signatures", "snapshots"}
    assert all(find_kind(name) for name in names)
    assert sorted(found.name for found in repository.objects.store.list("")) == sorted(names)


def test_every_kind_of_the_format_has_names_and_a_bound() -> None:
    kinds = {kind.magic for name in OURS if (kind := find_kind(name)) is not None}
    assert {str(magic.name).lower() for magic in kinds if magic} == set(KINDS)


def test_names_by_digest_are_told_from_others() -> None:
    assert is_named_by_digest(f"packs/ab/{DIGEST}")
    assert not is_named_by_digest(f"snapshots/vm1/{SNAPSHOT}")
    assert not is_named_by_digest("notes.txt")
