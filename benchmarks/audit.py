#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an audit of change tracking finds, and what it costs: 200 wrong hints of each kind, and processor time beside a scan.

    python benchmarks/audit.py --work DIR [--trials 200] [--data-gib 2] [--runs 5]

A trial is a dry run of `backup --hints` with the default audit. What changed and is not listed is chosen at random in each
trial, in pieces of 64 KiB, as a dirty bitmap would lose them; the audit chooses by the system's random numbers.

Writes  `DIR/audit/`, removed at the end: the data twice; and `benchmarks/results/DATE-audit.md`.
Prints  that file: how many wrong hints were found, the interval of 95 % around it (Clopper and Pearson) and the stated
        probability; processor time and bytes of audits and scans in one process, medians.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from peer import CHECKOUT

from deltaimg.api.backup import backup, plan_backup
from deltaimg.api.repositories import create_repository
from deltaimg.format.manifest import Manifest, Tracking
from deltaimg.options.backup import NEVER, BackupOptions
from deltaimg.repo.repository import Repository

_MIB = 1 << 20
_PIECE_BYTES, _BLOCK_BYTES = 64 << 10, 4096
_TRIAL_BYTES = 128 * _MIB
_SEED = 20261129
_AUDIT, _SCAN = "auditing change tracking", "comparing"
_MOST_COST = 0.05


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of wrong hints: shares of the pieces of the image that are listed, and of these or of all that are omitted."""

    name: str
    changed_share: float
    omitted_share: float
    """Of what changed; of the image, where nothing is listed."""


_KINDS = (
    Kind("1 % of what is called unchanged did change", 0.0, 0.01),
    Kind("half of the image changed, 1 % of that is omitted", 0.5, 0.01),
    Kind("a tenth of the image changed, 1 % of that is omitted", 0.1, 0.01),
    Kind("a tenth of the image changed, 10 % of that are omitted", 0.1, 0.1),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of the trials of one kind."""

    kind: Kind
    stated: float
    found: int
    trials: int


class StageTimes:
    """Takes progress, and how much processor time of this process each stage took."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}
        self._open: list[tuple[str, float]] = []

    def begin(self, task: str, total_bytes: int | None) -> None:  # noqa: ARG002
        """Note the beginning of a stage."""
        self._open.append((task, time.process_time()))

    def advance(self, done_bytes: int) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Note the end of the innermost stage."""
        task, began_s = self._open.pop()
        self.cpu_s[task] = self.cpu_s.get(task, 0.0) + time.process_time() - began_s

    def warn(self, message: str) -> None:
        """Do nothing: what an audit finds is in the result."""


