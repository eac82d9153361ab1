# SPDX-License-Identifier: Apache-2.0
"""The type checker refuses numbers of one thing where those of another belong; at run time they are plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deltaimg.arrays import distinct
from deltaimg.ids import EntryNumbers, RecordNumber, RecordNumbers

_ROOT = Path(__file__).parents[2]

_SNIPPET = _ROOT / "tests/typing/mixed_numbers.py"


def test_numbers_of_one_kind_are_refused_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api")
    monkeypatch.chdir(_ROOT)
    monkeypatch.setenv("MYPYPATH", str(_ROOT))
    out, errors, _ = api.run(
        ["--strict", "--no-error-summary", "--hide-error-context", str(_SNIPPET.relative_to(_ROOT))]
    )
    found = {int(line.split(":")[1]) for line in out.splitlines() if "mixed_numbers.py:" in line}
    lines = _SNIPPET.read_text().splitlines()
    assert found == {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}, out + errors


def test_at_run_time_they_are_the_arrays_that_they_were_made_of() -> None:
    plain = np.array([3, 1, 3])
    assert EntryNumbers(plain) is plain
    assert type(RecordNumbers(plain)[:2]) is np.ndarray
    assert distinct(EntryNumbers(plain)).tolist() == [1, 3]
    assert type(RecordNumber(7)) is int
