# SPDX-License-Identifier: Apache-2.0
"""What the chain manager must reach, and whether it does.

Source  the benchmark table of the chain manager; that of `verify` is judged with the guests, in `verdicts.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from measuring.results import Measurement
from measuring.verdicts import Verdict

_OURS = "deltaimg"
_MIB = 1 << 20


def year_verdicts(measurements: Sequence[Measurement]) -> list[Verdict]:
    """All musts, measured or not; what was measured at a smaller scale than asked for says so."""
    table = _Table(measurements)
    scale = next((one.guest.split("-")[1] for one in measurements), "1")
    where = "" if scale == "1" else f", at 1/{scale} of the size"
    scaled = [*_prune_verdicts(table), *_forget_verdicts(table), *_memory_verdicts(table)]
    return [*(replace(verdict, row=verdict.row + where) for verdict in scaled), _check_verdicts(table)]


class _Table:
    """Medians by task, the beginning of the row's name, and peer."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._measurements = measurements

    def median(self, task: str, row: str, column: str, peer: str = _OURS) -> float:
        for one in self._measurements:
            if one.task == task and one.row.startswith(row) and one.peer == peer:
                return one.median(column)
        return math.nan

    def forget_row(self) -> str:
        """The row that counts how many of how many backups were forgotten."""
        rows = [one.row for one in self._measurements if one.task == "forget" and " of " in one.row[:9]]
        return rows[0] if rows else "none"


def _prune_verdicts(table: _Table) -> list[Verdict]:
    forget = table.forget_row()

    def both_s(peer: str, prune: str = "without repack") -> float:
        return table.median("forget", forget, "wall_s", peer) + table.median("prune", prune, "wall_s", peer)

    name = f"forget {forget} and prune"
    before, fresh = (table.median("size", row, "stored_bytes") for row in ("before", "fresh"))
    left = table.median("prune", "with repack", "stored_bytes")
    read = sum(table.median(*where, "read_bytes") for where in (("forget", forget), ("prune", "without repack")))
    read -= 2 * table.median("size", "reads of an empty prune", "read_bytes")
    return [
        Verdict(name, "time without repack, limit 20 s", both_s(_OURS), 20.0, 1.0, "s"),
        Verdict(name, "reads less those of start-up, all that was stored", max(read, 0.0), before, 0.05, "bytes"),
        Verdict(name, "time, restic", both_s(_OURS), both_s("restic"), math.inf, "s"),
        Verdict(name, "time, borg fixed 64 KiB", both_s(_OURS), both_s("borg-fixed"), math.inf, "s"),
        Verdict(name, "stored, a fresh repository of the snapshots kept", left, fresh, 1.05, "bytes"),
    ]


def _forget_verdicts(table: _Table) -> list[Verdict]:
    large = table.median("forget", "one in mid-chain", "wall_s")
    small = table.median("forget", "one in mid-chain, a tenth", "wall_s")
    return [
        Verdict("forget in mid-chain", "time, limit 1 s", large, 1.0, 1.0, "s"),
        Verdict("forget in mid-chain", "time, the same on a tenth of the data", large, small, math.inf, "s"),
    ]


def _memory_verdicts(table: _Table) -> list[Verdict]:
    return [
        Verdict("memory", f"peak of {task} on 1 TiB described, limit 300 MiB", peak, 300 * _MIB, 1.0, "bytes")
        for task in ("check", "prune")
        for peak in [table.median(task, "described", "peak_bytes")]
    ]


def _check_verdicts(table: _Table) -> Verdict:
    return Verdict(
        "check", "time on 1,000 snapshots, limit 5 s", table.median("check", "1,000", "wall_s"), 5.0, 1.0, "s"
    )
