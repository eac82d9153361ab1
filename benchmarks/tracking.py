#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backups of a 64 GiB sparse image on XFS after 200 writes of 4 KiB: everything read, and what changed (`--track reflink`).

    python benchmarks/tracking.py --work DIR [--data-gib 4] [--image-gib 64] [--runs 3]

Needs   root, for a loop mount.
Writes  `DIR/tracking/`, removed at the end: twice the data.
Prints  a table: time, processor time, bytes read and stored of each kind of backup, medians. Only the second means something
        where others use the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peer import CHECKOUT

_MIB = 1 << 20
_PIECE_BYTES = 64 * _MIB
_WRITES, _BLOCK_BYTES = 200, 4096
_SEED = 20261129


@dataclass(frozen=True, slots=True)
class Outcome:
    """One backup."""

    wall_s: float
    cpu_s: float
    result: dict[str, Any]


def main() -> None:
    """Measure, and print the table."""
    options = read_options(__doc__, data_gib=4)
    chance = random.Random(_SEED)
    with file_system(options.work / "tracking", options.image_gib) as (image, repository):
        places = fill(image, options.image_gib, options.data_gib, chance)
        run(repository, "init")
        back_up(image, repository, "auto")
        print_head()
        compare(image, repository, "reflink", lambda: write(image, places, chance), options.runs)


def read_options(description: str | None, *, data_gib: float, image_gib: int = 64) -> argparse.Namespace:
    """Return what the command line says: where to work, how large the image is, how often.

    Args:
        data_gib, image_gib: by default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data-gib", type=float, default=data_gib)
    parser.add_argument("--image-gib", type=int, default=image_gib)
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


def print_head() -> None:
    """Print the head of the table."""
    print("| backup | wall s | CPU s | read MiB | changed KiB | stored KiB |\n| --- | --- | --- | --- | --- | --- |")


@contextmanager
def file_system(folder: Path, image_gib: int) -> Iterator[tuple[Path, Path]]:
    """Yield the path of an image on a new XFS, and that of a repository beside it."""
    mount, backing = folder / "mnt", folder / "xfs"
    mount.mkdir(parents=True)
    try:
        with open(backing, "wb") as file:
            file.truncate((image_gib + 32) << 30)
        subprocess.run(["mkfs.xfs", "-q", backing], check=True)
        subprocess.run(["mount", "-o", "loop", backing, mount], check=True)
        try:
            yield mount / "vm1.raw", folder / "repo"
        finally:
            subprocess.run(["umount", mount], check=True)
    finally:
        shutil.rmtree(folder)


def fill(image: Path, image_gib: int, data_gib: float, chance: random.Random) -> list[int]:
    """Write data, which compresses to half, in pieces all over the image; return where each begins."""
    count = max(1, int(data_gib * 1024 * _MIB) // _PIECE_BYTES)
    starts = [number * (image_gib << 30) // count // _BLOCK_BYTES * _BLOCK_BYTES for number in range(count)]
    with open(image, "wb") as file:
        file.truncate(image_gib << 30)
        for start in starts:
            file.seek(start)
            file.writelines(chance.randbytes(_MIB // 2).hex().encode() for _ in range(_PIECE_BYTES // _MIB))
    return starts


def write(image: Path, starts: list[int], chance: random.Random) -> None:
    """Overwrite random blocks of the data."""
    with open(image, "r+b") as file:
        for _ in range(_WRITES):
            file.seek(chance.choice(starts) + chance.randrange(_PIECE_BYTES // _BLOCK_BYTES) * _BLOCK_BYTES)
            file.write(chance.randbytes(_BLOCK_BYTES))
        os.fsync(file.fileno())


def compare(
    image: Path | str, repository: Path, mode: str, write_some: Callable[[], None], runs: int, prefix: str = ""
) -> None:
    """Back up without tracking, with it, and with it where nothing was written; print a row for each."""
    for name, row_mode, is_written in (
        ("everything read", "scan", True),
        ("what changed", mode, True),
        ("nothing changed", mode, False),
    ):
        found = []
        for _ in range(runs):
            if is_written:
                write_some()
            found.append(back_up(image, repository, row_mode))
        print_row(prefix + name, found)


def back_up(image: Path | str, repository: Path, mode: str) -> Outcome:
    """Back up, and measure."""
    return run(repository, "backup", image, "--image", "vm1", "--track", mode, "--full-scan-every", "never")


def run(repository: Path, *words: object) -> Outcome:
    """Run a command of this checkout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "deltaimg", *map(str, words), "-r", str(repository), "--json"]
    begun = time.monotonic()
    printed = subprocess.run(command, check=True, capture_output=True, cwd=CHECKOUT).stdout
    wall_s = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Outcome(wall_s, cpu_s, json.loads(printed.splitlines()[-1]))


def median_times(found: list[Outcome]) -> tuple[float, float]:
    """Return seconds by the clock and of processors."""
    return statistics.median(each.wall_s for each in found), statistics.median(each.cpu_s for each in found)


def print_row(name: str, found: list[Outcome]) -> None:
    """Print the medians of some backups."""

    def median(field: str) -> float:
        return statistics.median(each.result[field] for each in found)

    wall_s, cpu_s = median_times(found)
    print(
        f"| {name} | {wall_s:.2f} | {cpu_s:.2f} | {median('read_bytes') / _MIB:.2f} | {median('changed_bytes') / 1024:.0f} "
        f"| {median('stored_bytes') / 1024:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
