#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Full backups of a guest with deleted files: as it is, with `--free-space skip`, and after zerofree.

    python benchmarks/free_space.py --work DIR [--deleted-gib 4] [--kept-gib 2] [--runs 3]

Needs   root, for a loop mount; zerofree.
Writes  `DIR/free-space/`, removed at the end: four times the data.
Prints  a table: time, processor time and bytes of each, medians; whether the image is byte for byte what it was before.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
from pathlib import Path

from measuring.files import remove, warm
from tracking import Outcome, median_times, run

from deltaimg.model import GIB, MIB

_SEED = 20261129
_FILE_BYTES = 8 * MIB


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--deleted-gib", type=float, default=4)
    parser.add_argument("--kept-gib", type=float, default=2)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    folder = options.work / "free-space"
    folder.mkdir(parents=True)
    try:
        image, zeroed = folder / "guest.raw", folder / "zeroed.raw"
        make_guest(image, folder / "mnt", options.kept_gib, options.deleted_gib)
        before = digest(image)
        subprocess.run(["cp", "--sparse=always", image, zeroed], check=True)
        subprocess.run(["zerofree", zeroed], check=True)
        subprocess.run(["fallocate", "--dig-holes", zeroed], check=True)
        print("| full backup | wall s | CPU s | read MiB | stored MiB |\n| --- | --- | --- | --- | --- |")
        for name, path, mode in (
            ("as it is", image, "keep"),
            ("--free-space skip", image, "skip"),
            ("after zerofree", zeroed, "keep"),
        ):
            warm(path)
            print_row(name, [back_up(folder / "repo", path, mode) for _ in range(options.runs)])
        print(f"\nThe image is {'as it was' if digest(image) == before else '**CHANGED**'}.")
    finally:
        shutil.rmtree(folder)


def make_guest(image: Path, mount: Path, kept_gib: float, deleted_gib: float) -> None:
    """Fill an ext4 with files, which compress to half, and delete some of them, here and there."""
    chance = random.Random(_SEED)
    total = int((kept_gib + deleted_gib) * GIB) // _FILE_BYTES
    with open(image, "wb") as file:
        file.truncate(int((kept_gib + deleted_gib + 2) * GIB))
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        for number in range(total):
            (mount / f"file-{number}").write_bytes(chance.randbytes(_FILE_BYTES // 2).hex().encode())
        os.sync()  # What is deleted before it is written never reaches the image.
        for number in chance.sample(range(total), int(deleted_gib * GIB) // _FILE_BYTES):
            (mount / f"file-{number}").unlink()
    finally:
        subprocess.run(["umount", mount], check=True)


def digest(image: Path) -> str:
    """Return a digest of the whole image, holes and all."""
    return subprocess.run(["b2sum", image], check=True, capture_output=True, text=True).stdout.split()[0]


def back_up(repository: Path, image: Path, mode: str) -> Outcome:
    """Back up to a new repository, and measure."""
    remove(repository)
    run(repository, "init")
    return run(repository, "backup", image, "--image", "vm1", "--free-space", mode)


def print_row(name: str, found: list[Outcome]) -> None:
    """Print the medians of some backups."""
    wall_s, cpu_s = median_times(found)
    read, stored = (found[0].result[field] / MIB for field in ("read_bytes", "stored_bytes"))
    print(f"| {name} | {wall_s:.2f} | {cpu_s:.2f} | {read:.0f} | {stored:.1f} |", flush=True)


if __name__ == "__main__":
    main()
