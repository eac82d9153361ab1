# SPDX-License-Identifier: Apache-2.0
"""The first screen of `docs/benchmarks.md`: a picture and ten rows of one guest, deltaimg beside restic and borg.

Always  figures are medians of committed results; the smallest of a row is set in bold, whoever has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from measuring.results import Measurement
from measuring.tables import markdown

GUEST = "ext4"
PEERS = {"deltaimg": "deltaimg", "restic": "restic", "borg-fixed": "borg, 64 KiB chunks"}
_COLOURS = {"deltaimg": "#000000", "restic": "#e69f00", "borg-fixed": "#56b4e9"}


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One comparison: which measurement of each peer, and which of its figures."""

    title: str
    task: str
    row: str
    column: str = "wall_s"

    def figure_of(self, measurements: Sequence[Measurement], peer: str) -> float:
        """The median of a peer, in seconds or MiB; NaN where it was not measured."""
        for one in measurements:
            if (one.task, one.row, one.peer) == (self.task, self.row, peer):
                return one.median(self.column) / (1 if self.column == "wall_s" else 1 << 20)
        return math.nan

    @property
    def unit(self) -> str:
        return "s" if self.column == "wall_s" else "MiB"


ROWS = (
    SummaryRow("first backup: time", "backup", "full"),
    SummaryRow("first backup: stored", "backup", "full", "stored_bytes"),
    SummaryRow("after an ordinary day: time", "backup", "ordinary"),
    SummaryRow("after an ordinary day: stored", "backup", "ordinary", "stored_bytes"),
    SummaryRow("nothing changed: time", "backup", "quiet"),
    SummaryRow("trees moved, tables rewritten: time", "backup", "repack"),
    SummaryRow("restore of the first backup", "restore", "full"),
    SummaryRow("restore of the sixth", "restore", "new-data"),
    SummaryRow("verify all content of four", "verify", "all"),
    SummaryRow("memory of an ordinary backup", "backup", "ordinary", "peak_bytes"),
)
_PANELS = (
    ("backup, seconds", ("full", "ordinary", "quiet"), "backup", "wall_s"),
    ("stored, MiB", ("full", "ordinary", "upgrade"), "backup", "stored_bytes"),
    ("restore, seconds", ("full", "new-data"), "restore", "wall_s"),
)
_ROW_NAMES = {"full": "first", "ordinary": "ordinary\nday", "quiet": "no\nchange", "upgrade": "packages\nupgraded"}


def summary_table(measurements: Sequence[Measurement]) -> list[str]:
    """The ten rows as Markdown."""
    lines = []
    for row in ROWS:
        figures = {peer: row.figure_of(measurements, peer) for peer in PEERS}
        best = min((each for each in figures.values() if not math.isnan(each)), default=math.nan)
        lines.append((row.title, *(_cell(each, row.unit, is_best=each == best) for each in figures.values())))
    return markdown(("", *PEERS.values()), lines)


def draw_summary(measurements: Sequence[Measurement], path: Path) -> None:
    """Draw times, sizes and restores side by side, the same results always as the same file."""
    with rc_context({"svg.hashsalt": "deltaimg", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(9, 3), layout="constrained")
        panels = figure.subplots(1, len(_PANELS), width_ratios=[len(rows) for _, rows, _, _ in _PANELS])
        for axes, (title, rows, task, column) in zip(panels, _PANELS, strict=True):
            for place, peer in enumerate(PEERS):
                heights = [SummaryRow("", task, row, column).figure_of(measurements, peer) for row in rows]
                left = [number + 0.27 * (place - 1) for number in range(len(rows))]
                bars = axes.bar(left, heights, 0.27, label=PEERS[peer], color=_COLOURS[peer])
                axes.bar_label(bars, [_short(each) for each in heights], fontsize=7, padding=1)
            axes.set_xticks(range(len(rows)), [_ROW_NAMES.get(row, "sixth") for row in rows])
            axes.set_title(title, fontsize=10)
            axes.set_yticks([])
            axes.margins(y=0.12)
            for side in ("top", "right", "left"):
                axes.spines[side].set_visible(False)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _cell(figure: float, unit: str, *, is_best: bool) -> str:
    if math.isnan(figure):
        return "not measured"
    text = f"{_short(figure)} {unit}"
    return f"**{text}**" if is_best else text


def _short(figure: float) -> str:
    if math.isnan(figure):
        return ""
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}"
