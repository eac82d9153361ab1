# SPDX-License-Identifier: Apache-2.0
"""Parts of index objects: some of their entries, with what these name and nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from deltaimg.arrays import expand_ranges
from deltaimg.format.cut_entries import CutEntries
from deltaimg.format.index import IndexObject, SourceLinks


def select_entries(content: IndexObject, is_kept: npt.NDArray[np.bool_]) -> IndexObject:
    """Return an index object with those entries that `is_kept` marks; its moment stays."""
    links = content.links
    counts, run_counts = links.link_counts.astype(np.int64), links.run_counts.astype(np.int64)
    starts, run_starts = np.cumsum(counts) - counts, np.cumsum(run_counts) - run_counts
    chosen = expand_ranges(starts[is_kept], counts[is_kept])
    runs = expand_ranges(run_starts[chosen], run_counts[chosen])
    used_ids, places = np.unique(links.places[chosen], return_inverse=True)
    entries = content.entries[is_kept].copy()
    packs, entries["pack"] = _renumber(content.packs, entries["pack"])
    signatures, entries["signature"] = _renumber(content.signatures, entries["signature"])
    kept_links = SourceLinks(
        links.ids[used_ids],
        links.link_counts[is_kept],
        places.reshape(-1).astype(np.uint32),
        links.run_counts[chosen],
        links.runs[runs],
    )
    cuts = _select_cuts(content.cuts, is_kept)
    return replace(content, packs=packs, signatures=signatures, entries=entries, links=kept_links, cuts=cuts)


def _select_cuts(cuts: CutEntries, is_kept: npt.NDArray[np.bool_]) -> CutEntries:
    """Return the cut records among the kept entries, which are numbered from 0 again."""
    chosen = is_kept[cuts.entries]
    numbers = (np.cumsum(is_kept) - 1)[cuts.entries[chosen]]
    run_counts = cuts.run_counts.astype(np.int64)
    starts = np.cumsum(run_counts) - run_counts
    runs = expand_ranges(starts[chosen], run_counts[chosen])
    return CutEntries(numbers.astype(np.uint32), cuts.run_counts[chosen], cuts.runs[runs])


def _renumber(
    names: tuple[str, ...], numbers: npt.NDArray[np.uint32]
) -> tuple[tuple[str, ...], npt.NDArray[np.uint32]]:
    """Return the names that are used, and the numbers of these."""
    used, places = np.unique(numbers, return_inverse=True)
    return tuple(names[number] for number in used.tolist()), places.reshape(-1).astype(np.uint32)
