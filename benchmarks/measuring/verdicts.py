# SPDX-License-Identifier: Apache-2.0
"""What deltaimg must reach, and whether it does: every row with its ratio, misses shown like passes.

Source  the benchmark tables of the engine and of the delta records; a must is a ratio to a rival's figure
        ("at most `factor` times the smallest of `rivals`") or a limit in the figure's own unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from guest.days import MORE_DAYS

from measuring.results import Measurement

_KEEPERS = ("restic", "borg-fixed", "borg-default")
_ALL = (*_KEEPERS, "zstd", "xdelta3", "rdiff")
_CHANGED_ROWS = ("ordinary", "upgrade", "repack", "new-data", "release")
_RATE_BYTES = 150_000_000
OWN_RESTORES = ("chain", "deep", "deep-nights", "memory-restore")
_KIB, _MIB = 1 << 10, 1 << 20
_OURS = "deltaimg"


@dataclass(frozen=True, slots=True)
class Must:
    """`column` of deltaimg at `task` and `row` is at most `factor` times the smallest rival's, all of them measured."""

    row: str
    what: str
    column: str
    rivals: tuple[str, ...]
    factor: float
    task: str = "backup"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judged must; `ratio` is ours by theirs (or by the limit), NaN where one of the two was not measured."""

    row: str
    what: str
    ours: float
    theirs: float
    factor: float
    unit: str

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.ours / self.theirs if self.theirs else math.nan

    @property
    def word(self) -> str:
        """`pass`, `miss` or `not measured`; `for comparison` where nothing was asked for."""
        if math.isnan(self.ratio):
            return "not measured"
        if math.isinf(self.factor):
            return "for comparison"
        return "pass" if self.ratio <= self.factor else "miss"


MUSTS = (
    Must("full", "time, restic", "wall_s", ("restic",), 1 / 3),
    Must("full", "time, borg fixed 64 KiB", "wall_s", ("borg-fixed",), 1 / 2),
    Must("full", "time, zstd -3 -T0", "wall_s", ("zstd",), 0.9),
    Must("full", "stored, smallest of restic and borg", "stored_bytes", _KEEPERS, 1.0),
    Must("quiet", "time, restic", "wall_s", ("restic",), 1 / 10),
    Must("quiet", "time, borg fixed 64 KiB", "wall_s", ("borg-fixed",), 1 / 4),
    Must("ordinary", "time, borg fixed 64 KiB", "wall_s", ("borg-fixed",), 1.0),
    Must("ordinary", "time with delta records, borg fixed 64 KiB", "wall_s", ("borg-fixed",), 1.5),
    Must("ordinary", "stored, smallest of restic and borg", "stored_bytes", _KEEPERS, 0.6),
    Must("ordinary", "stored, the same with delta records", "stored_bytes", _KEEPERS, 0.25),
    Must("ordinary", "time, xdelta3 -1", "wall_s", ("xdelta3",), 1 / 8),
    Must("upgrade", "stored, smallest of restic and borg", "stored_bytes", _KEEPERS, 0.4),
    Must("upgrade", "stored, the same with delta records", "stored_bytes", _KEEPERS, 0.25),
    Must("new-data", "stored, smallest of all peers", "stored_bytes", _ALL, 1.01),
    *(Must(row, "stored, xdelta3 -1", "stored_bytes", ("xdelta3",), 1.0)
      for row in _CHANGED_ROWS),
    *(Must(row, "stored, rdiff -b 4096 and zstd -3", "stored_bytes", ("rdiff",), 0.9) for row in _CHANGED_ROWS),
)  # fmt: skip

_RESTORE_MUSTS = ((("restic",), "restic", 0.45), (_KEEPERS[1:], "borg", 0.45), (("cp",), "cp of the image", 1.25))


_VERIFY_MUSTS = (("restic", "restic check --read-data"), ("borg-fixed", "borg check --verify-data"))


def guest_verdicts(measurements: Sequence[Measurement], rows: Sequence[str]) -> list[Verdict]:
    """All musts of a guest whose days fill these rows, in the order of the table, measured or not."""
    table = _Table(measurements)
    verdicts = [table.against(must) for must in MUSTS if must.row in rows]
    verdicts += _quiet_verdicts(table) if "quiet" in rows else []
    for row in table.restored_rows():
        for rivals, name, factor in _RESTORE_MUSTS:
            must = Must(row, f"restore time, {name}", "wall_s", rivals, factor, task="restore")
            verdicts.append(table.against(must))
    verdicts += [*_verify_verdicts(table, rows[-1]), *_forget_verdicts(table), *_chain_verdicts(table)]
    if MORE_DAYS.get(measurements[0].guest if measurements else ""):
        verdicts += _deep_verdicts(table)
    return [*verdicts, *_memory_verdicts(table), *_start_up_verdicts(table)]


class _Table:
    """Measurements by task, row and peer."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._found = {(one.task, one.row, one.peer): one for one in measurements}

    def median(self, task: str, row: str, peer: str, column: str) -> float:
        one = self._found.get((task, row, peer))
        return math.nan if one is None else one.median(column)

    def equality(self, task: str, row: str, peer: str) -> list[int]:
        """Which of the restored images were equal, in order."""
        one = self._found.get((task, row, peer))
        return [] if one is None else one.equal

    def against(self, must: Must) -> Verdict:
        ours = self.median(must.task, must.row, _OURS, must.column)
        theirs = [self.median(must.task, must.row, rival, must.column) for rival in must.rivals]
        best = math.nan if any(map(math.isnan, theirs)) else min(theirs)
        unit = "s" if must.column == "wall_s" else "bytes"
        return Verdict(must.row, must.what, ours, best, must.factor, unit)

    def restored_rows(self) -> list[str]:
        rows = [row for task, row, _ in self._found if task == "restore" and row not in OWN_RESTORES]
        return list(dict.fromkeys(rows))

    def peak(self, tasks: tuple[str, ...], *, memory_rows: bool) -> float:
        """The largest peak of deltaimg over all runs of such tasks."""
        peaks = [
            max(one.peak_bytes)
            for (task, row, peer), one in self._found.items()
            if task in tasks and peer.startswith(_OURS) and row.startswith("memory") == memory_rows and one.peak_bytes
        ]
        return max(peaks, default=math.nan)


