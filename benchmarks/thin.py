#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backups of a thin volume of LVM after 200 writes of 4 KiB: everything read, and what changed (`--track thin`).

    python benchmarks/thin.py --device /dev/vdb [--data-gib 0.5] [--image-gib 2] [--runs 3]

Needs   root, LVM, thin-provisioning-tools, and a device whose content may be lost; `DELTAIMG_BENCHMARK=1 scripts/lvm-guest` has
        all of it, in a virtual machine without KVM, where ratios alone mean something.
Writes  a volume group on the device, and a repository in /var/tmp; both are removed at the end.
Prints  the table of tracking.py: processor time, that of LVM's commands with it, and bytes; medians.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracking import back_up, compare, print_head, run, write

_GROUP, _PIECE_BYTES, _MIB = "deltaimg-benchmark", 64 << 20, 1 << 20


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", required=True)
    parser.add_argument("--data-gib", type=float, default=0.5)
    parser.add_argument("--image-gib", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    chance = random.Random(20261129)
    with thin_volume(options.device, options.image_gib) as image, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        repository = Path(folder) / "repo"
        places = fill(image, options.image_gib, options.data_gib, chance)
        run(repository, "init")
        back_up(image, repository, "auto")
        print_head()
        compare(image, repository, "thin", lambda: write(image, places, chance), options.runs)


@contextmanager
def thin_volume(device: str, image_gib: int) -> Iterator[Path]:
    """Yield the device of a new thin volume in a pool of blocks of 64 KiB that takes most of a device."""
    lvm("pvcreate", "--yes", device)
    lvm("vgcreate", _GROUP, device)
    try:
        lvm(
            "lvcreate",
            "--yes",
            "--type",
            "thin-pool",
            "--extents",
            "80%VG",
            "--chunksize",
            "64k",
            "--name",
            "pool",
            _GROUP,
        )
        lvm("lvcreate", "--yes", "--virtualsize", f"{image_gib}G", "--thinpool", "pool", "--name", "vm1", _GROUP)
        yield Path("/dev") / _GROUP / "vm1"
    finally:
        lvm("vgremove", "--force", "--yes", _GROUP)


def fill(image: Path, image_gib: int, data_gib: float, chance: random.Random) -> list[int]:
    """Write data in pieces all over the volume; return where each begins."""
    count = max(1, int(data_gib * 1024 * _MIB) // _PIECE_BYTES)
    starts = [number * (image_gib << 30) // count // _PIECE_BYTES * _PIECE_BYTES for number in range(count)]
    with open(image, "r+b", buffering=0) as device:
        for start in starts:
            device.seek(start)
            device.writelines(chance.randbytes(_MIB) for _ in range(_PIECE_BYTES // _MIB))
    return starts


def lvm(*command: str) -> None:
    """Run a command of LVM."""
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
