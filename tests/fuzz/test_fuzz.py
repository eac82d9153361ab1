# SPDX-License-Identifier: Apache-2.0
"""Each parser is fuzzed for some seconds, from the golden objects on; `scripts/fuzz SECONDS` does it for longer."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.golden.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]
SECONDS = int(os.environ.get("DELTAIMG_FUZZ_SECONDS", "3"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_makes_a_parser_fail_otherwise_than_it_should(kind: str, tmp_path: Path) -> None:
    if find_spec("atheris") is None:
        pytest.skip("atheris: not installed; it has wheels for CPython 3.11 and 3.12")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for golden in (ROOT / "tests" / "golden" / "v1" / kind).glob("*.bin"):
        (corpus / golden.name).write_bytes(b"\2" + golden.read_bytes()[64:])
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.fuzz.fuzz_object", kind, str(corpus),
            f"-max_total_time={SECONDS}", "-rss_limit_mb=1024", "-timeout=10", "-max_len=4096", f"-artifact_prefix={tmp_path}/",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS + 120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
