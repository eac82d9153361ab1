# SPDX-License-Identifier: Apache-2.0
"""Which snapshots of Ceph were kept, and what `rbd diff` prints as hints. tests/ceph has what needs a cluster."""

from __future__ import annotations

import json

from deltaimg.image.rbd.image import RbdSnapshot
from deltaimg.tracking.hints import parse_hints
from deltaimg.tracking.rbd import choose_kept

KEY, OTHER = "6c565f186e279a6d", "0" * 16
FIRST, SECOND = "516878f5c18801ca", "9a0ef046f326579c"


def test_only_snapshots_of_this_image_that_were_not_made_again_count() -> None:
    def name(key: str, snapshot: str, number: int) -> str:
        return f"deltaimg-{key}-{snapshot}-{number:016x}"

    kept = RbdSnapshot(name(KEY, FIRST, 9), 9, 1 << 25)
    others = [
        RbdSnapshot(name(OTHER, FIRST, 8), 8, 1 << 25),
        RbdSnapshot(name(KEY, SECOND, 10), 12, 1 << 25),  # removed, and made again under its name
        RbdSnapshot(name(KEY, SECOND, 13) + "x", 13, 1 << 25),
        RbdSnapshot(f"deltaimg-{KEY}-{SECOND}", 14, 1 << 25),
        RbdSnapshot("monday", 15, 1 << 25),
    ]
    assert choose_kept([*others, kept], KEY) == {FIRST: kept}


def test_what_rbd_diff_prints_is_a_list_of_hints() -> None:
    """As Ceph 16.2.15 printed it for two writes, an object that was discarded, and zeros."""
    printed = (
        '[{"offset":4096,"length":4096,"exists":"true"},{"offset":9437184,"length":8192,"exists":"true"},'
        '{"offset":12582912,"length":4194304,"exists":"false"},{"offset":21037056,"length":65536,"exists":"true"}]\n'
    )
    document = json.dumps({"snapshot": FIRST, "extents": json.loads(printed)}).encode()
    snapshot, changed = parse_hints(document, "hints.json")
    assert snapshot == FIRST
    assert changed.tolist() == [[4096, 8192], [9437184, 9445376], [12582912, 16777216], [21037056, 21102592]]
