# SPDX-License-Identifier: Apache-2.0
"""docs/architecture.md names functions, classes and modules that exist, and the other documents modules."""

from __future__ import annotations

import importlib
import re
import tomllib
from fnmatch import fnmatch
from functools import reduce
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
WALK = TEXT[TEXT.index("## One backup") : TEXT.index("## One restore")]
DOTTED = re.compile(r"`((?:engine|freeze|tracking|guest|repo|delta|kernels|image|store|codec|format|api)(?:\.\w+)+)`")
MODULE = re.compile(
    r"`(?:deltaimg/)?((?:engine|freeze|tracking|guest|domains|repo|delta|kernels|image|store|codec|crypto|format|options"
    r"|api|describe|cli)(?:/\w+)+\.py)`"
)

LAYERS = {
    contract["containers"][0]: [layer.split(" | ") for layer in contract["layers"]]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if contract["type"] == "layers"
}


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


@pytest.mark.parametrize("document", sorted((ROOT / "docs").rglob("*.md")), ids=lambda document: document.name)
def test_modules_that_are_named_exist(document: Path) -> None:
    """A decision that was superseded names what there was then."""
    text = document.read_text()
    missing = [path for path in MODULE.findall(text) if not (ROOT / "deltaimg" / path).is_file()]
    assert not missing or "\nSuperseded by [" in text


def test_the_walk_through_a_backup_names_every_module_of_it() -> None:
    """Helpers of one stage may go unnamed; a stage may not."""
    named = " ".join(DOTTED.findall(WALK))
    stages = {path.stem for path in (ROOT / "deltaimg/engine/backup").glob("*.py")}
    helpers = {
        "__init__",
        "run",
        "forecast",
        "option_checks",
        "request",
        "context",
        "changed_blocks",
        "encoding",
        "cache_folder",
    }
    missing = [stage for stage in sorted(stages - helpers) if f".backup.{stage}." not in named]
    assert not missing


TREE = TEXT[TEXT.index("deltaimg/\n") : TEXT.index("native/ ")]


def test_the_tree_has_what_there_is_in_the_order_of_the_layers() -> None:
    """The contract of import-linter is exhaustive: what it lists is all there is."""
    listed = re.findall(r"^  (\w+)(?:/|\.py) ", TREE, re.MULTILINE)
    for layer in LAYERS["deltaimg"]:
        assert sorted(listed[: len(layer)]) == sorted(layer)
        del listed[: len(layer)]
    assert not listed


def test_the_tree_has_what_there_is_of_the_engine() -> None:
    listed = re.findall(r"^    (\w+)(?:/|\.py) ", TREE, re.MULTILINE)
    assert sorted(listed) == sorted(chain.from_iterable(LAYERS["deltaimg.engine"]))


def test_every_module_of_a_verb_is_in_the_table_and_no_other() -> None:
    rows = re.findall(r"^\| ([\w/]+) \|(.*)\|(.*)\|$", TEXT[: TEXT.index("## What refers to what")], re.MULTILINE)[1:]
    engine = ROOT / "deltaimg/engine"
    assert {folder for folder, *_ in rows} == {
        str(path.relative_to(engine).parent) for path in engine.rglob("*.py") if path.parent != engine
    }
    for folder, *cells in rows:
        modules = {path.stem for path in (engine / folder).glob("*.py")} - {"__init__"}
        named = re.findall(r"\w+\*?", " ".join(cells))
        assert not [module for module in modules if not any(fnmatch(module, name) for name in named)], folder
        items = re.split("[,;]", re.sub(r"\(.*?\)", "", ",".join(cells)))
        assert {item.strip() for item in items if item.strip().isidentifier()} <= modules, folder
