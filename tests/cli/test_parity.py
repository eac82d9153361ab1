# SPDX-License-Identifier: Apache-2.0
"""`parity` on good days and bad ones."""

from __future__ import annotations

import re

import pytest

from deltaimg.errors import PacksDamaged, ParityExhausted, UsageError
from deltaimg.format.framing import HEADER_BYTES
from deltaimg.format.parity import parse_trailer
from tests.cli.conftest import Nights
from tests.support.program import deltaimg, fail, read_tree, succeed


def test_add_protects_every_pack_and_show_tells_what_that_survives(nights: Nights) -> None:
    shown = succeed("parity", "show", "--json", repo=nights.repo).json
    assert (shown["groups"], shown["protected_packs"]) == ([], 0)
    added = succeed("parity", "add", "--percent", "10", "--json", repo=nights.repo).json
    assert added["packs"] == shown["unprotected_packs"] > 0
    assert added["protection"]["unprotected_packs"] == 0
    (group,) = added["protection"]["groups"]
    assert 0.1 <= added["stored_bytes"] / added["read_bytes"] < 0.15
    assert group["survives_bytes"] >= 0.1 * group["pack_bytes"] - 4096
    text = succeed("parity", "show", repo=nights.repo).text
    assert re.search(r"^not protected +0 B in 0 packs$", text, re.MULTILINE)
    assert group["name"][:19] in text
    assert group["name"] in succeed("parity", "show", "-v", repo=nights.repo).text


def test_a_second_add_says_that_there_is_nothing_to_do_and_does_nothing(nights: Nights) -> None:
    assert "stored" in succeed("parity", "add", repo=nights.repo).text
    before = read_tree(nights.repo)
    assert "every pack is protected already" in succeed("parity", "add", repo=nights.repo).text
    assert read_tree(nights.repo) == before


def test_quiet_means_quiet(nights: Nights) -> None:
    run = succeed("parity", "add", "-q", repo=nights.repo)
    assert (run.out, run.err) == (b"", "")


def test_a_repository_with_parity_restores_and_counts_as_before(nights: Nights) -> None:
    succeed("parity", "add", repo=nights.repo)
    assert succeed("restore", "vm1", "-", repo=nights.repo).out == nights.second
    assert succeed("stats", "--json", repo=nights.repo).json["objects"]["parity"]["count"] == 1


def test_a_damaged_pack_ends_add_with_a_code_of_its_own_and_comes_back_from_the_old_parity(nights: Nights) -> None:
    succeed("parity", "add", repo=nights.repo)
    path = max((nights.repo / "packs").rglob("*"), key=lambda each: each.stat().st_size if each.is_file() else 0)
    good = path.read_bytes()
    path.write_bytes(good[:1000] + b"x" + good[1001:])
    run = deltaimg("parity", "add", "--percent", "20", repo=nights.repo)
    assert run.code == PacksDamaged.exit_code
    assert path.name in run.err
    assert "deltaimg parity repair" in run.err
    done = succeed("parity", "repair", "--json", repo=nights.repo).json
    assert (done["repaired"], done["failed"]) == ([path.name], [])
    assert path.read_bytes() == good


def test_show_names_a_missing_pack_and_repair_brings_it_back(nights: Nights) -> None:
    succeed("parity", "add", "--percent", "100", repo=nights.repo)
    path = next(each for each in (nights.repo / "packs").rglob("*") if each.is_file())
    path.unlink()
    assert f"pack {path.name} is missing" in succeed("parity", "show", repo=nights.repo).err
    assert path.name in succeed("parity", "repair", repo=nights.repo).text
    assert succeed("restore", "vm1", "-", repo=nights.repo).out == nights.second


def test_what_repair_cannot_make_good_is_named_and_stays(nights: Nights) -> None:
    path = next(each for each in (nights.repo / "packs").rglob("*") if each.is_file())
    damaged = path.read_bytes()[:-1]
    path.write_bytes(damaged)
    message = fail(ParityExhausted.exit_code, "parity", "repair", repo=nights.repo)
    assert path.name in message
    assert "has no parity" in message
    assert path.read_bytes() == damaged


def test_damage_of_parity_is_told_and_made_good_by_check(nights: Nights) -> None:
    succeed("parity", "add", repo=nights.repo)
    (path,) = (nights.repo / "parity").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert succeed("parity", "show", repo=nights.repo).err == ""
    assert "1 part damaged" in succeed("parity", "show", "--check", repo=nights.repo).err
    succeed("parity", "add", "--check", "-q", repo=nights.repo)
    (renewed,) = (nights.repo / "parity").iterdir()
    same, twin_offset = renewed.read_bytes(), parse_trailer(path.name, whole, len(whole))
    for start, end in ((HEADER_BYTES, twin_offset), (twin_offset + HEADER_BYTES, len(whole))):
        assert same[start:end] == whole[start:end], "all but the headers, which have another salt"
    assert succeed("parity", "show", "--check", repo=nights.repo).err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("parity",), "ACTION"),
        (("parity", "repair", "--check"), "--check is for 'parity add' and 'parity show'"),
        (("parity", "remove"), "there is no action 'remove'"),
        (("parity", "show", "--percent", "5"), "--percent is for 'parity add'"),
        (("parity", "add", "--percent", "0.1"), "from 0.5 to 100"),
        (("parity", "add", "--percent", "101"), "from 0.5 to 100"),
        (("parity", "add", "--percent", "some"), "'some' is not a valid percentage"),
    ],
)
def test_what_makes_no_sense_is_refused(nights: Nights, arguments: tuple[str, ...], said: str) -> None:
    before = read_tree(nights.repo)
    assert said.lower() in fail(UsageError.exit_code, *arguments, repo=nights.repo).lower()
    assert read_tree(nights.repo) == before
