# SPDX-License-Identifier: Apache-2.0
"""What encodes content against sources."""

from __future__ import annotations

from typing import ClassVar, Protocol


class DeltaCodec(Protocol):
    """Encodes and decodes deltas; one object may be used by many threads at once."""

    encoding_id: ClassVar[int]
    """The number that record headers carry; never given to another codec."""
    name: ClassVar[str]

    def encode(self, content: memoryview, sources: memoryview) -> bytes:
        """Return `content` encoded against `sources`."""
        ...

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
