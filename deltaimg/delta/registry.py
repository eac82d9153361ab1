# SPDX-License-Identifier: Apache-2.0
"""Delta codecs by the numbers that stand for them."""

from __future__ import annotations

from deltaimg.delta.interface import DeltaCodec
from deltaimg.delta.zstd_delta import ZstdDelta

_DECODERS: dict[int, DeltaCodec] = {codec.encoding_id: codec for codec in (ZstdDelta(),)}


def find_delta_decoder(encoding_id: int) -> DeltaCodec | None:
    """Return the codec that decodes delta records with this encoding, or None when there is none."""
    return _DECODERS.get(encoding_id)


def make_delta_codecs(mode: str, level: int) -> tuple[DeltaCodec, ...]:
    """Return the codecs to try for a delta, for literals of a level; none for mode `none`."""
    return () if mode == "none" else (ZstdDelta(level),)
