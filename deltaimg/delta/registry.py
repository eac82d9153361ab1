# SPDX-License-Identifier: Apache-2.0
"""Delta codecs by number, and by the name that users give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.codec.interface import Codec
from deltaimg.delta.deltaimg_delta import DeltaimgDelta
from deltaimg.delta.interface import DeltaCodec, DeltaCodecs
from deltaimg.delta.xdelta import XdeltaDelta
from deltaimg.delta.zstd_delta import ZstdDelta

_DECODERS: dict[int, DeltaCodec] = {codec.encoding_id: codec for codec in (ZstdDelta(), XdeltaDelta(), DeltaimgDelta())}

_BEST_LEVEL: Final = 9
_MAKERS: Final[dict[str, Callable[[int], DeltaCodecs]]] = {
    "auto": lambda level: ((DeltaimgDelta(level),), (ZstdDelta(level),)),
    "none": lambda _: (),
    "zstd": lambda level: ((ZstdDelta(level),),),
    "xdelta": lambda level: ((XdeltaDelta(level),),),
    "deltaimg": lambda level: ((DeltaimgDelta(level),),),
    "best": lambda level: (
        (DeltaimgDelta(max(level, _BEST_LEVEL)), ZstdDelta(max(level, _BEST_LEVEL)), XdeltaDelta(_BEST_LEVEL)),
    ),
}
_SECOND_CODEC_MODES: Final = ("auto", "deltaimg", "best")


def find_delta_decoder(encoding_id: int) -> DeltaCodec | None:
    """Return the codec that decodes delta records with this encoding, or None when there is none."""
    return _DECODERS.get(encoding_id)


def make_delta_codecs(mode: str, level: int) -> DeltaCodecs:
    """Return the codecs to try for a delta, for literals of a level; none for mode `none`."""
    return _MAKERS[mode](level)


def make_second_codec(mode: str, level: int) -> Codec | None:
    """Return the codec that is tried for literals of a level besides zstd; None for modes of one foreign codec or of none."""
    return DeltaimgCodec(level) if mode in _SECOND_CODEC_MODES else None
