# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of what opens seals: `python -m tests.fuzz.fuzz_sealed TARGET [libFuzzer options]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["deltaimg.format", "deltaimg.crypto"]):
    from tests.fuzz.sealed_targets import TARGETS

from tests.fuzz.harness import run


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]

    def exercise(data: bytes) -> None:
        target.exercise(data)

    run(exercise)


if __name__ == "__main__":
    main()
