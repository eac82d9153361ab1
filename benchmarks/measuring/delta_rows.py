# SPDX-License-Identifier: Apache-2.0
"""Delta codecs side by side, on content and sources that `delta_pairs.py` has kept.

Always  processor seconds of this thread; rounds of all codecs in turn, and for each pair the smallest of each: what a neighbour
        on the same core costs only adds. Every delta is decoded and compared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deltaimg.codec.zstd import ZstdCodec
from deltaimg.delta.deltaimg_delta import DeltaimgDelta
from deltaimg.delta.interface import DeltaCodec
from deltaimg.delta.xdelta import XdeltaDelta
from deltaimg.delta.zstd_delta import ZstdDelta

ROUNDS = 3
_LARGE_SHARE = 0.125
"""Deltas larger than this share of the content are tried with zstd as well: see `delta/encode.py`."""


class LiteralCodec:
    """zstd without sources, as literal records have it."""

    encoding_id, name = ZstdCodec.encoding_id, "zstd"
    _codec = ZstdCodec()

    def encode(self, content: memoryview, sources: memoryview) -> bytes:
        assert not len(sources)
        return self._codec.encode(content)

    def decode(
        self, payload: memoryview, sources: memoryview, raw_bytes: int, scratch: memoryview | None = None
    ) -> memoryview:
        assert not len(sources)
        return self._codec.decode(payload, raw_bytes, scratch)


@dataclass(frozen=True, slots=True)
class Pair:
    """What an encoder is given; no sources for a literal."""

    content: memoryview
    sources: memoryview


@dataclass(frozen=True, slots=True)
class Measured:
    """What a codec made of each pair, and the processor seconds that it took."""

    delta_bytes: npt.NDArray[np.int64]
    encode_s: npt.NDArray[np.float64]
    decode_s: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DeltaRow:
    """What a codec made of the pairs of a folder."""

    folder: str
    codec: str
    content_mib: float
    delta_mib: float
    ratio: float
    """To zstd on the same pairs."""
    encode_mb_s: float
    encode_with_sources_mb_s: float | None
    """With what choosing and reading the sources took, in the backup that the pairs come from."""
    decode_mb_s: float


def load_pairs(folder: Path, *, literals: bool = False) -> list[Pair]:
    """Return all pairs of a folder, or what was encoded without sources."""
    if literals:
        return [Pair(memoryview(path.read_bytes()), memoryview(b"")) for path in sorted(folder.glob("*.literal"))]
    return [
        Pair(memoryview(path.read_bytes()), memoryview(path.with_suffix(".sources").read_bytes()))
        for path in sorted(folder.glob("*.content"))
    ]


def measure(codec: DeltaCodec, pairs: Sequence[Pair]) -> Measured:
    """Encode and decode every pair once."""
    scratch = memoryview(bytearray(max(len(pair.content) for pair in pairs)))
    sizes, encode_s, decode_s = [], [], []
    for pair in pairs:
        started = time.thread_time()
        delta = codec.encode(pair.content, pair.sources)
        encoded = time.thread_time()
        content = codec.decode(memoryview(delta), pair.sources, len(pair.content), scratch)
        decode_s.append(time.thread_time() - encoded)
        encode_s.append(encoded - started)
        sizes.append(len(delta))
        assert content == pair.content, f"{codec.name} does not give back what it was given"
    return Measured(np.array(sizes), np.array(encode_s), np.array(decode_s))


def try_twice(first: Measured, second: Measured, content_bytes: npt.NDArray[np.int64]) -> Measured:
    """Return what comes of trying a second codec where the first one's delta is large, and keeping the smaller."""
    is_tried = first.delta_bytes > _LARGE_SHARE * content_bytes
    is_second = is_tried & (second.delta_bytes < first.delta_bytes)
    return Measured(
        np.where(is_second, second.delta_bytes, first.delta_bytes),
        first.encode_s + np.where(is_tried, second.encode_s, 0),
        np.where(is_second, second.decode_s, first.decode_s),
    )


def compare_codecs(folder: Path, *, literals: bool = False) -> list[DeltaRow]:
    """Return a row for each codec, and one for zstd after deltaimg where the delta is large."""
    pairs = load_pairs(folder, literals=literals)
    if not pairs:
        return []
    content_bytes = np.array([len(pair.content) for pair in pairs])
    codecs: dict[str, DeltaCodec] = {"zstd": LiteralCodec() if literals else ZstdDelta()}
    codecs |= {"deltaimg": DeltaimgDelta()} if literals else {"xdelta": XdeltaDelta(), "deltaimg": DeltaimgDelta()}
    rounds = [{name: measure(codec, pairs) for name, codec in codecs.items()} for _ in range(ROUNDS)]
    best = {
        name: Measured(
            rounds[0][name].delta_bytes,
            np.min([each[name].encode_s for each in rounds], axis=0),
            np.min([each[name].decode_s for each in rounds], axis=0),
        )
        for name in codecs
    }
    best["deltaimg, zstd where large"] = try_twice(best["deltaimg"], best["zstd"], content_bytes)
    sources_s = None if literals else seconds_for_sources(folder) * int(content_bytes.sum())
    return [
        make_row(
            f"{folder.name} literals" if literals else folder.name,
            name,
            measured,
            best["zstd"],
            int(content_bytes.sum()),
            sources_s,
        )
        for name, measured in best.items()
    ]


def seconds_for_sources(folder: Path) -> float:
    """Return the processor seconds that choosing and reading sources took for each byte of content."""
    totals = json.loads((folder / "totals.json").read_text())
    return float((totals["choose_s"] + totals["read_s"]) / totals["content_bytes"])


def make_row(
    folder: str, codec: str, measured: Measured, zstd: Measured, content_bytes: int, sources_s: float | None
) -> DeltaRow:
    encode_s, megabytes = float(measured.encode_s.sum()), content_bytes / 1e6
    return DeltaRow(
        folder, codec,
        content_mib=round(content_bytes / 2**20, 1),
        delta_mib=round(int(measured.delta_bytes.sum()) / 2**20, 2),
        ratio=round(int(measured.delta_bytes.sum()) / int(zstd.delta_bytes.sum()), 3),
        encode_mb_s=round(megabytes / encode_s),
        encode_with_sources_mb_s=None if sources_s is None else round(megabytes / (encode_s + sources_s)),
        decode_mb_s=round(megabytes / float(measured.decode_s.sum())),
    )  # fmt: skip
