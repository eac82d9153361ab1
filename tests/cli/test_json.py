# SPDX-License-Identifier: Apache-2.0
"""What --json prints: one value, times that programs read, and every field documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deltaimg.cli.app import COMMANDS
from tests.cli.conftest import Backups
from tests.support.measured import measured_program
from tests.support.program import deltaimg

DOCUMENTED = set(re.findall(r"`(\w+)`", (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text()))
NAMED_BY_DATA = {"objects", "commands", "snapshots", "requests"}
"""Fields whose value may be an object with keys that are data: kinds of objects, commands, images."""
SECOND, EXACT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
TIMES = {"time", "created", "started", "ended", "base_time", "verified_since", "since", "used"}


def fields_of(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all fields of a JSON value, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if name not in NAMED_BY_DATA:
                yield key, inner
            yield from fields_of(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from fields_of(inner, "")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each command prints for one repository."""
    from tests.support.images import make_mixed_image

    folder = tmp_path_factory.mktemp("json")
    repo, image = folder / "repo", folder / "vm1.raw"
    make_mixed_image(1_000_001, seed=4).save(image)
    (folder / "cache").mkdir()
    cache = ("--cache-dir", folder / "cache")
    runs: list[tuple[object, ...]] = [
        ("init",),
        ("init", "--like", repo, "-r", folder / "offsite"),
        ("init", "-r", folder / "sealed", "--encryption", "keyfile", "--key-file", folder / "key"),
        ("key", "add", "-r", folder / "sealed", "--key-file", folder / "key", "--new-key-file", folder / "second"),
        ("key", "list", "-r", folder / "sealed"),
        ("backup", image, "-i", "vm1", "--delta", "zstd", *cache),
        ("backup", image, "-i", "vm1", *cache),
        ("snapshots",),
        ("show", "vm1~1"),
        ("diff", "vm1~1", "vm1"),
        ("inspect", "vm1"),
        ("restore", "vm1", folder / "out"),
        ("restore", "--all", "--into", folder, "--map", f"{image}={folder}/all"),
        ("cat", "vm1", "-n", "10"),
        ("repair", "--dry-run"),
        ("check",),
        ("verify",),
        ("verify", "vm1", "--against", image),
        ("forget", "--keep-last", "1", "--dry-run"),
        ("pin", "vm1"),
        ("unpin", "vm1"),
        ("tag", "add", "vm1", "weekly"),
        ("prune", "--dry-run"),
        ("prune",),
        ("flatten", "vm1"),
        ("parity", "add"),
        ("parity", "show"),
        ("parity", "repair"),
        ("sync", repo, folder / "offsite", "--dry-run"),
        ("sync", repo, folder / "offsite"),
        ("mirror", image, folder / "copy"),
        ("mirror", "--recover", folder / "copy"),
        ("stats",),
        ("unlock",),
        ("doctor", image),
        ("signature", image, folder / "sig"),
        ("delta", folder / "sig", image, folder / "delta"),
        ("patch", image, folder / "delta", folder / "new"),
        ("cache", "show", *cache),
        ("cache", "clean", *cache),
        ("benchmark",),
        ("version",),
        ("help",),
        ("help", "backup"),
    ]
    # A mount runs until it is unmounted: test_mount.py.
    found: dict[str, list[Any]] = {name: [] for name in COMMANDS if name != "mount"}
    without_repo = ("sync", "mirror", "signature", "delta", "patch", "cache", "help")
    with measured_program() as program:
        for words in runs:
            run = program.run(*words, "--json", repo=None if words[0] in without_repo else repo)
            assert (run.code, len(run.out.splitlines())) == (0, 1), (words, run.err)
            found[str(words[0])].append(json.loads(run.out))
    return found


def test_every_command_prints_json_and_every_field_is_documented(printed: dict[str, list[Any]]) -> None:
    for name, values in printed.items():
        assert values, name
        names = (
            set()
            if name == "version"
            else {key.removesuffix("_exact") for each in values for key, _ in fields_of(each)}
        )
        assert names <= DOCUMENTED, (name, names - DOCUMENTED)


def test_every_time_is_read_by_jq_and_has_an_exact_one_beside_it(printed: dict[str, list[Any]]) -> None:
    seen = set()
    for values in printed.values():
        for name, value in fields_of(values):
            if name in TIMES and value is not None:
                assert SECOND.fullmatch(value), (name, value)
                seen.add(name)
            elif name.endswith("_exact") and value is not None:
                assert EXACT.fullmatch(value), (name, value)
            elif isinstance(value, str):
                assert not re.match(r"\d{4}-?\d\d-?\d\dT", value), (name, value)
    assert seen >= TIMES - {"since"}
    moment = datetime.fromisoformat(printed["snapshots"][0][1]["time"])
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 600


def test_a_failed_command_ends_with_an_object_of_its_error(backups: Backups) -> None:
    for words in (("show", "nobody"), ("frobnicate",), ("cache", "dance"), ("--json", "restore")):
        run = deltaimg(*words, "--json", repo=backups.repo)
        assert set(run.json) == {"error", "message", "hint", "exit_code", "retryable"}
        assert run.json["exit_code"] == run.code != 0
