# SPDX-License-Identifier: Apache-2.0
"""Options of a command from their definition: a parameter of a command that is an options dataclass becomes its options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Optional, get_type_hints

import typer

from deltaimg.options.definition import OptionInfo, build, list_options, name_option


def takes_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command whose parameters that are options dataclasses are given as options on the command line."""
    hints = get_type_hints(function, include_extras=True)
    parameters: list[Parameter] = []
    groups: dict[str, type[Any]] = {}
    for each in signature(function).parameters.values():
        annotation = hints[each.name]
        if isinstance(annotation, type) and any(True for _ in _list_if_options(annotation)):
            groups[each.name] = annotation
            parameters += _make_parameters(annotation)
        else:
            parameters.append(each.replace(annotation=annotation, kind=Parameter.KEYWORD_ONLY))

    @wraps(function)
    def run(**values: Any) -> Any:
        for name, options_type in groups.items():
            given = {field.name: values.pop(field.name) for field, _ in list_options(options_type)}
            values[name] = build(options_type, given)
        return function(**values)

    described: Any = run
    described.__signature__ = Signature(parameters, return_annotation=None)
    described.__annotations__ = {each.name: each.annotation for each in parameters}
    described.choices = {
        field.name: info.type.choices for each in groups.values() for field, info in list_options(each) if info.type
    }
    del described.__wrapped__
    return run


def list_choices(function: Callable[..., Any]) -> dict[str, tuple[str, ...]]:
    """Return the values of those options of a command of which all are known, by the options' names."""
    return {name: values for name, values in getattr(function, "choices", {}).items() if values}


def _list_if_options(annotation: type[Any]) -> Iterator[object]:
    if hasattr(annotation, "__dataclass_fields__"):
        yield from list_options(annotation)


def _make_parameters(options_type: type[Any]) -> Iterator[Parameter]:
    for field, info in list_options(options_type):
        names = info.names or (name_option(field, info),)
        annotation: Any
        if info.type is None:
            annotation, default = Annotated[bool, typer.Option(*names, help=info.help)], False
        else:
            shown = info.default_text or _format_default(field.default, info)
            made = typer.Option(
                *names, metavar=info.type.metavar, help=info.help, show_default=shown or False, envvar=info.environment
            )
            text = Optional[list[str]] if info.is_repeatable else Optional[str]  # noqa: UP045  typer reads this
            annotation, default = Annotated[text, made], None
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _format_default(default: Any, info: OptionInfo) -> str:
    if default is None or default in ("", ()) or info.type is None:
        return ""
    return str(info.type.format(default))
