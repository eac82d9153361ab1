#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Signature, delta and patch between two days of a guest, against `rdiff`; and `deltaimg.rsync` against pyrsync2.

    python benchmarks/files.py --work DIR [--guest ext4] [--days 0,1] [--runs 3]

Reads   `DIR/NAME-nightN.raw` of `guests.py`; never changes them.
Writes  `DIR/trial/` (emptied at the end; 10 GiB, because rdiff writes holes out), `benchmarks/results/DATE-files.md`.
Always  the tools take turns within a repetition; what is read is warm; every new file is compared with the real one.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import zstandard
from measuring.files import are_equal, remove, warm
from peer import CHECKOUT

from deltaimg import rsync

_STEPS = ("signature", "delta", "patch")
_STREAM_BYTES = 64 << 20
_BLOCK_BYTES = 4096
_EDITS = 100
_SEED = 20240607


@dataclass(slots=True)
class Tool:
    """One way to carry a file over: the command up to its subcommand, options of the signature, options of all steps."""

    name: str
    program: list[str]
    signature_options: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in _STEPS})
    signature_bytes: int = 0
    delta_bytes: int = 0
    compressed_bytes: int = 0

    def run(self, old: Path, new: Path, folder: Path) -> None:
        """Carry `new` over to where `old` is, and time each step."""
        signature, delta, made = (folder / f"{self.name}.{step}" for step in _STEPS)
        for step, options, names in (
            ("signature", self.signature_options, [old, signature]),
            ("delta", [], [signature, new, delta]),
            ("patch", [], [old, delta, made]),
        ):
            for path in names[:-1]:
                warm(path)
            command = [*self.program, *options, step, *self.options, *map(str, names)]
            started = time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            self.seconds[step].append(time.monotonic() - started)
        if not are_equal(made, new):
            sys.exit(f"files.py: {self.name} made another file")
        self.signature_bytes, self.delta_bytes = signature.stat().st_size, delta.stat().st_size
        self.compressed_bytes = _compressed_bytes(delta)
        for path in (signature, delta, made):
            remove(path)

    def median(self, step: str) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds[step])


