# SPDX-License-Identifier: Apache-2.0
"""Each parser is fuzzed for some seconds, from objects that are good; `scripts/fuzz SECONDS` does it for longer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.file_targets import TARGETS
from tests.fuzz.object_targets import exercise_object, make_seeds
from tests.fuzz.sealed_targets import TARGETS as SEALED_TARGETS
from tests.golden.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]
SECONDS = int(os.environ.get("DELTAIMG_FUZZ_SECONDS", "2"))


def fuzz(module: str, name: str, seeds: Iterable[bytes], folder: Path) -> None:
    """Run one target from its seeds on; nothing may come of it."""
    if find_spec("atheris") is None:
        pytest.skip("atheris: not installed; it has wheels for CPython 3.11 and 3.12")
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    # A process inherits the peak memory of the one that it was started from, here that of all tests so far: one of the
    # shell's own does not.
    done = subprocess.run(
        [
            "sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", f"tests.fuzz.{module}", name, str(corpus),
            f"-max_total_time={SECONDS}", "-rss_limit_mb=1024", "-timeout=10", "-max_len=4096", f"-artifact_prefix={folder}/",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS + 120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr


def seeds_of(kind: str) -> list[bytes]:
    golden = (ROOT / "tests" / "golden" / "v1" / kind).glob("*.bin")
    return [seed for path in golden for seed in make_seeds(kind, path.read_bytes())]


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_makes_a_parser_fail_otherwise_than_it_should(kind: str, tmp_path: Path) -> None:
    fuzz("fuzz_object", kind, seeds_of(kind), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_no_signature_delta_or_patch_fails_otherwise_than_it_should(name: str, tmp_path: Path) -> None:
    fuzz("fuzz_file", name, TARGETS[name].make_seeds(), tmp_path)


@pytest.mark.parametrize("name", SEALED_TARGETS)
def test_nothing_opens_that_was_not_sealed(name: str, tmp_path: Path) -> None:
    fuzz("fuzz_sealed", name, SEALED_TARGETS[name].seeds, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_fuzzing_of_objects_begins_with_is_not_refused(kind: str) -> None:
    # Manifests and the like have their own names in them: all but one are refused under the name of that one.
    assert sum(exercise_object(kind, seed) is not None for seed in seeds_of(kind)) >= 2


@pytest.mark.parametrize("name", TARGETS)
def test_what_fuzzing_of_files_begins_with_is_not_refused(name: str) -> None:
    for seed in TARGETS[name].make_seeds():
        TARGETS[name].exercise(seed)
