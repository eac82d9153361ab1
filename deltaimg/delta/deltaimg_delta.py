# SPDX-License-Identifier: Apache-2.0
"""deltaimg's own deltas: copies of sources and small differences, then zstd. See `codec/delta_body.py`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from deltaimg.codec.delta_body import ENCODING_ID, NAME, DeltaBody, decode_body, encode_body
from deltaimg.codec.zstd import choose_delta_level
from deltaimg.delta.interface import ChooseUsed, DeltaCodec, UsedSources
from deltaimg.kernels import gather_blocks


class DeltaimgDelta(DeltaCodec):
    """Compresses at a level that follows from the literals' level; decodes what any level made."""

    encoding_id: ClassVar[int] = ENCODING_ID
    name: ClassVar[str] = NAME

    def __init__(self, level: int = 3) -> None:
        self.level = choose_delta_level(level)

    def encode(self, content: memoryview, sources: memoryview) -> bytes:
        """Return a delta body as a zstd frame."""
        return encode_body(content, sources, self.level)

    def encode_used(
        self, content: memoryview, sources: memoryview, block_bytes: int, choose: ChooseUsed
    ) -> tuple[bytes, UsedSources | None]:
        """Return the same against those blocks of `sources` that are worth having, and these; None: all of them."""
        body = DeltaBody(content, sources)
        is_kept = choose(body.count_use(block_bytes))
        if is_kept.all():
            return body.compress(self.level), None
        kept = gather_blocks(sources, block_bytes, np.flatnonzero(is_kept).astype(np.uint32)).data
        return self.encode(content, kept), UsedSources(is_kept, kept)

    def decode(
        self, payload: memoryview, sources: memoryview, raw_bytes: int, scratch: memoryview | None = None
    ) -> memoryview:
        """Return exactly `raw_bytes` bytes, in `scratch` if that is given; raises ValueError for anything else."""
        return decode_body(payload, sources, raw_bytes, scratch)
