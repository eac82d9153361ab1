# SPDX-License-Identifier: Apache-2.0
"""`parity` from the command line, before and after damage."""

from __future__ import annotations

import re

import pytest

from deltaimg.errors import PacksDamaged, ParityExhausted, UsageError
from deltaimg.format.framing import HEADER_BYTES
from deltaimg.format.parity import parse_trailer
from tests.cli.conftest import Backups
from tests.support.program import deltaimg, fail, read_tree, succeed


def test_add_protects_every_pack_and_show_says_what_that_survives(backups: Backups) -> None:
    shown = succeed("parity", "show", "--json", repo=backups.repo).json
    assert (shown["groups"], shown["protected_packs"]) == ([], 0)
    added = succeed("parity", "add", "--percent", "10", "--json", repo=backups.repo).json
    assert added["packs"] == shown["unprotected_packs"] > 0
    assert added["protection"]["unprotected_packs"] == 0
    (group,) = added["protection"]["groups"]
    assert 0.1 <= added["stored_bytes"] / added["read_bytes"] < 0.15
    assert group["survives_bytes"] >= 0.1 * group["pack_bytes"] - 4096
    text = succeed("parity", "show", repo=backups.repo).text
    assert re.search(r"^not protected +0 B in 0 packs$", text, re.MULTILINE)
    assert group["name"][:19] in text
    assert group["name"] in succeed("parity", "show", "-v", repo=backups.repo).text


def test_a_second_add_says_that_there_is_nothing_to_do_and_does_nothing(backups: Backups) -> None:
    assert "stored" in succeed("parity", "add", repo=backups.repo).text
    before = read_tree(backups.repo)
    assert "every pack is protected already" in succeed("parity", "add", repo=backups.repo).text
    assert read_tree(backups.repo) == before


def test_quiet_means_quiet(backups: Backups) -> None:
    run = succeed("parity", "add", "-q", repo=backups.repo)
    assert (run.out, run.err) == (b"", "")


def test_a_repository_with_parity_restores_and_counts_as_before(backups: Backups) -> None:
    succeed("parity", "add", repo=backups.repo)
    assert succeed("restore", "vm1", "-", repo=backups.repo).out == backups.second
    assert succeed("stats", "--json", repo=backups.repo).json["objects"]["parity"]["count"] == 1


def test_a_damaged_pack_ends_add_with_a_code_of_its_own_and_is_recovered_from_the_old_parity(backups: Backups) -> None:
    succeed("parity", "add", repo=backups.repo)
    path = max((backups.repo / "packs").rglob("*"), key=lambda each: each.stat().st_size if each.is_file() else 0)
    good = path.read_bytes()
    path.write_bytes(good[:1000] + b"x" + good[1001:])
    run = deltaimg("parity", "add", "--percent", "20", repo=backups.repo)
    assert run.code == PacksDamaged.exit_code
    assert path.name in run.err
    assert "deltaimg parity repair" in run.err
    done = succeed("parity", "repair", "--json", repo=backups.repo).json
    assert (done["repaired"], done["failed"]) == ([path.name], [])
    assert path.read_bytes() == good


def test_show_names_a_missing_pack_and_repair_brings_it_back(backups: Backups) -> None:
    succeed("parity", "add", "--percent", "100", repo=backups.repo)
    path = next(each for each in (backups.repo / "packs").rglob("*") if each.is_file())
    path.unlink()
    assert f"pack {path.name} is missing" in succeed("parity", "show", repo=backups.repo).err
    assert path.name in succeed("parity", "repair", repo=backups.repo).text
    assert succeed("restore", "vm1", "-", repo=backups.repo).out == backups.second


def test_what_repair_cannot_recover_is_named_and_stays(backups: Backups) -> None:
    path = next(each for each in (backups.repo / "packs").rglob("*") if each.is_file())
    damaged = path.read_bytes()[:-1]
    path.write_bytes(damaged)
    message = fail(ParityExhausted.exit_code, "parity", "repair", repo=backups.repo)
    assert path.name in message
    assert "has no parity" in message
    assert path.read_bytes() == damaged


def test_damage_of_parity_is_reported_and_repaired_by_check(backups: Backups) -> None:
    succeed("parity", "add", repo=backups.repo)
    (path,) = (backups.repo / "parity").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert succeed("parity", "show", repo=backups.repo).err == ""
    assert "1 part damaged" in succeed("parity", "show", "--check", repo=backups.repo).err
    succeed("parity", "add", "--check", "-q", repo=backups.repo)
    (renewed,) = (backups.repo / "parity").iterdir()
    same, twin_offset = renewed.read_bytes(), parse_trailer(path.name, whole, len(whole))
    for start, end in ((HEADER_BYTES, twin_offset), (twin_offset + HEADER_BYTES, len(whole))):
        assert same[start:end] == whole[start:end], "all but the headers, which have another salt"
    assert succeed("parity", "show", "--check", repo=backups.repo).err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("parity",), "ACTION"),
        (("parity", "repair", "--check"), "--check is for 'parity add' and 'parity show'"),
        (("parity", "remove"), "there is no action 'remove'"),
        (("parity", "show", "--percent", "5"), "--percent is for 'parity add'"),
        (("parity", "add", "--percent", "0.1"), "it must be 0.5 to 100"),
        (("parity", "add", "--percent", "101"), "it must be 0.5 to 100"),
        (("parity", "add", "--percent", "some"), "'some' is not a valid percentage"),
    ],
)
def test_what_makes_no_sense_is_refused(backups: Backups, arguments: tuple[str, ...], said: str) -> None:
    before = read_tree(backups.repo)
    assert said.lower() in fail(UsageError.exit_code, *arguments, repo=backups.repo).lower()
    assert read_tree(backups.repo) == before
