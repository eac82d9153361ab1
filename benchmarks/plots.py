# SPDX-License-Identifier: Apache-2.0
"""Plots of one guest's results as SVG: bytes stored, backup times, restore times.

Always  the same results give the same file; colours are Okabe and Ito's, told apart without colour vision by hatches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measuring.results import Measurement
from measuring.verdicts import OWN_RESTORES

_COLOURS = {
    "deltaimg": "#000000", "restic": "#e69f00", "borg-fixed": "#56b4e9", "borg-default": "#0072b2", "zstd": "#009e73",
    "cp": "#999999", "xdelta3": "#d55e00", "rdiff": "#cc79a7",
}  # fmt: skip
_HATCHES = {"restic": "//", "borg-fixed": "..", "borg-default": "xx", "zstd": "--", "xdelta3": "\\\\", "rdiff": "++"}
_TINY = {"stored_bytes": 1 / 1024, "wall_s": 0.01}


def draw_all(measurements: Sequence[Measurement], guest: str, folder: Path) -> list[Path]:
    """Draw every plot that there are figures for; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    backups = [one for one in measurements if one.task == "backup" and not one.row.startswith("memory")]
    restores = [one for one in measurements if one.task == "restore" and one.row not in OWN_RESTORES]
    drawn = []
    for name, chosen, column, title, unit in (
        ("stored", backups, "stored_bytes", "Bytes stored per backup", "MiB, log scale"),
        ("time", backups, "wall_s", "Time per backup", "seconds, log scale"),
        ("restore", restores, "wall_s", "Restore time", "seconds, log scale"),
    ):
        measured = [one for one in chosen if one.is_measured]
        if name == "stored":
            measured = [one for one in measured if one.peer != "cp"]
        if measured:
            path = folder / f"benchmark-{guest}-{name}.svg"
            _draw(path, measured, column, f"{title}, guest {guest}", unit)
            drawn.append(path)
    return drawn


def _bars(axes: Axes, measurements: Sequence[Measurement], column: str, title: str, unit: str) -> None:
    """Groups of bars: a group a backup, a bar a peer."""
    groups = list(dict.fromkeys((one.number, one.row) for one in measurements))
    peers = [peer for peer in _COLOURS if any(one.peer == peer for one in measurements)]
    scale = 1 << 20 if column == "stored_bytes" else 1
    width = 0.84 / len(peers)
    for place, peer in enumerate(peers):
        values = {(one.number, one.row): one.median(column) / scale for one in measurements if one.peer == peer}
        left = [index - 0.42 + (place + 0.5) * width for index in range(len(groups))]
        heights = [max(values.get(group, 0.0), _TINY[column]) for group in groups]
        colour, hatch = _COLOURS[peer], _HATCHES.get(peer, "")
        axes.bar(left, heights, width, label=peer, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4)
        for x, height in zip(left, heights, strict=True):
            axes.annotate(f"{height:.3g}", (x, height), ha="center", va="bottom", rotation=90, fontsize=7,
                          xytext=(0, 2), textcoords="offset points")  # fmt: skip
    axes.set_yscale("log")
    axes.margins(y=0.16)
    axes.set_xticks(range(len(groups)), [f"{number}\n{row}" for number, row in groups])
    axes.set(title=title, ylabel=unit)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(ncols=min(8, len(peers)), fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)


def _draw(path: Path, measurements: Sequence[Measurement], column: str, title: str, unit: str) -> None:
    with rc_context({"svg.hashsalt": "deltaimg", "svg.fonttype": "none", "font.size": 11}):
        figure = Figure(figsize=(11, 5.2))
        axes = figure.subplots()
        _bars(axes, measurements, column, title, unit)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
