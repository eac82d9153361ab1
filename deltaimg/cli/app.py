# SPDX-License-Identifier: Apache-2.0
"""The list of commands, and how they are built: each from a function in a module of its own.

Starting up costs what the command needs and no more. A command's module is imported when the command is run or its help is
shown, and what it works with when it has read its options. Every option is text or a flag that commands parse themselves:
so typer need not load what it has for typed values, and a bad value gets an error of ours.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from deltaimg import __version__
from deltaimg.cli.help import format_command, format_group
from deltaimg.errors import UsageError

COMMAND_GROUPS = {
    "Every night": ("init", "backup", "snapshots", "show", "diff"),
    "The bad day": ("restore", "cat", "repair"),
    "Keeping house": ("check", "verify", "forget", "pin", "unpin", "prune", "flatten", "parity", "stats", "unlock"),
    "One file, without a repository": ("signature", "delta", "patch"),
    "This machine": ("benchmark", "version"),
}
COMMANDS = tuple(name for names in COMMAND_GROUPS.values() for name in names)

_ParserError: type[Exception] = typer.BadParameter.__mro__[1]
"""What the parser raises: bad values and all other misuse have this class in common."""


class Command(TyperCommand):
    """A command with help in our own layout."""

    def get_params(self, ctx: Any) -> Any:
        return _keep_as_they_are(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(format_command(self, ctx))


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is asked for."""

    def get_params(self, ctx: Any) -> Any:
        return _keep_as_they_are(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return build_command(cmd_name) if cmd_name in COMMANDS else None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        groups = {
            title: {name: (find_function(name).__doc__ or "").partition("\n")[0] for name in names}
            for title, names in COMMAND_GROUPS.items()
        }
        formatter.write(format_group(self, ctx, groups))


def find_function(name: str) -> Any:
    """Return the function that is the command `name`."""
    return getattr(import_module(f"deltaimg.cli.{name}"), name)


def build_command(name: str) -> Any:
    """Return the command `name`, ready to run."""
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, cls=Command)(find_function(name))
    return typer.main.get_command(single)


def build_group() -> Any:
    """Return the whole command line."""
    return typer.main.get_command(app)


def run() -> int:
    """Parse the command line, run the command that it names and return the exit code; raises DeltaimgError."""
    try:
        return int(build_group().main(prog_name="deltaimg", standalone_mode=False) or 0)
    except _ParserError as error:
        raise _describe_misuse(error) from error


def _describe_misuse(error: Any) -> UsageError:
    message = str(error.format_message()).strip().rstrip(".")
    command = error.ctx.command_path if error.ctx is not None else "deltaimg"
    return UsageError(message[:1].lower() + message[1:], hint=f"'{command} --help' tells what it takes")


class _AsIs:
    """Hands a value on as the parser found it."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        is_list = param.multiple or param.nargs == -1
        return () if value is None and is_list else value


def _keep_as_they_are(params: list[Any]) -> list[Any]:
    """Return parameters that take text as it is: typer 0.29 and later would load pydantic to check it, 0.1 s of CPU."""
    for param in params:
        if hasattr(param, "get_runtime_param"):
            param.get_runtime_param = _AsIs
    return params


app = typer.Typer(
    cls=LazyGroup,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"deltaimg {__version__}")
        raise typer.Exit


@app.callback()
def deltaimg(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Back up disk images and block devices: one full, then small nightly deltas.

    Any night comes back as a sparse image, proven bit for bit.

    Set DELTAIMG_REPO to leave -r out. 'deltaimg COMMAND --help' tells all about a command, with examples.

    Examples:

        deltaimg init -r /backup/repo
        deltaimg backup /dev/vg0/vm1-snap --image vm1 -r /backup/repo
        deltaimg restore vm1@latest /var/lib/images/vm1.raw -r /backup/repo
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