def main() -> None:
    """Run the trials, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--data-gib", type=float, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--results", type=Path, default=CHECKOUT / "benchmarks" / "results")
    given = parser.parse_args()
    folder = given.work / "audit"
    folder.mkdir(parents=True)
    try:
        chance = random.Random(_SEED)
        repository = create_repository(str(folder / "repo"))
        found = [try_hints(repository, folder, kind, given.trials, chance) for kind in _KINDS]
        lines = [*describe_trials(found), "", *measure_cost(repository, folder, given.data_gib, given.runs, chance)]
    finally:
        shutil.rmtree(folder)
    command = f"python benchmarks/audit.py --work WORK --trials {given.trials} --data-gib {given.data_gib} --runs {given.runs}"
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}."
    text = "\n".join(["# Audits of change tracking", "", f"{machine} `{command}`", "", *lines]) + "\n"
    print(text)
    (given.results / f"{date.today().isoformat()}-audit.md").write_text(text)


def try_hints(repository: Repository, folder: Path, kind: Kind, trials: int, chance: random.Random) -> Found:
    """Return how many of some wrong hints were found."""
    image, hints, pieces = folder / "trial.raw", folder / "hints.json", _TRIAL_BYTES // _PIECE_BYTES
    image.write_bytes(chance.randbytes(_TRIAL_BYTES))
    base = backup(repository, str(image), "trial", BackupOptions(allow_shrink=True))
    content, found, stated = memoryview(image.read_bytes()), 0, 0.0
    options = BackupOptions(hints=str(hints), full_scan_every=NEVER)
    for _ in range(trials):
        changed = chance.sample(range(pieces), round(kind.changed_share * pieces))
        unlisted = chance.sample(changed or range(pieces), round(kind.omitted_share * (len(changed) or pieces)))
        listed = sorted(set(changed) - set(unlisted))
        write_hints(hints, base, listed)
        write_pieces(image, {each: chance.randbytes(_PIECE_BYTES) for each in unlisted})
        tracking = plan_backup(repository, str(image), "trial", options).tracking
        assert tracking is not None
        assert tracking.audited_blocks == options.audit_blocks, tracking
        found += tracking.refuted_blocks > 0
        stated = 1 - (1 - len(unlisted) / (pieces - len(listed))) ** options.audit_blocks
        write_pieces(image, {each: bytes(content[each * _PIECE_BYTES :][:_PIECE_BYTES]) for each in unlisted})
    return Found(kind, stated, found, trials)


def write_hints(path: Path, base: Manifest, pieces: list[int]) -> None:
    """Write hints that list some pieces."""
    extents = [{"offset": each * _PIECE_BYTES, "length": _PIECE_BYTES} for each in pieces]
    path.write_text(json.dumps({"snapshot": base.id, "extents": extents}))


def write_pieces(path: Path, pieces: dict[int, bytes]) -> None:
    """Overwrite some pieces."""
    with open(path, "r+b") as file:
        for each, content in pieces.items():
            file.seek(each * _PIECE_BYTES)
            file.write(content)


def describe_trials(found: list[Found]) -> list[str]:
    """Return a table of what was found."""
    lines = [
        "| hints | trials | found | share | interval of 95 % | stated | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in found:
        low, high = find_interval(each.found, each.trials)
        verdict = "pass" if low <= each.stated <= high else "**miss**"
        lines.append(
            f"| {each.kind.name} | {each.trials} | {each.found} | {each.found / each.trials:.3f} | {low:.3f} to {high:.3f} "
            f"| {each.stated:.3f} | {verdict} |"
        )
    return lines


def find_interval(found: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson of a probability, of which `found` of `trials` were seen."""
    tail = (1 - confidence) / 2
    low = 0.0 if found == 0 else solve(lambda p: 1 - count_up_to(found - 1, trials, p) - tail)
    high = 1.0 if found == trials else solve(lambda p: tail - count_up_to(found, trials, p))
    return low, high


def count_up_to(most: int, trials: int, probability: float) -> float:
    """Return how probable it is that no more than `most` of so many trials succeed."""
    return sum(
        math.comb(trials, each) * probability**each * (1 - probability) ** (trials - each) for each in range(most + 1)
    )


def solve(rising: Callable[[float], float]) -> float:
    """Return where a function that rises from 0 to 1 passes zero."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return low


def measure_cost(repository: Repository, folder: Path, data_gib: float, runs: int, chance: random.Random) -> list[str]:
    """Return a table of what audits and scans of an unchanged image cost, in turn."""
    image, hints = folder / "cost.raw", folder / "hints.json"
    with open(image, "wb") as file:
        file.writelines(chance.randbytes(_MIB) for _ in range(int(data_gib * 1024)))
    base = backup(repository, str(image), "cost")
    write_hints(hints, base, [])
    tracked = BackupOptions(hints=str(hints), full_scan_every=NEVER)
    audits_s, scans_s, tracking = [], [], None
    for _ in range(runs):
        progress = StageTimes()
        tracking = plan_backup(repository, str(image), "cost", tracked, progress=progress).tracking
        audits_s.append(progress.cpu_s[_AUDIT])
        progress = StageTimes()
        assert plan_backup(repository, str(image), "cost", progress=progress).statistics.changed_bytes == 0
        scans_s.append(progress.cpu_s[_SCAN])
    assert tracking is not None
    assert tracking.unchanged_bytes == base.size_bytes
    return describe_cost(tracking, base, statistics.median(audits_s), statistics.median(scans_s))


def describe_cost(tracking: Tracking, base: Manifest, audit_s: float, scan_s: float) -> list[str]:
    """Return a table of medians."""
    audit_bytes = tracking.audited_blocks * _BLOCK_BYTES
    verdict = "pass" if audit_s < _MOST_COST * scan_s else "**miss**"
    return [
        f"Of an unchanged image with {base.size_bytes / (1 << 30):g} GiB of data, from the page cache:",
        "",
        "| | processor time s | of the scan | read MiB | of the scan | |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| scan | {scan_s:.3f} | | {base.size_bytes / _MIB:.0f} | | |",
        f"| audit of {tracking.audited_blocks} blocks | {audit_s:.4f} | {audit_s / scan_s:.2%} "
        f"| {audit_bytes / _MIB:.2f} | {audit_bytes / base.size_bytes:.3%} | under {_MOST_COST:.0%}: {verdict} |",
    ]


if __name__ == "__main__":
    main()
