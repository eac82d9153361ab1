#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast an image is read that is not in the page cache, beside dd: reading alone, compared with the newest snapshot, stored.

    python benchmarks/reads.py --work DIR [--data-gib 4] [--runs 3]

Each run in turn: `dd bs=4M`, with and without `iflag=direct`; reading as a scan reads, without comparing; a dry run against a
snapshot of the same content; the first backup of it. The image is dropped from the page cache before each, and nothing else is.

Writes  `DIR/reads/`, removed at the end: the data twice; and `benchmarks/results/DATE-reads.md`.
Prints  that file: medians of MiB a second and processor time, and how fast each is beside the faster dd.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
from peer import CHECKOUT

from deltaimg.api.backup import backup, plan_backup
from deltaimg.api.repositories import create_repository
from deltaimg.engine.scan import Scanner
from deltaimg.image.open_source import open_source
from deltaimg.image.page_cache import PageCache
from deltaimg.repo.repository import Repository

_MIB = 1 << 20
_LEAST_SHARE = 0.95
_DD = ("dd bs=4M iflag=direct", "dd bs=4M")
_READ = "deltaimg, read"


@dataclass(slots=True)
class Row:
    """A way to read the image, and what was measured of it."""

    name: str
    run: Callable[[], None]
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def measure(self, image: Path) -> None:
        """Read the image from the disk."""
        drop(image)
        began_s, began_cpu_s = time.monotonic(), count_cpu_s()
        self.run()
        self.wall_s.append(time.monotonic() - began_s)
        self.cpu_s.append(count_cpu_s() - began_cpu_s)


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data-gib", type=float, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--results", type=Path, default=CHECKOUT / "benchmarks" / "results")
    given = parser.parse_args()
    folder = given.work / "reads"
    folder.mkdir(parents=True)
    try:
        image = folder / "vm1.raw"
        with open(image, "wb") as file:
            file.writelines(os.urandom(_MIB) for _ in range(int(given.data_gib * 1024)))
            os.fsync(file.fileno())
        rows = make_rows(folder, image)
        for _ in range(given.runs):
            for row in rows:
                row.measure(image)
        text = describe(rows, image.stat().st_size, given.runs)
    finally:
        shutil.rmtree(folder)
    print(text)
    (given.results / f"{date.today().isoformat()}-reads.md").write_text(text)


def make_rows(folder: Path, image: Path) -> list[Row]:
    """Return what is measured, with a snapshot of the image to compare with."""
    repository = create_repository(str(folder / "repo"))
    backup(repository, str(image), "vm1")
    return [
        *(Row(each, partial(run_dd, image, each)) for each in _DD),
        Row(_READ, lambda: read(image)),
        Row("deltaimg, compared with a snapshot", lambda: compare(repository, image)),
        Row("deltaimg, first backup", lambda: store(folder, image)),
    ]


def run_dd(image: Path, command: str) -> None:
    """Read by dd."""
    subprocess.run([*command.split(), f"if={image}", "of=/dev/null", "status=none"], check=True)


class Reading(Scanner):
    """A scan that compares nothing."""

    def _compare(self, start: int, got: int, buffer: memoryview):  # type: ignore[no-untyped-def]  # noqa: ANN202
        self._buffers.put(buffer)
        return start, got


def read(image: Path) -> None:
    """Read as a scan does."""
    with closing(open_source(str(image))) as source:
        assert source.size_bytes is not None
        no_runs = np.zeros(0, [("first_block", "<u8"), ("count", "<u4"), ("slot", "<u4")])
        reading = Reading(
            source, block_key=bytes(32), block_bytes=4096, base_runs=no_runs, base_digests=np.zeros((2, 16), np.uint8)
        )
        got = sum(span[1] for span in reading.scan(np.array([(0, source.size_bytes)], np.int64)))  # type: ignore[index]
        assert got == source.size_bytes


def compare(repository: Repository, image: Path) -> None:
    """Compare the image with a snapshot that is the same."""
    assert plan_backup(repository, str(image), "vm1").statistics.changed_bytes == 0


def store(folder: Path, image: Path) -> None:
    """Make the first backup in a new repository, which is removed."""
    try:
        backup(create_repository(str(folder / "new")), str(image), "vm1")
    finally:
        shutil.rmtree(folder / "new")


def drop(image: Path) -> None:
    """Drop the image from the page cache."""
    with open(image, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(file.fileno()).st_size
        absent = PageCache(file.fileno()).find_absent(0, size)
    assert sum(end - start for start, end in absent) >= size, "some of the image is still in the page cache"


def count_cpu_s() -> float:
    """Return the processor time of this process and its children so far."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in found)


def describe(rows: list[Row], size_bytes: int, runs: int) -> str:
    """Return the results as Markdown."""
    medians = {row.name: statistics.median(row.wall_s) for row in rows}
    best_s = min(medians[each] for each in _DD)
    lines = [
        "# Cold reads",
        "",
        f"{size_bytes / (1 << 30):g} GiB of data, {os.cpu_count()} cores, Linux {platform.release()}, Python "
        f"{platform.python_version()}; medians of {runs} runs in turn. `python benchmarks/reads.py --work WORK "
        f"--data-gib {size_bytes / (1 << 30):g} --runs {runs}`",
        "",
        "| | MiB/s | from | to | processor time s | of the faster dd | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        speeds = sorted(size_bytes / _MIB / each for each in row.wall_s)
        share = best_s / medians[row.name]
        verdict = ("pass" if share >= _LEAST_SHARE else "**miss**") if row.name == _READ else ""
        lines.append(
            f"| {row.name} | {size_bytes / _MIB / medians[row.name]:.0f} | {speeds[0]:.0f} | {speeds[-1]:.0f} "
            f"| {statistics.median(row.cpu_s):.2f} | {share:.2f} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
