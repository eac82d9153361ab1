# SPDX-License-Identifier: Apache-2.0
"""`backup --hints`: what another program says has changed is read, and little else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deltaimg.model import MIB
from tests.support.components import loop_file_system
from tests.support.program import fail, read_tree, succeed

CHANGED = 5 * MIB + 8192


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "vm1.raw"
    path.write_bytes(os.urandom(16 * MIB))
    return path


def change(image: Path) -> None:
    with open(image, "r+b") as file:
        file.seek(CHANGED)
        file.write(os.urandom(4096))


def hints(snapshot: str, *extents: tuple[int, int]) -> bytes:
    return json.dumps({"snapshot": snapshot, "extents": [{"start": a, "end": b} for a, b in extents]}).encode()


def test_hints_spare_reading_and_what_was_spared_is_said(repo: Path, image: Path, tmp_path: Path) -> None:
    first = succeed("backup", image, "-i", "vm1", "--json", repo=repo).json
    assert first["tracking"] is None
    change(image)
    file = tmp_path / "hints.json"
    file.write_bytes(hints(first["snapshot"][:8], (CHANGED, CHANGED + 4096)))
    planned = succeed("backup", image, "-i", "vm1", "--hints", file, "--dry-run", "--json", repo=repo).json
    assert planned["tracking"]["method"] == "hints"
    second = succeed("backup", image, "-i", "vm1", "--hints", "-", "--json", repo=repo, stdin=file.read_bytes()).json
    assert second["read_bytes"] == second["changed_bytes"] == 4096
    tracking = dict(second["tracking"])
    assert tracking.pop("last_scan") is not None
    assert tracking.pop("last_scan_exact") is not None
    assert tracking == {
        "method": "hints", "reason": "", "unchanged_bytes": 16 * MIB - 4096, "audited_blocks": 459, "refuted_blocks": 0,
        "detectable_share": 0.009983,
    }  # fmt: skip
    assert succeed("show", "vm1", "--json", repo=repo).json["tracking"] == second["tracking"]
    assert "16.0 MiB not read (hints); 459 blocks of it compared" in succeed("show", "vm1", repo=repo).text
    succeed("restore", "vm1", tmp_path / "restored", "-q", repo=repo)
    assert (tmp_path / "restored").read_bytes() == image.read_bytes()


def test_hints_that_are_wrong_cost_a_scan_and_a_warning(repo: Path, image: Path, tmp_path: Path) -> None:
    first = succeed("backup", image, "-i", "vm1", "--json", repo=repo).json
    image.write_bytes(os.urandom(16 * MIB))
    wrong = hints(first["snapshot"])
    run = succeed("backup", image, "-i", "vm1", "--hints", "-", "--audit-blocks", "5", repo=repo, stdin=wrong)
    assert "CHANGE TRACKING IS WRONG: 5 of 5 blocks that it calls unchanged (hints) had changed" in run.err
    assert "everything was read: 5 of 5 blocks" in run.text
    assert succeed("show", "vm1", "--json", repo=repo).json["tracking"]["refuted_blocks"] == 5
    run = succeed("backup", image, "-i", "vm1", "--hints", "-", "--json", repo=repo, stdin=wrong)
    assert "since snapshot" in run.err
    assert run.json["tracking"]["method"] == "scan"
    assert run.json["read_bytes"] == 16 * MIB
    succeed("restore", "vm1", tmp_path / "restored", "-q", repo=repo)
    assert (tmp_path / "restored").read_bytes() == image.read_bytes()


def test_hints_may_be_written_once_the_image_is_frozen(repo: Path, image: Path, tmp_path: Path) -> None:
    first = succeed("backup", image, "-i", "vm1", "--json", repo=repo).json
    change(image)
    (tmp_path / "made.json").write_bytes(hints(first["snapshot"], (CHANGED, CHANGED + 4096)))
    options = ["--freeze", "hook", "--pre-freeze", f"cp {tmp_path}/made.json {tmp_path}/hints.json"]
    run = succeed("backup", image, "-i", "vm1", *options, "--hints", tmp_path / "hints.json", "--json", repo=repo)
    assert run.json["tracking"]["method"] == "hints"


def test_hints_that_are_none_change_nothing(repo: Path, image: Path, tmp_path: Path) -> None:
    succeed("backup", image, "-i", "vm1", "-q", repo=repo)
    file, before = tmp_path / "hints.json", read_tree(repo / "snapshots")
    file.write_bytes(b'{"snapshot": "0000')
    run = ("backup", image, "-i", "vm1", "-q")
    assert "is no list of hints" in fail(68, *run, "--hints", file, repo=repo)
    assert "cannot be read: No such file" in fail(68, *run, "--hints", tmp_path / "none", repo=repo)
    fail(2, "backup", "-", "-i", "vm1", "-q", "--hints", file, repo=repo, stdin=b"x" * 4096)
    fail(2, *run, "--hints", file, "--full-scan-every", "sometimes", repo=repo)
    assert read_tree(repo / "snapshots") == before


def test_the_clone_of_the_last_backup_spares_reading(repo: Path, tmp_path: Path) -> None:
    with loop_file_system("xfs", tmp_path / "mnt", 320 * MIB) as made:
        image = made.folder / "vm1.raw"
        image.write_bytes(os.urandom(8 * MIB))
        run = succeed("backup", image, "-i", "vm1", "--track", "auto", repo=repo)
        assert "everything was read: there is no earlier snapshot" in run.text
        change(image)
        run = succeed("backup", image, "-i", "vm1", "--track", "auto", "--json", repo=repo)
        assert run.json["tracking"]["method"] == run.json["freeze"]["method"] == "reflink"
        assert run.json["read_bytes"] == 4096
        fail(2, "backup", image, "-i", "vm1", "--track", "reflink", "--freeze", "btrfs", "-q", repo=repo)


def test_a_full_scan_is_never_due_where_that_was_said(repo: Path, image: Path) -> None:
    succeed("backup", image, "-i", "vm1", "--time", "2020-01-01", "--json", repo=repo)
    first = succeed("snapshots", "--json", repo=repo).json[0]
    told = hints(first["snapshot"])
    run = ("backup", image, "-i", "vm1", "--hints", "-", "--json", "--dry-run")
    assert "due: everything was read last" in succeed(*run, repo=repo, stdin=told).json["tracking"]["reason"]
    for span in ("never", "900y"):
        found = succeed(*run, "--full-scan-every", span, repo=repo, stdin=told).json
        assert found["tracking"]["method"] == "hints"
