# SPDX-License-Identifier: Apache-2.0
"""`verified`: when the content of each pack was last verified. Replaced whole by each `verify`; nothing depends on it.

body    := head entries
head    := u32 entry_count, u32 zero
entries := entry_count times `ENTRY`, in order of pack
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.format.framing import BodyReader, Kind, frame, unframe

VERIFIED: Final = "verified"
HEAD: Final = struct.Struct("<II")
ENTRY: Final = np.dtype([("pack", "u1", (32,)), ("verified_us", "<u8")])
MAX_VERIFIED_US: Final = 2**53
"""The year 2255; and what JSON and floating point still hold exactly."""


class VerifiedObject(Struct, frozen=True):
    """Packs by their digests, of shape (count, 32) and ascending, and when each was verified, in microseconds since 1970."""

    packs: npt.NDArray[np.uint8]
    verified_us: npt.NDArray[np.uint64]

    def find(self, packs: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Return for each of `packs`, of shape (count, 32), when it was verified, -1 for one that is not known."""
        if not len(self.packs):
            return np.full(len(packs), -1, np.int64)
        known, wanted = _as_keys(self.packs), _as_keys(packs)
        places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[places] == wanted, self.verified_us[places].astype(np.int64), -1)


def build_verified(content: VerifiedObject) -> bytes:
    """Return a `verified` object."""
    entries = np.zeros(len(content.packs), ENTRY)
    entries["pack"], entries["verified_us"] = content.packs, content.verified_us
    return frame(Kind.VERIFIED, HEAD.pack(len(entries), 0) + entries.tobytes())


def parse_verified(data: bytes, name: str = VERIFIED) -> VerifiedObject:
    """Read a `verified` object; raises IntegrityError or UnsupportedFormat."""
    reader = BodyReader(name, unframe(Kind.VERIFIED, name, data))
    entry_count, reserved = reader.take_struct(HEAD)
    if reserved:
        reader.refuse("reserved bytes are not zero")
    entries: npt.NDArray[Any] = np.frombuffer(reader.take(ENTRY.itemsize * entry_count), ENTRY)
    reader.expect_end()
    packs = np.ascontiguousarray(entries["pack"])
    keys = _as_keys(packs)
    if bool(np.any(keys[1:] <= keys[:-1])):
        reader.refuse("its packs are out of order")
    if entry_count and int(entries["verified_us"].max()) > MAX_VERIFIED_US:
        reader.refuse("a time lies beyond any clock")
    return VerifiedObject(packs, entries["verified_us"].astype(np.uint64))


def _as_keys(packs: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """View digests as strings of fixed width, which numpy compares: ignoring zeros at their ends makes no two equal."""
    return np.ascontiguousarray(packs).view("S32").reshape(len(packs))
