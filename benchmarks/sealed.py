#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What encryption and padding cost: deltaimg without, with a key and with padding in turn, restic and borg beside it.

    python benchmarks/sealed.py --work DIR [--rows backup,open,sync,host] [--runs 3] [--guest ext4]

Reads   `DIR/NAME-nightN.raw` of `guests.py`; never changes them.
Writes  `DIR/sealed/` (emptied at the end), `DIR/sealed.json`: every sample, to which further runs of the same day add;
        `benchmarks/results/DATE-sealed.md`: medians of all of them, a table for each row.
Rows    backup  a full backup, that of an ordinary day, a restore (compared with the image) and a verification
        open    listing what there is: no key, a key file, a passphrase
        sync    both backups to a new member of the family: as they are, sealed and padded on the way, and opened
        host    the ordinary day of a write-only host beside that of a full key
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from keepers import Borg, Deltaimg, Keeper, Restic
from measuring.arguments import make_parser, names_of
from measuring.files import are_equal, claimed, remove, stored_bytes, warm
from measuring.process import Command, Sample, measure
from measuring.tables import markdown
from peer import GuestImage

_MIB = 1 << 20
_OPENINGS = 7


class Plain(Deltaimg):
    """Without encryption."""

    name = "plain"
    init_options = ("--encryption", "none")


class Sealed(Deltaimg):
    """With a key file, which lies in the state."""

    name = "sealed"
    init_options = ("--encryption", "keyfile")

    @staticmethod
    def environment(state: Path) -> dict[str, str]:
        return {**Deltaimg.environment(state), "DELTAIMG_KEY_FILE": str(state / "key")}


class Padded(Sealed):
    """With padding, too."""

    name = "padded"
    init_options = ("--encryption", "keyfile", "--padding")


class Opened(Deltaimg):
    """With a passphrase."""

    name = "passphrase"
    init_options = ("--encryption", "passphrase")

    @staticmethod
    def environment(state: Path) -> dict[str, str]:
        return {**Deltaimg.environment(state), "DELTAIMG_PASSPHRASE": "correct horse battery staple"}


class Repokey(Borg):
    """borg with its fastest encryption."""

    encryption = "repokey-blake2"

    @staticmethod
    def _environment(state: Path) -> dict[str, str]:
        return {**Borg._environment(state), "BORG_PASSPHRASE": "benchmark"}


