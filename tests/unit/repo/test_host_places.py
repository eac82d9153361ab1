# SPDX-License-Identifier: Apache-2.0
"""What a host remembers of encrypted repositories by their places; whatever is wrong with that file costs the memory only."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from deltaimg.format.manifest import format_time
from deltaimg.repo.host_places import KnownPlace, KnownRoster
from tests.support.clock import START

ONE, OTHER = KnownPlace("/backup/repo", "1e" * 16), KnownPlace("/backup/repo", "1f" * 16)
SEEN = KnownRoster(3, "ab" * 16, format_time(START), 2)


def the_file() -> Path:
    (found,) = (Path(os.environ["XDG_STATE_HOME"]) / "deltaimg").iterdir()
    return found


def test_rosters_are_remembered_by_repository_location_and_image() -> None:
    assert ONE.recall_roster("vm1") is None
    ONE.note_roster("vm1", SEEN)
    assert ONE.recall_roster("vm1") == SEEN
    assert ONE.recall_roster("vm2") is None
    assert KnownPlace("/backup/copy", ONE.repository_id).recall_roster("vm1") is None
    assert OTHER.recall_roster("vm1") is None
    assert the_file().stat().st_mode & 0o777 == 0o600


def test_a_repository_in_the_place_of_another_is_known_once_it_is_accepted() -> None:
    assert ONE.find_other() is None
    ONE.note_roster("vm1", SEEN)
    assert ONE.find_other() is None
    assert OTHER.find_other() == (ONE.repository_id, START)
    OTHER.note_roster("vm1", SEEN)
    assert OTHER.recall_roster("vm1") is None, "not before it is accepted"
    OTHER.accept(START + timedelta(days=1))
    assert OTHER.find_other() is None
    assert ONE.find_other() is None, "disks may be used in turn"
    OTHER.note_roster("vm1", SEEN)
    assert OTHER.recall_roster("vm1") == SEEN
    ONE.forget()
    assert OTHER.recall_roster("vm1") is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"repositories":{"1e":{"seen":"now"}}}', b"{" * 100_000], ids=repr
)
def test_a_damaged_file_is_as_none(content: bytes) -> None:
    ONE.note_roster("vm1", SEEN)
    the_file().write_bytes(content)
    assert ONE.recall_roster("vm1") is None
    ONE.note_roster("vm1", SEEN)
    assert ONE.recall_roster("vm1") == SEEN


def test_without_a_home_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    ONE.note_roster("vm1", SEEN)
    assert ONE.recall_roster("vm1") is None
