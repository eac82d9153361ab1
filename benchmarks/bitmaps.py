#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backups of a 64 GiB sparse qcow2 image after 200 writes of 4 KiB: everything read, and what dirty bitmaps list.

    python benchmarks/bitmaps.py --work DIR [--data-gib 2] [--image-gib 64] [--runs 3]

Needs   qemu-utils.
Writes  `DIR/bitmaps/`, removed at the end: four times the data.
Prints  a table as `tracking.py` does. Through a file the processor time of the qemu-nbd that reads it is counted, through an
        export that of the server is not.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracking import Outcome, back_up, compare, fill, print_head, print_row, read_options, run

_WRITES, _BLOCK_BYTES, _PIECE_BYTES = 200, 4096, 64 << 20
_SEED = 20261129


def main() -> None:
    """Measure, and print the table."""
    options = read_options(__doc__, data_gib=2)
    chance = random.Random(_SEED)
    folder = options.work / "bitmaps"
    folder.mkdir(parents=True)
    try:
        image, flat = folder / "vm1.qcow2", folder / "vm1.raw"
        places = fill(flat, options.image_gib, options.data_gib, chance)
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", flat, image], check=True)
        flat.unlink()
        run(folder / "repo", "init")
        print_head()
        measure_file(folder, image, places, chance, options.runs)
        measure_export(folder, image, places, chance, options.runs)
    finally:
        shutil.rmtree(folder)


def measure_file(folder: Path, image: Path, places: list[int], chance: random.Random, runs: int) -> None:
    """Back the file itself up."""
    repository = folder / "repo"
    back_up(image, repository, "bitmap")
    compare(image, repository, "bitmap", lambda: write(image, places, chance), runs, "file, ")


def measure_export(folder: Path, image: Path, places: list[int], chance: random.Random, runs: int) -> None:
    """Back an export up, with a bitmap that begins after each backup."""
    found: dict[str, list[Outcome]] = {"export, everything read": [], "export, what changed": []}
    common = ("--image", "vm2", "--full-scan-every", "never")
    with serving(folder, image) as address:
        base = run(folder / "repo", "backup", address, *common).result["snapshot"]
    for number in range(runs):
        bitmap = f"b{number}"
        subprocess.run(["qemu-img", "bitmap", "--add", image, bitmap], check=True)
        write(image, places, chance)
        with serving(folder, image, "-B", bitmap) as address:
            tracked = run(folder / "repo", "backup", address, *common, "--bitmap", f"{bitmap}@{base}")
            found["export, what changed"].append(tracked)
        write(image, places, chance)
        with serving(folder, image) as address:
            scanned = run(folder / "repo", "backup", address, *common)
            found["export, everything read"].append(scanned)
        base = scanned.result["snapshot"]
    for name, outcomes in found.items():
        print_row(name, outcomes)


@contextmanager
def serving(folder: Path, image: Path, *options: str) -> Iterator[str]:
    """Yield the address of an export of the image."""
    where = folder / "nbd.sock"
    command = ["qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", str(where), *options, str(image)]
    with subprocess.Popen(command) as server:
        while not where.exists():
            time.sleep(0.01)
        try:
            yield f"nbd+unix:///?socket={where}"
        finally:
            server.terminate()


def write(image: Path, starts: list[int], chance: random.Random) -> None:
    """Overwrite random blocks of the data, as a guest would."""
    commands = []
    for _ in range(_WRITES):
        offset = chance.choice(starts) + chance.randrange(_PIECE_BYTES // _BLOCK_BYTES) * _BLOCK_BYTES
        commands += ["-c", f"write -P {chance.randrange(1, 256)} {offset} {_BLOCK_BYTES}"]
    subprocess.run(["qemu-io", *commands, image], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