KEEPERS: tuple[Keeper, ...] = (
    Plain(),
    Sealed(),
    Padded(),
    Restic(),
    Repokey("borg repokey", "--chunker-params", "fixed,65536", "--sparse"),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all rows need."""

    work: Path
    trial: Path
    guest: str
    peers: tuple[str, ...]

    def at(self, number: int) -> GuestImage:
        """A state of the guest, the second being the newest."""
        images = [self.work / f"{self.guest}-night{each}.raw" for each in (0, 1)]
        return GuestImage(number, images[number], images[0], 1)

    def make(self, keeper: Keeper) -> Path:
        """Return the state of a keeper with a new repository."""
        state = self.trial / keeper.name.replace(" ", "-")
        keeper.prepare(state)
        return state


Measured = Iterator[tuple[str, str, Sample, int]]
"""What was done, by whom, what it cost, and the bytes that were stored, 0 where none count."""


def row_backup(bench: Bench) -> Measured:
    """All of a keeper's work, keeper after keeper."""
    for keeper in KEEPERS:
        if keeper.name not in bench.peers:
            continue
        state, target = bench.make(keeper), bench.trial / "target"
        before = stored_bytes(state / "repo")
        for number, task in enumerate(("full", "ordinary")):
            warm(bench.at(number).image)
            sample = measure(keeper.backup(state, bench.at(number)))
            after = stored_bytes(state / "repo")
            yield task, keeper.name, sample, after - before
            before = after
        target.mkdir()
        yield "restore", keeper.name, measure(keeper.restore(state, target, bench.at(1))), 0
        assert are_equal(keeper.restored(target), bench.at(1).image), f"{keeper.name} restored something else"
        remove(target)
        yield "verify", keeper.name, measure(keeper.verify_commands(state)["all"]), 0
        remove(state)


def row_open(bench: Bench) -> Measured:
    """One derivation, and all else that opening takes."""
    for keeper in (Plain(), Sealed(), Opened()):
        state = bench.make(keeper)
        for _ in range(_OPENINGS):
            yield "open", keeper.name, measure(keeper.on(state, "snapshots")), 0
        remove(state)


def row_sync(bench: Bench) -> Measured:
    """From a member without encryption, and back; one key file is of all that have one."""
    source, key = bench.make(Plain()) / "repo", bench.trial / "key"
    for number in (0, 1):
        measure(Plain().backup(source.parent, bench.at(number)))
    environment = {**Deltaimg.environment(bench.trial), "DELTAIMG_KEY_FILE": str(key)}

    def run(*arguments: object) -> Sample:
        return measure(Command(Deltaimg.command(*map(str, arguments)), bench.trial, environment))

    members = {"plain": source}
    for source_name, keeper in (("plain", Plain()), ("plain", Sealed()), ("plain", Padded()), ("sealed", Plain())):
        origin, target = members[source_name], bench.trial / f"{source_name}-{keeper.name}"
        run("init", *keeper.init_options, "--like", origin, "-r", target)
        members.setdefault(keeper.name, target)
        warm(origin)
        sample = run("sync", origin, target)
        yield "sync", f"{source_name} to {keeper.name}", sample, stored_bytes(target)
    remove(bench.trial)


def row_host(bench: Bench) -> Measured:
    """The second backup, with the secret and with the key of a host that only writes."""
    for name in ("full key", "write-only"):
        keeper = Sealed()
        state = bench.make(keeper)
        environment = keeper.environment(state)
        if name == "write-only":
            measure(keeper.on(state, "key", "add", "--write-only", "--new-key-file", str(state / "host")))
            environment["DELTAIMG_KEY_FILE"] = str(state / "host")
        before = stored_bytes(state / "repo")
        for number, task in enumerate(("host, full", "host, ordinary")):
            warm(bench.at(number).image)
            sample = measure(Command(keeper.backup(state, bench.at(number)).argv, state, environment))
            after = stored_bytes(state / "repo")
            yield task, name, sample, after - before
            before = after
        remove(state)


ROWS: dict[str, Callable[[Bench], Measured]] = {
    "backup": row_backup, "open": row_open, "sync": row_sync, "host": row_host
}  # fmt: skip


def main() -> None:
    """Measure the rows asked for in turn, and write the table after each."""
    parser = make_parser(__doc__, tuple(ROWS))
    keepers = tuple(each.name for each in KEEPERS)
    parser.add_argument("--peers", type=names_of(keepers), default=keepers, help="of the row backup")
    parser.add_argument("--guest", default="ext4")
    given = parser.parse_args()
    with claimed(given.work.resolve() / "sealed") as trial:
        measure_rows(Bench(given.work.resolve(), trial, given.guest, given.peers), given)


def measure_rows(bench: Bench, given: argparse.Namespace) -> None:
    """Measure, add to what was measured before, and write the table."""
    kept = given.work / "sealed.json"
    try:
        for _ in range(given.runs):
            for row in given.rows:
                remove(bench.trial)
                bench.trial.mkdir(parents=True)
                for task, who, sample, size in ROWS[row](bench):
                    add(kept, f"{given.guest} {task}", who, sample, size)
                    print(
                        f"{given.guest} {task}, {who}: {sample.wall_s:.2f} s, {sample.cpu_s:.2f} s, {size}", flush=True
                    )
    finally:
        lines = [f"# Sealed\n\n{describe_machine()}", *write_table(json.loads(kept.read_text()))]
        (given.results / f"{date.today().isoformat()}-sealed.md").write_text("\n".join(lines) + "\n")


def add(kept: Path, task: str, who: str, sample: Sample, size_bytes: int) -> None:
    """Add a sample to those that are kept."""
    samples = json.loads(kept.read_text()) if kept.exists() else {}
    found = samples.setdefault(task, {}).setdefault(who, [])
    found.append([round(sample.wall_s, 3), round(sample.cpu_s, 3), size_bytes, sample.peak_bytes])
    kept.write_text(json.dumps(samples))


def write_table(samples: dict[str, dict[str, list[list[float]]]]) -> list[str]:
    """Return medians, each beside that of the first of its task."""
    rows = []
    for task, by in samples.items():
        first = _medians(next(iter(by.values())))
        for who, found in by.items():
            wall_s, cpu_s, size, peak = _medians(found)
            ratios = (
                f"{wall_s / first[0]:.3f}",
                f"{cpu_s / first[1]:.3f}",
                f"{size / first[2]:.4f}" if first[2] else "",
            )
            figures = f"{wall_s:.2f}", f"{cpu_s:.2f}", f"{size / _MIB:.2f}" if size else "", f"{peak / _MIB:.0f}"
            rows.append((task, who, str(len(found)), *figures, *ratios))
    head = ("task", "by", "runs", "wall s", "CPU s", "stored MiB", "peak MiB", "wall of the first", "CPU", "stored")
    return markdown(head, rows)


def _medians(samples: list[list[float]]) -> list[float]:
    return [statistics.median(each[place] for each in samples) for place in range(4)]


def describe_machine() -> str:
    """Say where this is measured."""
    return f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; medians.\n"


if __name__ == "__main__":
    main()
