# SPDX-License-Identifier: Apache-2.0
"""The first screen of docs/benchmarks.md is what the newest committed results say."""

from __future__ import annotations

import fcntl
import importlib
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_summary_is_made_of_the_newest_results(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib: is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    try:
        report, summary = importlib.import_module("report"), importlib.import_module("summary")
        results = importlib.import_module("measuring.results")
        files = report.newest_results(ROOT / "benchmarks" / "results")[summary.GUEST]
        table = summary.summary_table(reduce(results.merge, map(results.read_csv, files)))
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert "\n".join(table) in text, "run benchmarks/report.py"
    assert len(table) == 2 + 10
    assert text.index("![") < text.index(table[0]) < 1500
    assert (ROOT / "docs" / "images" / "benchmark-summary.svg").exists()


def test_a_second_run_in_one_folder_is_refused_and_removes_nothing(tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    command = [sys.executable, str(ROOT / "benchmarks" / "year.py"), "--work", str(tmp_path), "--rows", "check"]
    with (tmp_path / ".trial.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run([*command, "--peers", "deltaimg"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("year.py: another run uses")
    assert (tmp_path / "trial").is_dir()
