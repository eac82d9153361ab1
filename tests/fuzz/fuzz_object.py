# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of one parser: `python -m tests.fuzz.fuzz_object KIND [libFuzzer options]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["deltaimg.format"]):
    from tests.fuzz.object_targets import exercise_object

from tests.fuzz.harness import run


def main() -> None:
    kind = sys.argv.pop(1)

    def exercise(data: bytes) -> None:
        exercise_object(kind, data)

    run(exercise)


if __name__ == "__main__":
    main()
