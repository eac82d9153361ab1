# SPDX-License-Identifier: Apache-2.0
"""`deltaimg help`."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from deltaimg.cli.options import Json, Quiet, Verbose
from deltaimg.cli.terminal import Terminal


def help(  # noqa: A001  its name is the command's
    command: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="COMMAND", help="The command to describe.", show_default="list all"),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Describe a command, or list all commands.

    With --json, the options of a command or the list of commands come as one object.

    Examples:

        deltaimg help
        deltaimg help backup
    """
    from deltaimg.cli.app import build_group

    group = build_group()
    context = group.make_context("deltaimg", [], resilient_parsing=True)
    if command is not None:
        _, found, _ = group.resolve_command(context, [command])
        context = found.make_context(command, [], parent=context, resilient_parsing=True)
    if as_json:
        Terminal(as_json=True).print_json(_describe(context))
    else:
        print(context.get_help())


def _describe(context: Any) -> dict[str, object]:
    """Return a command, with its options or its own commands, as a JSON object."""
    from deltaimg.cli.app import COMMAND_GROUPS
    from deltaimg.cli.help_text import describe_params, summarise

    described: dict[str, object] = {
        "command": context.command_path,
        "summary": summarise(context.command.help or ""),
        "options": [
            {"name": each.term.strip(), "help": each.text, "is_argument": each.is_argument}
            for each in describe_params(context.command, context)
        ],
    }
    if context.parent is None:
        described["commands"] = {name: text for group in COMMAND_GROUPS.values() for name, text in group.items()}
    return described
