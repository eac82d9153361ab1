# SPDX-License-Identifier: Apache-2.0
"""Codecs by number and by name."""

from __future__ import annotations

from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.codec.interface import Codec
from deltaimg.codec.none import NoneCodec
from deltaimg.codec.zstd import ZstdCodec

_DECODERS: dict[int, Codec] = {codec.encoding_id: codec for codec in (NoneCodec(), ZstdCodec(), DeltaimgCodec())}


def find_decoder(encoding_id: int) -> Codec | None:
    """Return the codec that decodes records with this encoding, or None when there is none."""
    return _DECODERS.get(encoding_id)
