# SPDX-License-Identifier: Apache-2.0
"""Content as it is, for what does not compress."""

from __future__ import annotations

from typing import ClassVar


class NoneCodec:
    """Stores bytes unchanged."""

    encoding_id: ClassVar[int] = 0
    name: ClassVar[str] = "none"

    def encode(self, data: bytes | memoryview) -> bytes:
        """Return a copy."""
        return bytes(data)

    def decode(self, payload: bytes | memoryview, raw_bytes: int, scratch: memoryview | None = None) -> memoryview:
        """Return `payload` itself; raises ValueError if it does not have `raw_bytes` bytes."""
        del scratch  # nothing to expand
        if len(payload) != raw_bytes:
            raise ValueError(f"{len(payload)} bytes, not {raw_bytes}")
        return memoryview(payload)
