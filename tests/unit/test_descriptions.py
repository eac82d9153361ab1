# SPDX-License-Identifier: Apache-2.0
"""What a summary says of change tracking: nothing of an audit that had nothing to compare."""

from __future__ import annotations

import pytest

from deltaimg.describe.snapshots import format_tracking
from deltaimg.format.manifest import Tracking


@pytest.mark.parametrize(
    ("unchanged_bytes", "audited_blocks", "said"),
    [
        (0, 0, "0 B not read (reflink)"),
        (4096, 0, "4.0 KiB not read (reflink), and none of it compared"),
        (4096, 1, "4.0 KiB not read (reflink); 1 block of it compared, which finds 99 % of wrong ones with 99 %"),
        (
            1 << 30,
            459,
            "1.0 GiB not read (reflink); 459 blocks of it compared, which finds 1 % of wrong ones with 99 %",
        ),
    ],
)
def test_an_audit_is_described_where_there_was_one(unchanged_bytes: int, audited_blocks: int, said: str) -> None:
    found = Tracking(
        method="reflink",
        reason="",
        last_scan="20261130T000000.000000Z",
        unchanged_bytes=unchanged_bytes,
        audited_blocks=audited_blocks,
        refuted_blocks=0,
    )
    assert format_tracking(found) == said
