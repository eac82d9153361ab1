# SPDX-License-Identifier: Apache-2.0
"""What encodes content against sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import Flags

ChooseUsed = Callable[[npt.NDArray[np.uint32]], Flags]
"""Takes how many bytes a delta needs of each block of its sources; returns which blocks are worth having."""


class UsedSources(Struct, frozen=True):
    """Some blocks of sources: which ones, and their content."""

    is_kept: Flags
    content: memoryview


class DeltaCodec(Protocol):
    """Encodes and decodes deltas; one object may be used by many threads at once."""

    encoding_id: ClassVar[int]
    """The number that record headers carry; never given to another codec."""
    name: ClassVar[str]

    def encode(self, content: memoryview, sources: memoryview) -> bytes:
        """Return `content` encoded against `sources`."""
        ...

    def encode_used(
        self,
        content: memoryview,
        sources: memoryview,
        block_bytes: int,  # noqa: ARG002 - for codecs that know what they use
        choose: ChooseUsed,  # noqa: ARG002
    ) -> tuple[bytes, UsedSources | None]:
        """Return `content` encoded against those blocks of `sources` that are worth having, and these; None: all of them.

        None of them may be worth having. A codec that does not know what it uses takes all.
        """
        return self.encode(content, sources), None

    def decode(
        self, payload: memoryview, sources: memoryview, raw_bytes: int, scratch: memoryview | None = None
    ) -> memoryview:
        """Return exactly `raw_bytes` bytes; raises ValueError for anything else, having expanded nothing larger.

        Args:
            scratch: at least `raw_bytes` of memory that the result may lie in; it is then good until the next use of
                `scratch`. Without it, the result has memory of its own.
        """
        ...


DeltaCodecs = tuple[tuple[DeltaCodec, ...], ...]
"""What is tried for a delta, in rounds: of a round all codecs, and the next round only where the delta is still large."""
