# SPDX-License-Identifier: Apache-2.0
"""What `benchmark` measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltaimg.engine.inspect.benchmark import Measurement


def describe_measurement(measured: Measurement) -> dict[str, object]:
    """Return one speed for programs."""
    return {"what": measured.what, "bytes_per_s": round(measured.bytes_per_s), "detail": measured.detail}
