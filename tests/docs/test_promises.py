# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md names the test of each promise: they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_promise_has_a_test_that_exists() -> None:
    rows = re.findall(r"^\| [^|]+ \| `(test_\w+)` \|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)\(", sources, re.MULTILINE))
    assert len(rows) >= 15
    assert set(rows) <= known, set(rows) - known
    assert len(re.findall(r"`test_", (ROOT / "docs" / "reliability.md").read_text())) == len(rows), "each in a row"
