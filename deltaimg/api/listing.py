# SPDX-License-Identifier: Apache-2.0
"""What a listing of snapshots tells; apart from `inspection`, so that a listing loads no more than it needs."""

from __future__ import annotations

from deltaimg.engine.inspect.listing import describe_snapshots as describe_snapshots
