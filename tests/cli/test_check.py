# SPDX-License-Identifier: Apache-2.0
"""`deltaimg check`, as a user meets it."""

from __future__ import annotations

from deltaimg.errors import RepositoryDamaged
from tests.cli.conftest import Backups
from tests.support.program import deltaimg, fail, read_tree, succeed


def test_a_sound_repository_passes_and_stays_as_it_is(backups: Backups) -> None:
    before = read_tree(backups.repo)
    for options in ((), ("--read-packs",)):
        found = succeed("check", *options, "--json", repo=backups.repo).json
        assert found["errors"] == found["warnings"] == []
        assert found["snapshots"] == 2
        assert found["objects"]["packs"] == 2
    assert "2 snapshots" in succeed("check", repo=backups.repo).text
    assert succeed("check", "-q", repo=backups.repo).out == b""
    assert read_tree(backups.repo) == before


def test_damage_is_told_with_an_exit_code_of_its_own(backups: Backups) -> None:
    pack = next((backups.repo / "packs").rglob("?" * 64))
    pack.write_bytes(pack.read_bytes()[:-1])
    said = fail(RepositoryDamaged.exit_code, "check", repo=backups.repo)
    assert pack.name in said
    run = deltaimg("check", "--json", repo=backups.repo)
    told = run.out.splitlines()[0]
    assert b'"kind": "damaged"' in told
    assert b"truncated" in told
