#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backups of a 10 GiB sparse image of Ceph after 200 writes of 4 KiB: everything read, and what changed (`--track rbd`).

    python benchmarks/ceph.py --work DIR [--data-gib 2] [--image-gib 10] [--runs 3]

Needs   root, and the Debian packages ceph-mon, ceph-osd and ceph-common: it starts a cluster of one OSD on this machine.
Writes  `DIR/ceph/`, removed at the end: twice the data.
Prints  the table of tracking.py, without the cluster's processor time. By the clock, snapshots are made and removed as well.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from peer import CHECKOUT
from tracking import back_up, compare, print_head, read_options, run

from deltaimg.image.rbd.address import parse_rbd_address
from deltaimg.image.rbd.image import opened_rbd_image

_POOL, _PIECE_BYTES, _MIB = "vms", 64 << 20, 1 << 20
_WRITES, _BLOCK_BYTES = 200, 4096


def main() -> None:
    """Measure, and print the table."""
    options = read_options(__doc__, data_gib=2, image_gib=10)
    chance = random.Random(20261129)
    folder: Path = options.work / "ceph"
    sys.path.insert(0, str(CHECKOUT))
    support: Any = importlib.import_module("tests.support.ceph")
    try:
        with support.ceph_cluster(folder / "cluster") as cluster:
            os.environ["CEPH_CONF"] = cluster.settings
            subprocess.run(["ceph", "osd", "pool", "create", _POOL, "8"], check=True, capture_output=True)
            subprocess.run(["rbd", "pool", "init", _POOL], check=True)
            subprocess.run(["rbd", "create", f"{_POOL}/vm1", "--size", f"{options.image_gib}G"], check=True)
            image = f"rbd:{_POOL}/vm1"
            places = fill(image, options.image_gib, options.data_gib, chance)
            run(folder / "repo", "init")
            back_up(image, folder / "repo", "auto")
            print_head()
            compare(image, folder / "repo", "rbd", lambda: write(image, places, chance), options.runs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(image: str, image_gib: int, data_gib: float, chance: random.Random) -> list[int]:
    """Write data in pieces all over the image; return where each begins."""
    count = max(1, int(data_gib * 1024 * _MIB) // _PIECE_BYTES)
    starts = [number * (image_gib << 30) // count // _BLOCK_BYTES * _BLOCK_BYTES for number in range(count)]
    with opened_rbd_image(parse_rbd_address(image), is_writable=True) as opened:
        for start in starts:
            for offset in range(start, start + _PIECE_BYTES, 4 * _MIB):
                opened.write(offset, memoryview(chance.randbytes(4 * _MIB)))
        opened.flush()
    return starts


def write(image: str, starts: list[int], chance: random.Random) -> None:
    """Overwrite random blocks of the data."""
    with opened_rbd_image(parse_rbd_address(image), is_writable=True) as opened:
        for _ in range(_WRITES):
            offset = chance.choice(starts) + chance.randrange(_PIECE_BYTES // _BLOCK_BYTES) * _BLOCK_BYTES
            opened.write(offset, memoryview(chance.randbytes(_BLOCK_BYTES)))
        opened.flush()


if __name__ == "__main__":
    main()
