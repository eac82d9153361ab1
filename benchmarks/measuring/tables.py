# SPDX-License-Identifier: Apache-2.0
"""Measurements and verdicts as Markdown tables, for the terminal and for `docs/benchmarks.md`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from measuring.results import Measurement
from measuring.verdicts import Verdict


def backup_table(measurements: Sequence[Measurement]) -> list[str]:
    """Every backup: medians, and the spread of the wall time."""
    head = ("backup", "peer", "wall s", "runs", "CPU s", "sync s", "peak MiB", "stored MiB", "note")
    rows = [
        (
            f"{one.number} {one.row}", one.peer, _number(one.median("wall_s"), 2), _spread(one.wall_s),
            _number(one.median("cpu_s"), 2), _number(one.median("sync_s"), 2), _mib(one.median("peak_bytes"), 0),
            _mib(one.median("stored_bytes"), 2), one.note,
        )
        for one in measurements
        if one.task == "backup"
    ]  # fmt: skip
    return markdown(head, rows)


def restore_table(measurements: Sequence[Measurement]) -> list[str]:
    """Every restore: medians, whether each was equal to the image, and what the result takes on disk."""
    head = ("restore of", "peer", "wall s", "runs", "CPU s", "sync s", "peak MiB", "allocated MiB", "equal", "note")
    rows = [
        (
            f"{one.number} {one.row}", one.peer, _number(one.median("wall_s"), 2), _spread(one.wall_s),
            _number(one.median("cpu_s"), 2), _number(one.median("sync_s"), 2), _mib(one.median("peak_bytes"), 0),
            _mib(one.median("allocated_bytes"), 0), _equal(one), one.note,
        )
        for one in measurements
        if one.task == "restore"
    ]  # fmt: skip
    return markdown(head, rows)


def task_table(measurements: Sequence[Measurement]) -> list[str]:
    """Everything that is neither a backup nor a restore."""
    head = ("task", "of", "by", "wall s", "runs", "CPU s", "peak MiB", "read MiB", "stored after MiB", "figure", "note")
    rows = [
        (
            one.task, one.row, one.peer, _number(one.median("wall_s"), 2), _spread(one.wall_s),
            _number(one.median("cpu_s"), 2), _mib(one.median("peak_bytes"), 0), _mib(one.median("read_bytes"), 1),
            _mib(one.median("stored_bytes"), 2), _number(one.median("value"), 3), one.note,
        )
        for one in measurements
        if one.task not in ("backup", "restore")
    ]  # fmt: skip
    return markdown(head, rows)


def verdict_table(verdicts: Iterable[Verdict]) -> list[str]:
    """Every must with its ratio and its verdict."""
    head = ("row", "what, against whom", "deltaimg", "against", "ratio", "must be at most", "")
    rows = [
        (
            one.row, one.what, _figure(one.ours, one.unit), _figure(one.theirs, one.unit),
            _number(one.ratio, 3), "-" if math.isinf(one.factor) else f"{one.factor:.3g}",
            f"**{one.word}**" if one.word == "miss" else one.word,
        )
        for one in verdicts
    ]  # fmt: skip
    return markdown(head, rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table as lines."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in line)} |" for line in lines]


def _spread(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values) or "-"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _mib(value: float, digits: int) -> str:
    return _number(value / (1 << 20), digits)


def _figure(value: float, unit: str) -> str:
    if math.isnan(value):
        return "-"
    if unit == "s":
        return f"{value:.2f} s"
    if unit != "bytes":
        return f"{value:.0f} {unit}"
    return f"{value / (1 << 20):.2f} MiB" if value >= 1 << 20 else f"{value / (1 << 10):.1f} KiB"


def _equal(one: Measurement) -> str:
    if not one.equal:
        return "-"
    return "yes" if all(one.equal) else "**no**"
