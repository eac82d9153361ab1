# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of one parser: `python -m tests.fuzz.fuzz_object KIND [libFuzzer options]`.

The first byte of an input chooses how it is dressed: as a body under a header whose checksums are right (where parsers
stand alone), as a map whose columns are packed anew, or as bytes that come from nowhere.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["deltaimg.format"]):
    from tests.fuzz.harness import NAMES, exercise, run

import zstandard

from deltaimg.format.map import HEAD
from tests.golden import forge
from tests.golden.kinds import KINDS, PackContent  # noqa: F401  the harness knows packs by it


def dress(kind: str, data: bytes) -> bytes:
    """Return an object made of fuzzed bytes."""
    how, body = data[:1], data[1:]
    if how == b"\0":
        return body
    if kind == "map" and how == b"\1" and len(body) >= HEAD.size:
        # Columns are compressed: bytes that libFuzzer changes would never come out as columns again.
        ids = 16 * int.from_bytes(body[8:12], "little")
        if ids <= len(body) - HEAD.size:
            planes = zstandard.ZstdCompressor(level=1).compress(body[HEAD.size + ids :])
            head = body[: HEAD.size - 4] + len(planes).to_bytes(4, "little")
            body = head + body[HEAD.size : HEAD.size + ids] + planes
    if kind == "pack":
        at = max(0, len(body) - 48)
        return forge.forge_pack(body[:at], body[at : at + 32], body[at + 32 :])
    return forge.forge_object(KINDS[kind].kind, body)


def main() -> None:
    kind = sys.argv.pop(1)
    run(lambda data: exercise(kind, dress(kind, data), NAMES[kind]))


if __name__ == "__main__":
    main()
