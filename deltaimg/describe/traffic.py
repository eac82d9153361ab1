# SPDX-License-Identifier: Apache-2.0
"""What went to a repository's store and came from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaimg.describe.text import format_bytes, format_count

if TYPE_CHECKING:
    from deltaimg.store.counted import Traffic


def describe_traffic(traffic: Traffic) -> dict[str, object]:
    """Return it for programs."""
    return {
        "requests": dict(traffic.requests),
        "sent_bytes": traffic.sent_bytes,
        "received_bytes": traffic.received_bytes,
    }


def format_traffic(traffic: Traffic) -> str:
    """Return it for people."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in traffic.requests.items())
    return (
        f"store: {format_count(sum(traffic.requests.values()), 'request')}{f' ({kinds})' * bool(kinds)}, "
        f"{format_bytes(traffic.sent_bytes)} sent, {format_bytes(traffic.received_bytes)} received"
    )
