# SPDX-License-Identifier: Apache-2.0
"""Hints: what a program may write, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from deltaimg.errors import BadHints
from deltaimg.tracking import hints
from deltaimg.tracking.hints import HintsFile, parse_hints
from tests.golden.samples import SAMPLES

BASE = SAMPLES["manifest"]["full"][1]


def document(*extents: dict[str, object], snapshot: object = BASE.id) -> bytes:
    return json.dumps({"snapshot": snapshot, "extents": extents}).encode()


def parse(*extents: dict[str, object]) -> list[list[int]]:
    found: list[list[int]] = parse_hints(document(*extents), "hints.json")[1].tolist()
    return found


def test_extents_may_overlap_touch_and_come_in_any_order() -> None:
    found = parse(
        {"start": 500, "end": 600}, {"offset": 0, "length": 10}, {"start": 5, "end": 20}, {"start": 20, "end": 30},
        {"start": 7, "end": 8}, {"start": 90, "end": 90}, {"offset": 2**61, "length": 2**61, "exists": "false"},
    )  # fmt: skip
    assert found == [[0, 30], [500, 600], [2**61, 2**62]]
    assert parse() == []


@pytest.mark.parametrize(
    "extent",
    [
        {}, {"start": 5}, {"end": 5}, {"start": 6, "end": 5}, {"offset": 1}, {"length": 1}, {"start": 1, "length": 4},
        {"start": 0, "end": 8, "offset": 0, "length": 8}, {"start": -1, "end": 5}, {"offset": 0, "length": -5},
        {"start": 0, "end": 2**62 + 1}, {"start": 0, "end": 2**64}, {"start": 0.5, "end": 1}, {"start": "0", "end": 1},
        {"start": True, "end": 5},
    ],
)  # fmt: skip
def test_an_extent_that_is_none_is_refused(extent: dict[str, object]) -> None:
    with pytest.raises(BadHints):
        parse({"start": 0, "end": 1}, extent)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"\x00" * 100, document()[:-1], document() + b"x",
        document()[:-2] + b"[1, 2]]}",
        b'{"snapshot": "00000000000000dd"}', b'{"extents": []}', document(snapshot=None), document(snapshot="0000000"),
        document(snapshot="0" * 17), document(snapshot="vm1@latest"), document(snapshot="0" * 16 + "\n"), b"[" * 100_000,
    ],
    ids=range(17),
)  # fmt: skip
def test_what_is_no_list_of_hints_is_refused(content: bytes) -> None:
    with pytest.raises(BadHints, match=r"^hints\.json: is no list of hints"):
        parse_hints(content, "hints.json")


def test_hints_are_for_one_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "hints.json"
    for snapshot in (BASE.id, BASE.id[:8]):
        path.write_bytes(document({"start": 0, "end": 512}, snapshot=snapshot))
        claim = HintsFile(str(path)).find_changes(BASE)
        assert claim.changed is not None
        np.testing.assert_array_equal(claim.changed, [[0, 512]])
    path.write_bytes(document({"start": 0, "end": 512}, snapshot="f" * 16))
    claim = HintsFile(str(path)).find_changes(BASE)
    assert claim.changed is None
    assert claim.is_surprising
    assert "since snapshot ffffffffffffffff" in claim.reason


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "none", tmp_path, "\0"):
        with pytest.raises(BadHints, match="cannot be read"):
            HintsFile(str(path)).find_changes(BASE)
    monkeypatch.setattr(hints, "MAX_HINTS_BYTES", 1000)
    (tmp_path / "large").write_bytes(document(*[{"start": 0, "end": 512}] * 50))
    with pytest.raises(BadHints, match="is larger than 1000 bytes"):
        HintsFile(str(tmp_path / "large")).find_changes(BASE)


def test_hints_may_come_from_a_pipe(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, document({"start": 0, "end": 512}))
    os.close(write)
    try:
        claim = HintsFile(f"/dev/fd/{read}").find_changes(BASE)
    finally:
        os.close(read)
    assert claim.changed is not None