def measure_files(old: Path, new: Path, folder: Path, runs: int) -> list[str]:
    """Return the lines of a table of both formats and the program rdiff."""
    deltaimg = [str(Path(sys.executable).with_name("deltaimg"))]
    peer = Tool("rdiff", ["rdiff"], ["-b", str(_BLOCK_BYTES)])
    own = Tool("deltaimg", deltaimg, options=["--quiet"])
    same = Tool("deltaimg-rdiff", deltaimg, options=["--quiet", "--format", "rdiff"])
    tools = (peer, own, same)
    for _ in range(runs):
        for tool in tools:
            tool.run(old, new, folder)
    lines = [
        f"| | rdiff -b {_BLOCK_BYTES} | deltaimg | deltaimg --format rdiff | rdiff / deltaimg | must be |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for step in _STEPS:
        times = " | ".join(f"{tool.median(step):.2f} s" for tool in tools)
        lines.append(f"| {step} | {times} | {peer.median(step) / own.median(step):.1f} | at least 5 |")
    for label, key, bound in (
        ("signature, bytes", "signature_bytes", ""),
        ("delta, bytes", "delta_bytes", "at least 1"),
        ("delta after zstd -3, bytes", "compressed_bytes", "at least 1"),
    ):
        sizes = [getattr(tool, key) for tool in tools]
        lines.append(f"| {label} | {' | '.join(f'{size:,}' for size in sizes)} | {sizes[0] / sizes[1]:.2f} | {bound} |")
    return lines


def measure_streams(folder: Path, runs: int) -> list[str]:
    """Return the lines of a table of both modules, on streams with an edit here and there; pyrsync2 runs once."""
    pyrsync2 = importlib.import_module("tests.support.pyrsync2").load_pyrsync2(folder)
    chance = random.Random(_SEED)
    old = chance.randbytes(_STREAM_BYTES)
    edited = bytearray(old)
    for _ in range(_EDITS):
        at = chance.randrange(len(edited))
        edited[at : at + chance.randrange(20)] = chance.randbytes(10)
    new = bytes(edited)
    lines = ["| | pyrsync2 | deltaimg.rsync | ratio | must be |", "| --- | --- | --- | --- | --- |"]
    sums = list(rsync.blockchecksums(BytesIO(old), _BLOCK_BYTES))
    delta = list(rsync.rsyncdelta(BytesIO(new), sums, _BLOCK_BYTES))
    steps: dict[str, tuple[Callable[[Any], object], object, str]] = {
        "blockchecksums": (lambda module: list(module.blockchecksums(BytesIO(old), _BLOCK_BYTES)), sums, ""),
        "rsyncdelta": (lambda module: list(module.rsyncdelta(BytesIO(new), sums, _BLOCK_BYTES)), delta, "at least 100"),
        "patchstream": (lambda module: _patch(module, old, delta), new, ""),
    }
    for name, (call, expected, bound) in steps.items():
        theirs = _time(lambda call=call: call(pyrsync2), 1, expected)
        ours = _time(lambda call=call: call(rsync), runs, expected)
        lines.append(f"| {name} | {theirs:.2f} s | {ours:.3f} s | {theirs / ours:.0f} | {bound} |")
    return lines


def _patch(module: Any, old: bytes, delta: list[int | bytes]) -> bytes:
    target = BytesIO()
    module.patchstream(BytesIO(old), target, delta, _BLOCK_BYTES)
    return target.getvalue()


def _time(call: Callable[[], object], runs: int, expected: object) -> float:
    """Return the median of the seconds; a result that is not the one expected ends the run."""
    seconds = []
    for _ in range(runs):
        started = time.monotonic()
        found = call()
        seconds.append(time.monotonic() - started)
        if found != expected:
            sys.exit("files.py: pyrsync2 and deltaimg.rsync differ")
    return statistics.median(seconds)


def _compressed_bytes(path: Path) -> int:
    with path.open("rb") as source:
        return sum(map(len, zstandard.ZstdCompressor(level=3).read_to_iter(source)))


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description="Measure signature, delta and patch.")
    parser.add_argument("--work", type=Path, default=Path("work-benchmarks"), help="where guests.py put the images")
    parser.add_argument("--guest", default="ext4", help="ext4 or xfs")
    parser.add_argument("--days", default="0,1", help="the old day and the new one")
    parser.add_argument("--runs", type=int, default=3, help="repetitions; medians count")
    given = parser.parse_args()
    if shutil.which("rdiff") is None:
        sys.exit("files.py: there is no rdiff here: apt-get install rdiff")
    old, new = (given.work / f"{given.guest}-night{day}.raw" for day in given.days.split(","))
    sys.path.insert(0, str(CHECKOUT))
    folder = given.work / "trial"
    remove(folder)
    folder.mkdir()
    try:
        files = measure_files(old, new, folder, given.runs)
        streams = measure_streams(folder, given.runs)
    finally:
        remove(folder)
    version = subprocess.run(["rdiff", "--version"], check=True, capture_output=True, text=True).stdout.split("\n")[0]
    lines = [
        f"# Files, {date.today().isoformat()}",
        "",
        f"`python benchmarks/files.py --work WORK --guest {given.guest} --days {given.days} --runs {given.runs}`; "
        f"{version}, Python {platform.python_version()}. Medians.",
        "",
        f"{given.guest}, day {given.days.replace(',', ' to day ')}, {old.stat().st_size >> 30} GiB, sparse:",
        "",
        *files,
        "",
        f"Streams of {_STREAM_BYTES >> 20} MiB with {_EDITS} edits, blocks of {_BLOCK_BYTES} bytes:",
        "",
        *streams,
        "",
    ]
    (CHECKOUT / "benchmarks" / "results" / f"{date.today().isoformat()}-files.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
