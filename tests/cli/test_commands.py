# SPDX-License-Identifier: Apache-2.0
"""Every command where nothing goes wrong, as text and as JSON."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import get_type_hints
from xml.etree import ElementTree as ET

import pytest

from deltaimg.cli.app import COMMANDS, find_function
from deltaimg.errors import TargetExists, UsageError
from tests.cli.conftest import Backups
from tests.support.program import command, deltaimg, environment, fail, succeed

BACKUP_KEYS = {
    "snapshot",
    "image",
    "base",
    "apparent_bytes",
    "allocated_bytes",
    "read_bytes",
    "changed_bytes",
    "referenced_bytes",
    "new_bytes",
    "stored_bytes",
    "duration_s",
    "rewritten_bytes",
    "rewritten_payload_bytes",
    "traffic",
    "freeze",
    "tracking",
    "free_space",
    "unreadable",
}


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_backup_json_ends_with_one_object_that_says_by_how_much_the_repository_grew(backups: Backups) -> None:
    before = size_of(backups.repo)
    with backups.image.open("r+b") as file:
        file.write(os.urandom(50_000))
    found = succeed("backup", backups.image, "--image", "vm1", "--json", repo=backups.repo).json
    assert set(found) == BACKUP_KEYS
    assert found["stored_bytes"] == size_of(backups.repo) - before
    assert found["apparent_bytes"] == 2_000_001
    assert 50_000 <= found["changed_bytes"] <= 57_344


def test_backup_takes_every_option_that_bounds_deltas(backups: Backups) -> None:
    """Numbers are text that commands parse: those of two options reached the engine as text, which ended every such run."""
    bounds = ("--delta-depth", "3", "--max-read-amplification", "1.5", "--delta-memory", "8M", "--match-memory", "8M")
    succeed("backup", backups.image, "--image", "vm1", *bounds, "--delta", "zstd", "--no-cache", repo=backups.repo)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_text_or_a_flag(name: str) -> None:
    """Whatever its type says, a value reaches its command as text: see `_keep_as_they_are`."""
    for option, kind in get_type_hints(find_function(name)).items():
        assert option == "return" or kind in (str, bool, str | None, bool | None, list[str] | None), option


def test_snapshots_lists_four_sizes(backups: Backups) -> None:
    text = succeed("snapshots", repo=backups.repo).text
    for word in ("apparent", "allocated", "changed", "stored", "one", "1.9 MiB"):
        assert word in text
    listed = succeed("snapshots", "vm1", "--json", repo=backups.repo).json
    assert [each["tags"] for each in listed] == [["one"], []]
    assert listed[1]["base"] == listed[0]["snapshot"]


def test_show_says_what_a_restore_reads(backups: Backups) -> None:
    found = succeed("show", "vm1", "--json", repo=backups.repo).json
    total = found["data_bytes"] + found["zero_bytes"] + found["hole_bytes"]
    assert total == -(-2_000_001 // 4096) * 4096
    assert "a restore reads" in succeed("show", "vm1", repo=backups.repo).text


def test_show_explains_what_was_stored(backups: Backups) -> None:
    found = succeed("show", "vm1", "--json", repo=backups.repo).json
    told = found["stored_content"]
    assert sum(kind["content_bytes"] for kind in told["stored"]) == found["new_bytes"]
    assert told["zero_bytes"] + told["referenced_bytes"] + found["new_bytes"] == found["changed_bytes"]
    assert found["read_amplification"] >= 1
    text = succeed("show", "vm1", repo=backups.repo).text
    assert "delta, deltaimg" in text
    assert "read amplification" in text


def test_diff_lists_what_differs(backups: Backups) -> None:
    found = succeed("diff", "vm1~1", "vm1", "--json", repo=backups.repo).json
    differing = {
        at for at in range(0, 2_000_001, 4096) if backups.first[at : at + 4096] != backups.second[at : at + 4096]
    }
    assert {at for each in found["extents"] for at in range(each["start"], each["end"], 4096)} == differing
    assert "differ in" in succeed("diff", "vm1~1", "vm1", repo=backups.repo).text
    assert "equal" in succeed("diff", "vm1", "vm1", repo=backups.repo).text


def test_diff_draws_what_differs(backups: Backups, tmp_path: Path) -> None:
    png, svg = tmp_path / "changes.png", tmp_path / "changes.svg"
    succeed("diff", "vm1~1", "vm1", "--plot", png, "--json", repo=backups.repo)
    assert png.read_bytes().startswith(b"\x89PNG\r\n")
    succeed("diff", "vm1~1", "vm1", "--plot", svg, repo=backups.repo)
    assert ET.parse(svg).getroot().tag.endswith("svg")
    before = png.read_bytes()
    assert "exists" in fail(TargetExists.exit_code, "diff", "vm1~1", "vm1", "--plot", png, repo=backups.repo)
    assert png.read_bytes() == before
    succeed("diff", "vm1", "vm1", "--plot", png, "--force", repo=backups.repo)
    assert png.read_bytes() != before
    assert not list(tmp_path.glob(".deltaimg-*"))
    assert "cannot draw into" in fail(
        UsageError.exit_code, "diff", "vm1", "vm1", "--plot", tmp_path / "a.pdf", repo=backups.repo
    )


def test_restore_writes_every_snapshot_as_a_sparse_file(backups: Backups, tmp_path: Path) -> None:
    for selector, content in (("vm1@latest~1", backups.first), ("vm1", backups.second)):
        target = tmp_path / "restored"
        assert "verified" in succeed("restore", selector, target, repo=backups.repo).text
        assert target.read_bytes() == content
        assert target.stat().st_blocks * 512 <= backups.image.stat().st_blocks * 512 + 65536
        target.unlink()


def test_restore_to_the_standard_output_and_from_the_standard_input(backups: Backups) -> None:
    assert succeed("restore", "vm1", "-", repo=backups.repo).out == backups.second
    succeed("backup", "-", "--image", "piped", "-q", repo=backups.repo, stdin=backups.second)
    assert succeed("restore", "piped", "-", repo=backups.repo).out == backups.second
    stored = succeed("snapshots", "piped", "--json", repo=backups.repo).json[0]
    assert stored["new_bytes"] == 0, "all of it is known from vm1"


def test_a_replaced_file_is_replaced_only_by_force(backups: Backups, tmp_path: Path) -> None:
    target = tmp_path / "old"
    target.write_bytes(b"precious")
    assert deltaimg("restore", "vm1", target, repo=backups.repo).code == 13
    assert target.read_bytes() == b"precious"
    succeed("restore", "vm1", target, "--force", repo=backups.repo)
    assert target.read_bytes() == backups.second


@pytest.mark.parametrize(("offset", "length"), [("0", "512"), ("4K", "1K"), ("1999999", "10"), ("1.5M", "64K")])
def test_cat_gives_ranges(backups: Backups, offset: str, length: str) -> None:
    units = {"K": 1024, "M": 1024**2}
    start, count = (int(float(t.rstrip("KM")) * units.get(t[-1], 1)) for t in (offset, length))
    assert (
        succeed("cat", "vm1", "-o", offset, "-n", length, repo=backups.repo).out
        == backups.second[start : start + count]
    )
    found = succeed("cat", "vm1", "-o", offset, "-n", length, "--json", repo=backups.repo).json
    assert base64.b64decode(found["base64"]) == backups.second[start : start + count]


def test_verify_reads_all_or_some(backups: Backups) -> None:
    text = succeed("verify", repo=backups.repo).text
    assert text.count("  verified  ") == 2
    assert "all content was verified since" in text
    assert "100 % by this run" in text
    found = succeed("verify", "vm1", "--percent", "1", "--json", repo=backups.repo).json
    assert found["snapshots"][0]["records"] >= 1
    assert found["snapshots"][0]["damage"] == []
    assert found["verified_share"]["never_percent"] == 0
    assert "byte for byte" in succeed("verify", "vm1", "--against", backups.image, repo=backups.repo).text


def test_stats_adds_up(backups: Backups) -> None:
    found = succeed("stats", "--json", repo=backups.repo).json
    assert found["stored_bytes"] == size_of(backups.repo)
    assert found["snapshots"] == {"vm1": 2}
    assert "packs" in succeed("stats", repo=backups.repo).text


def test_version_says_what_does_the_work() -> None:
    assert re.match(r"deltaimg \d+\.\d+\.\d+$", succeed("version").text.strip())
    assert set(succeed("version", "--json").json) >= {"deltaimg", "kernels", "format", "libzstd"}


def test_quiet_means_quiet(backups: Backups, tmp_path: Path) -> None:
    for arguments in (
        ("backup", backups.image, "--image", "vm1"),
        ("restore", "vm1", tmp_path / "x"),
        ("verify",),
    ):
        run = succeed(*arguments, "-q", repo=backups.repo)
        assert (run.out, run.err) == (b"", ""), arguments


def test_progress_is_plain_lines_where_there_is_no_terminal(backups: Backups) -> None:
    run = succeed("backup", backups.image, "--image", "again", repo=backups.repo)
    assert re.search(r"^backing up: 0 B of ", run.err, re.MULTILINE)
    assert "\x1b" not in run.err + run.text


def test_progress_is_a_bar_on_a_terminal(backups: Backups) -> None:
    import pty
    import subprocess

    leader, follower = pty.openpty()
    run = subprocess.Popen(
        command("backup", backups.image, "--image", "bar"),
        stderr=follower,
        stdout=follower,
        env=environment(backups.repo),
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    assert run.wait(60) == 0
    assert b"\x1b[" in seen
    assert b"snapshot bar@" in seen


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_in_eighty_columns(name: str) -> None:
    text = succeed(name, "--help").text
    assert f"deltaimg {name}" in text
    assert re.search(r"^Examples?:$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 80


def test_the_program_lists_its_commands() -> None:
    text = succeed("--help").text
    for name in COMMANDS:
        assert re.search(rf"^  {name}\s", text, re.MULTILINE)
    assert succeed().text == text


def test_shell_completion_is_there() -> None:
    run = deltaimg("--show-completion", "bash")
    assert run.code in (0, 1, 2)
    import subprocess

    done = subprocess.run(
        command(),
        env=environment(None)
        | {"_DELTAIMG_COMPLETE": "complete_bash", "COMP_WORDS": "deltaimg res", "COMP_CWORD": "1"},
        capture_output=True,
        check=False,
    )
    assert done.stdout.split() == [b"restore"], done.stderr
