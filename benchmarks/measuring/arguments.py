# SPDX-License-Identifier: Apache-2.0
"""Options that campaigns share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from peer import CHECKOUT


def make_parser(description: str | None, rows: Sequence[str]) -> argparse.ArgumentParser:
    """A parser with `--work`, `--rows`, `--runs` and `--results`; without `--rows` all rows are measured."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work-benchmarks"), help="where guests.py put the images")
    parser.add_argument("--rows", type=names_of(rows), default=tuple(rows), help=",".join(rows))
    parser.add_argument("--runs", type=int, default=3, help="repetitions; medians are judged")
    parser.add_argument("--results", type=Path, default=CHECKOUT / "benchmarks" / "results")
    return parser


def names_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser of comma-separated names: one that is not known ends the run before it starts."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
        return names

    return parse