def _quiet_verdicts(table: _Table) -> list[Verdict]:
    digest = table.median("digest", "quiet", "digest_blocks", "value")
    start = table.median("start-up", "version", _OURS, "wall_s")
    wall = table.median("backup", "quiet", _OURS, "wall_s")
    stored = table.median("backup", "quiet", _OURS, "stored_bytes")
    encoding_s = table.median("backup", "ordinary", _OURS, "cpu_s") - table.median("backup", "quiet", _OURS, "cpu_s")
    per_rate_s = encoding_s * _RATE_BYTES / (table.median("backup", "ordinary", _OURS, "value") or math.nan)
    return [
        Verdict("ordinary", "CPU beyond the quiet row's for 150 MB of new data, limit 1 s", per_rate_s, 1.0, 1.0, "s"),
        Verdict("quiet", "time less start-up, digest_blocks alone", wall - start, digest, 1.5, "s"),
        Verdict("quiet", "stored, limit 64 KiB", stored, 64 * _KIB, 1.0, "bytes"),
    ]


def _verify_verdicts(table: _Table, last_row: str) -> list[Verdict]:
    """Of all snapshots beside the peers' own checks; of the newest beside what restoring it takes, writing included."""
    ours = table.median("verify", "all", _OURS, "wall_s")
    verdicts = [
        Verdict("verify", f"time, {name}", ours, table.median("verify", "all", rival, "wall_s"), 1 / 3, "s")
        for rival, name in _VERIFY_MUSTS
    ]
    tip = table.median("verify", "tip", _OURS, "wall_s")
    restore = table.median("restore", last_row, _OURS, "wall_s")
    return [*verdicts, Verdict("verify", "time of the newest snapshot, of its restore", tip, restore, 1.0, "s")]


def _forget_verdicts(table: _Table) -> list[Verdict]:
    """Of a full backup: what is given up must not cost what it took to store."""
    ours, full = (table.median(*where, _OURS, "wall_s") for where in (("forget", "all but two"), ("backup", "full")))
    return [Verdict("forget", "time of forget and prune, of a full backup", ours, full, 0.5, "s")]


def _deep_verdicts(table: _Table) -> list[Verdict]:
    tip = table.median("restore", "deep", "deltaimg-tip", "wall_s")
    full = table.median("restore", "deep", "deltaimg-full", "wall_s")
    peak = table.median("restore", "deep", "deltaimg-tip", "peak_bytes")
    equal = table.equality("restore", "deep-nights", _OURS)
    differing = float(equal.count(0)) if equal else math.nan
    return [
        Verdict("chain of 30", "restore of the tip, of a full with the same content", tip, full, 1.5, "s"),
        Verdict("chain of 30", "peak of that restore, limit 600 MiB", peak, 600 * _MIB, 1.0, "bytes"),
        Verdict("chain of 30", f"snapshots that differ, of {len(equal)}, limit none", differing, 1.0, 0.0, "snapshots"),
    ]


def _chain_verdicts(table: _Table) -> list[Verdict]:
    tip = table.median("restore", "chain", "deltaimg-tip", "wall_s")
    full = table.median("restore", "chain", "deltaimg-full", "wall_s")
    plan = table.median("restore", "chain", "deltaimg-tip", "value")
    return [
        Verdict("chain of 200", "restore of the tip, of a full with the same content", tip, full, 1.15, "s"),
        Verdict("chain of 200", "planning, limit 1 s", plan, 1.0, 1.0, "s"),
    ]


def _memory_verdicts(table: _Table) -> list[Verdict]:
    both = ("backup", "restore")
    guests = table.peak(both, memory_rows=False)
    sparse = table.peak(both, memory_rows=True)
    return [
        Verdict("memory", "peak on this guest, limit 400 MiB", guests, 400 * _MIB, 1.0, "bytes"),
        Verdict("memory", "peak on this guest with delta records, limit 700 MiB", guests, 700 * _MIB, 1.0, "bytes"),
        Verdict("memory", "peak on 1 TiB sparse, limit 600 MiB", sparse, 600 * _MIB, 1.0, "bytes"),
    ]


def _start_up_verdicts(table: _Table) -> list[Verdict]:
    return [
        Verdict("start-up", f"CPU of deltaimg {name}, limit {limit} s", cpu, limit, 1.0, "s")
        for name, limit in (("--help", 0.25), ("version", 0.15))
        for cpu in [table.median("start-up", name, _OURS, "cpu_s")]
    ]
