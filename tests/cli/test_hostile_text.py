# SPDX-License-Identifier: Apache-2.0
"""Names and texts from elsewhere reach no terminal as they are: not in tables, errors, progress, JSON or pictures."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from deltaimg.errors import RepositoryLocked
from deltaimg.format.lock import build_lock
from deltaimg.repo.lock_holder import describe_process
from tests.cli.conftest import Backups
from tests.support.locks import claim_of
from tests.support.measured import measured_program
from tests.support.program import succeed

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egnp\u2066\u200b\x9b31m\r$x^{"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@pytest.fixture
def hostile(backups: Backups, tmp_path: Path) -> Backups:
    """A repository with hostile text wherever a writer may put any: path of a source, owner, host and purpose of a lock.

    The lock of `vm1` is that of a living process, so that whoever wants it is refused at once. That of `vm2`, which no
    writer of ours made, counts as damaged.
    """
    image = tmp_path / f"image{HOSTILE.replace('/', '')}"
    image.write_bytes(backups.first)
    succeed("backup", image, "--image", "vm$_{1}^", "-q", repo=backups.repo)
    lock = describe_process("0123456789abcdef", HOSTILE, datetime.now(UTC))
    hostile_lock = msgspec.structs.replace(lock, owner=HOSTILE, host=HOSTILE, purpose=HOSTILE)
    for scope, content in (("vm1", lock), ("vm2", hostile_lock)):
        claim = backups.repo / claim_of(scope)
        claim.parent.mkdir(parents=True, exist_ok=True)
        claim.write_bytes(build_lock(content))
    return backups


def test_no_command_prints_it_as_it_is(hostile: Backups, tmp_path: Path) -> None:
    refused = [("forget", "vm1~1"), ("backup", hostile.image, "--image", "vm1"), ("tag", "add", "vm1", "x")]
    commands: list[tuple[object, ...]] = [
        ("snapshots",),
        ("show", "vm$_{1}^"),
        ("show", "vm$_{1}^", "--json"),
        ("unlock",),
        ("unlock", "--json"),
        ("unlock", HOSTILE),
        *refused,
        ("backup", hostile.image, "--image", HOSTILE),
        ("backup", tmp_path / f"missing{HOSTILE}", "--image", "a"),
        ("restore", HOSTILE, tmp_path / "x"),
        ("restore", "vm1", tmp_path / f"no{HOSTILE}" / "x"),
        ("diff", f"vm1@{HOSTILE}", "vm1"),
        ("snapshots", "-r", f"/nowhere{HOSTILE}"),
        (HOSTILE,),
        ("snapshots", f"--{HOSTILE}"),
        ("backup", hostile.image, "-i", "a", "--compression", HOSTILE),
    ]
    with measured_program() as program:
        runs = [(words, program.run(*words, repo=hostile.repo)) for words in commands]
    for words, run in runs:
        assert run.code == RepositoryLocked.exit_code or words not in refused, words
        for text in (run.out, run.err):
            assert not FORBIDDEN.search(text), (words, text)
        if "--json" in words:
            json.loads(run.out)


def test_no_picture_has_it_or_reads_it_as_a_formula(hostile: Backups, tmp_path: Path) -> None:
    picture = tmp_path / "changes.svg"
    succeed("diff", "vm1", "vm$_{1}^", "--plot", picture, repo=hostile.repo)
    text = picture.read_text()
    assert not FORBIDDEN.search(text)
    assert ET.fromstring(text).tag.endswith("svg")
