# SPDX-License-Identifier: Apache-2.0
"""`coverage`: when the content of each pack was last proven. Replaced whole by each `verify`; nothing depends on it.

body    := head entries
head    := u32 entry_count, u32 zero
entries := entry_count times `ENTRY`, in order of pack
"""

from __future__ import annotations

import itertools
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deltaimg.format.framing import BodyReader, Kind, frame, unframe

COVERAGE: Final = "coverage"
HEAD: Final = struct.Struct("<II")
ENTRY: Final = np.dtype([("pack", "u1", (32,)), ("proven_us", "<u8")])
MAX_PROVEN_US: Final = 2**53
"""The year 2255; and what JSON and floating point still hold exactly."""


def build_coverage(proven_us: dict[str, int]) -> bytes:
    """Return a coverage object; packs are given by their digests, as hexadecimal text."""
    entries = np.zeros(len(proven_us), ENTRY)
    for place, pack in enumerate(sorted(proven_us)):
        entries["pack"][place] = np.frombuffer(bytes.fromhex(pack), np.uint8)
        entries["proven_us"][place] = proven_us[pack]
    return frame(Kind.COVERAGE, HEAD.pack(len(entries), 0) + entries.tobytes())


def parse_coverage(data: bytes, name: str = COVERAGE) -> dict[str, int]:
    """Read a coverage object: when each pack was last proven; raises IntegrityError or UnsupportedFormat."""
    reader = BodyReader(name, unframe(Kind.COVERAGE, name, data))
    entry_count, reserved = reader.take_struct(HEAD)
    if reserved:
        reader.refuse("reserved bytes are not zero")
    entries: npt.NDArray[Any] = np.frombuffer(reader.take(ENTRY.itemsize * entry_count), ENTRY)
    reader.expect_end()
    packs = [pack.tobytes().hex() for pack in entries["pack"]]
    if any(after <= before for before, after in itertools.pairwise(packs)):
        reader.refuse("its packs are out of order")
    if entry_count and int(entries["proven_us"].max()) > MAX_PROVEN_US:
        reader.refuse("a time lies beyond any clock")
    return dict(zip(packs, entries["proven_us"].tolist(), strict=True))
