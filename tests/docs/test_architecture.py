# SPDX-License-Identifier: Apache-2.0
"""docs/architecture.md names functions, classes and modules that exist."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
WALK = TEXT[TEXT.index("## One backup") : TEXT.index("## One restore")]
DOTTED = re.compile(r"`((?:engine|freeze|tracking|guest|repo|delta|kernels|image|store|codec|format|api)(?:\.\w+)+)`")
MODULE = re.compile(
    r"`((?:engine|freeze|tracking|guest|repo|delta|kernels|image|store|codec|format|api|cli)(?:/\w+)+\.py)`"
)


def find(name: str) -> object:
    """Return what a dotted name below `deltaimg` stands for."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(["deltaimg", *parts[:end]]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[end:], module)
    raise LookupError(name)


@pytest.mark.parametrize("name", sorted(set(DOTTED.findall(TEXT))))
def test_what_is_named_exists(name: str) -> None:
    assert find(name) is not None


@pytest.mark.parametrize("path", sorted(set(MODULE.findall(TEXT))))
def test_a_module_that_is_named_exists(path: str) -> None:
    assert (ROOT / "deltaimg" / path).is_file()


def test_the_walk_through_a_backup_names_every_module_of_it() -> None:
    """Helpers of one stage may go unnamed; a stage may not."""
    named = " ".join(DOTTED.findall(WALK))
    stages = {path.stem for path in (ROOT / "deltaimg/engine/backup").glob("*.py")}
    helpers = {"__init__", "run", "forecast", "option_checks", "context", "changed_blocks", "encoding", "cache_folder"}
    missing = [stage for stage in sorted(stages - helpers) if f".backup.{stage}." not in named]
    assert not missing
