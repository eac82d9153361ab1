# SPDX-License-Identifier: Apache-2.0
"""Codecs by the numbers and names that stand for them."""

from __future__ import annotations

from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.codec.interface import Codec
from deltaimg.codec.none import NoneCodec
from deltaimg.codec.zstd import LEVELS, MAX_LEVEL, MIN_LEVEL, ZstdCodec
from deltaimg.errors import UsageError

_DECODERS: dict[int, Codec] = {codec.encoding_id: codec for codec in (NoneCodec(), ZstdCodec(), DeltaimgCodec())}


def find_decoder(encoding_id: int) -> Codec | None:
    """Return the codec that decodes records with this encoding, or None when there is none."""
    return _DECODERS.get(encoding_id)


def parse_level(text: str | int) -> int:
    """Return the zstd level that `fast`, `default`, `best` or a number means; raises UsageError."""
    if isinstance(text, str) and text in LEVELS:
        return LEVELS[text]
    try:
        level = int(text)
    except ValueError:
        level = MIN_LEVEL - 1
    if not MIN_LEVEL <= level <= MAX_LEVEL:
        raise UsageError(
            f"compression '{text}' is neither {', '.join(LEVELS)} nor a level from {MIN_LEVEL} to {MAX_LEVEL}",
            hint="'default' is zstd level 3",
        )
    return level
