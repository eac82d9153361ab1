# SPDX-License-Identifier: Apache-2.0
"""Public names say what they are, functions fit on a screen and a half, and constructors take no more than one can name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from deltaimg.store.interface import Store

PACKAGE = Path(__file__).parents[2] / "deltaimg"

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

LEAST_DOCUMENTED = 0.95
MAX_FUNCTION_LINES = 80
MAX_CONSTRUCTOR_PARAMETERS = 7


def find_definitions(tree: ast.AST, *, is_public: bool = True) -> Iterator[tuple[_Definition, bool]]:
    """Yield functions, classes and methods, and whether each is public; what is local to a function is not."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, _Definition):
            is_visible = is_public and not child.name.startswith("_")
            yield child, is_visible
            yield from find_definitions(child, is_public=is_visible and isinstance(child, ast.ClassDef))
        elif isinstance(child, ast.stmt):
            yield from find_definitions(child, is_public=is_public)


def read_definitions() -> Iterator[tuple[str, _Definition, bool]]:
    """Yield every definition of the package with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for definition, is_public in find_definitions(ast.parse(path.read_text(encoding="utf-8"))):
            yield f"{path.relative_to(PACKAGE)}:{definition.lineno} {definition.name}", definition, is_public


def test_public_names_have_docstrings() -> None:
    """What a store does is said once, in the interface; what implements it is left out."""
    stores = set(vars(Store))
    public = [
        (place, ast.get_docstring(found) is not None)
        for place, found, is_public in read_definitions()
        if is_public and not (place.startswith("store/") and "interface.py" not in place and found.name in stores)
    ]
    assert len(public) > 1000
    missing = [place for place, is_documented in public if not is_documented]
    assert len(missing) <= (1 - LEAST_DOCUMENTED) * len(public), missing


def test_no_function_is_longer_than_its_bound() -> None:
    functions = [
        (place, found)
        for place, found, _ in read_definitions()
        if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 1000
    lines = {place: (found.end_lineno or 0) - found.lineno + 1 for place, found in functions}
    assert not {place: count for place, count in lines.items() if count > MAX_FUNCTION_LINES}


def test_no_constructor_has_more_parameters_than_its_bound() -> None:
    constructors = [
        (place, found.args)
        for place, found, _ in read_definitions()
        if isinstance(found, ast.FunctionDef) and found.name == "__init__"
    ]
    assert len(constructors) > 50
    counts = {place: len(args.posonlyargs + args.args + args.kwonlyargs) - 1 for place, args in constructors}
    assert not {place: count for place, count in counts.items() if count > MAX_CONSTRUCTOR_PARAMETERS}
