# SPDX-License-Identifier: Apache-2.0
"""Delta bodies, small and fixed: one that deltaimg makes, and one made by hand of what it never makes."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from deltaimg.format.framing import VERSION
from deltaimg.kernels import delta_bound, delta_work_bytes, encode_delta

FOLDER = Path(__file__).parent / f"v{VERSION}" / "delta-body"


@dataclass(frozen=True, slots=True)
class DeltaSample:
    """A body, and what it makes of which sources."""

    sources: bytes
    content: bytes
    body: bytes


def _noise(seed: int, count: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d %d" % (seed, part)).digest() for part in range(count // 32 + 1))[:count]


def _make_table(added: int) -> bytes:
    """Rows of 24 bytes: a number, a counter, and what four rows have in common."""
    return b"".join(struct.pack("<IHH", row, 7, row * 3 + added) + _noise(row // 4, 16) for row in range(60))


def encode(content: bytes, sources: bytes) -> bytes:
    """Return the body that deltaimg makes."""
    room = memoryview(bytearray(delta_bound(len(content))))
    parts = encode_delta(content, sources, bytearray(delta_work_bytes(len(content))), room)
    return bytes(room[: sum(parts)])


def _make_by_deltaimg() -> DeltaSample:
    sources = _make_table(0) + _noise(100, 300)
    changed = bytearray(sources[1440:1700])
    changed[40], changed[90:92], changed[150:155] = 1, b"\2\3", b"12345"
    content = _noise(101, 50) + _make_table(257)[240:960] + bytes(changed) + b"-" * 300 + _make_table(257)[240:700]
    content += b"x" + sources[:200] + _noise(102, 20)
    return DeltaSample(sources, content, encode(content, sources))


def _make_by_hand() -> DeltaSample:
    """Flags that differ, a varint longer than it must be, added bytes without a base: what deltaimg's search does not make."""
    short, long = b"0123456789abcdefghijklmnopqrstuv", b"what is long is never a difference"[:33]
    operations = bytes([
        0 << 3 | 4, 8,          # copies "abcdefgh", place 0
        1 << 3 | 3, 2,          # adds "!" as a difference from "g", copies "h!", distance 2
        2 << 3 | 2, 4,          # adds "yz", copies "z" four times: distance 1 is the third
        2 << 3 | 3, 0x83, 0,    # adds "??", whose bases would pass the end of the sources; copies "bcd", distance 18
        31 << 3 | 0, 1, 1,      # adds 32 bytes, copies one of them
        31 << 3 | 1, 2, 2,      # adds 33 bytes, copies the last of them twice: distance 1 is the second
        0 << 3 | 4, 10,         # copies the sources from 6 on, 2 before where the latest copy from them ended
        2 << 3 | 4, 3,          # adds "##", whose bases would lie before the sources; copies "bcd"
    ])  # fmt: skip
    planes = bytes([0, 2, 18, 3, 29]) + bytes(10)
    singles = bytes([ord("!") - ord("g") & 255])
    shorts = b"yz" + short
    longs = b"??" + long + b"##" + b"end"
    head = bytes([1, len(operations), 5, len(singles), len(shorts)])
    content = b"abcdefgh!h!yzzzzz??bcd" + short + b"e" + long + long[-1:] * 2 + b"ghijklmnop##bcdend"
    return DeltaSample(b"abcdefghijklmnop", content, head + operations + planes + singles + shorts + longs)


DELTA_SAMPLES = {"by-deltaimg": _make_by_deltaimg(), "by-hand": _make_by_hand()}


def golden_delta_files() -> dict[Path, bytes]:
    """Return what belongs into each file."""
    return {
        FOLDER / f"{name}.{part}": getattr(sample, part)
        for name, sample in DELTA_SAMPLES.items()
        for part in ("sources", "content", "body")
    }


def read_delta_sample(name: str) -> DeltaSample:
    """Return a sample as it lies on file."""
    return DeltaSample(*((FOLDER / f"{name}.{part}").read_bytes() for part in ("sources", "content", "body")))
