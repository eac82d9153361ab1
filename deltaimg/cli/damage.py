# SPDX-License-Identifier: Apache-2.0
"""Damaged extents of a snapshot, listed for people: one damaged record can cost ten thousand of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from deltaimg.cli.terminal import Terminal, format_bytes, format_count

if TYPE_CHECKING:
    from deltaimg.api.results import DamagedExtent

SHOWN = 20
"""Extents of a snapshot that are listed without --verbose."""


def list_extents(extents: Sequence[DamagedExtent], fate: str, terminal: Terminal) -> Iterator[str]:
    """Yield a line for each extent, or for the first of many and how many more there are.

    Args:
        fate: what follows the place: ` are missing and read as zeros`, or nothing.
    """
    shown = extents if terminal.is_verbose else extents[:SHOWN]
    for extent in shown:
        place = f"bytes {extent.start} to {extent.end}" if extent.end > extent.start else "all of it"
        yield f"{place}{fate}: {extent.reason}"
    hidden = extents[len(shown) :]
    if hidden:
        size = format_bytes(sum(each.length for each in hidden))
        yield f"{format_count(len(hidden), 'more extent')}, {size}{fate}; -v shows all"
