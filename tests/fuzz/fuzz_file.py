# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of one target of `file_targets`: `python -m tests.fuzz.fuzz_file TARGET [libFuzzer options]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(
    include=["deltaimg.format", "deltaimg.engine.files", "deltaimg.delta", "deltaimg.kernels.reference_delta"]
):
    from tests.fuzz.file_targets import exercise_file

from tests.fuzz.harness import run


def main() -> None:
    name = sys.argv.pop(1)
    run(lambda data: exercise_file(name, data))


if __name__ == "__main__":
    main()
