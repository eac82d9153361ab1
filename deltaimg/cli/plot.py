# SPDX-License-Identifier: Apache-2.0
"""Draw where two snapshots differ: a map of the image, and how much changed along it."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from deltaimg.api.compare import ChangeMap, Difference, lay_on_curve
from deltaimg.cli.terminal import format_bytes, format_line
from deltaimg.errors import ImageError, TargetExists, UsageError, describe_installation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORDER = 8
CELLS = 4**ORDER
_STRIPES = 512
_EMPTY, _DATA, _LITTLE, _ALL = (
    np.array(rgb) / 255 for rgb in ((246, 246, 244), (205, 209, 214), (252, 174, 60), (158, 16, 40))
)
"""Of cells that are empty, unchanged, changed in one place, and changed throughout; the colour-blind can distinguish them."""
_CORNERS = (("left", "bottom"), ("left", "top"), ("right", "top"), ("right", "bottom"))
"""The quarters of the map, as the curve passes through them."""


def check_plot(path: str, *, is_forced: bool) -> None:
    """Refuse a file that cannot be drawn to, before any work is done; raises UsageError or TargetExists."""
    if os.path.splitext(path)[1].lower() not in (".png", ".svg"):
        raise UsageError(f"cannot draw into {path}", hint="give a file name that ends in .png or .svg")
    if os.path.lexists(path) and not is_forced:
        raise TargetExists(path, "exists", hint="give another name, or --force to replace it")
    if find_spec("matplotlib") is None:
        raise UsageError("drawing needs matplotlib", hint=describe_installation("matplotlib>=3.8"))


def draw_difference(difference: Difference, changes: ChangeMap, path: str) -> None:
    """Write the picture to `path`, whole or not at all; raises ImageError."""
    figure = _draw(difference, changes)
    suffix = os.path.splitext(path)[1].lower()
    folder = os.path.dirname(os.path.abspath(path))
    try:
        descriptor, temporary = tempfile.mkstemp(suffix, ".deltaimg-", folder)
    except OSError as error:
        raise ImageError(path, f"cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            figure.savefig(file, format=suffix[1:], dpi=144)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise ImageError(path, f"cannot be written: {error.strerror}") from error
    except BaseException:
        os.unlink(temporary)
        raise


def _draw(difference: Difference, changes: ChangeMap) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 9), layout="constrained")
    figure.suptitle(
        format_line(
            f"{difference.older.label} to {difference.newer.label}: {format_bytes(difference.differing_bytes)} "
            f"of {format_bytes(changes.size_bytes)} differ"
        ),
        fontsize=11,
        parse_math=False,
    )
    upper, lower = figure.subplots(2, 1, height_ratios=(6, 1))
    _draw_map(upper, changes)
    _draw_stripes(lower, changes)
    return figure


def _draw_map(axes: Axes, changes: ChangeMap) -> None:
    """One cell a pixel, along a Hilbert curve from the lower left corner to the lower right one."""
    from matplotlib.patches import Patch

    changed, data = (lay_on_curve(shares, ORDER)[..., np.newaxis] for shares in (changes.changed, changes.data))
    plain = np.where(data > 0, _DATA, _EMPTY)
    # A single block of a cell must be seen, too: what changed at all begins with a strong colour.
    pixels = np.where(changed > 0, _LITTLE + (_ALL - _LITTLE) * np.sqrt(changed), plain)
    axes.imshow(pixels, origin="lower", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    side = 1 << ORDER
    quarter = changes.size_bytes / 4
    for number, (across, along) in enumerate(_CORNERS):
        x, y = 0.01 if across == "left" else 0.99, 0.01 if along == "bottom" else 0.99
        text = f"{format_bytes(int(number * quarter))} to {format_bytes(int((number + 1) * quarter))}"
        axes.text(x, y, text, ha=across, va=along, transform=axes.transAxes, fontsize=8, color="#333333")
    for draw_line in (axes.axhline, axes.axvline):
        draw_line(side / 2 - 0.5, color="white", linewidth=0.8)
    axes.legend(
        handles=[
            Patch(color=tuple(_EMPTY), label="empty"),
            Patch(color=tuple(_DATA), label="the same"),
            Patch(color=tuple(_LITTLE), label="a little changed"),
            Patch(color=tuple(_ALL), label="all changed"),
        ],
        loc="lower center",
        bbox_to_anchor=(0.5, -0.08),
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    axes.set_title(f"each point {format_bytes(-(-changes.size_bytes // CELLS))}, along a Hilbert curve", fontsize=9)


def _draw_stripes(axes: Axes, changes: ChangeMap) -> None:
    """How much changed from the start of the image to its end."""
    changed, data = (100 * shares.reshape(_STRIPES, -1).mean(axis=1) for shares in (changes.changed, changes.data))
    gib = changes.size_bytes / 2**30
    unit, size = ("GiB", gib) if gib >= 1 else ("MiB", gib * 1024)
    width = size / _STRIPES
    starts = np.arange(_STRIPES) * width
    axes.bar(starts, data, width, align="edge", color=_DATA)
    axes.bar(starts, changed, width, align="edge", color=_ALL)
    axes.set_xlim(0, max(size, width, 1e-9))
    axes.set_ylim(0, 100)
    axes.set_xlabel(f"offset in the image, {unit}", fontsize=9)
    axes.set_ylabel("%", fontsize=9)
    axes.tick_params(labelsize=8)
