# SPDX-License-Identifier: Apache-2.0
"""The list of commands, and how they are built: each from a function in a module of its own.

Starting up costs what the command needs and no more. A command's module is imported when the command is run or its help is
shown, and what it works with when it has read its options. Every option is text or a flag that commands parse themselves:
so typer need not load what it has for typed values, and a bad value gets an error of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import wraps
from importlib import import_module
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from deltaimg import __version__
from deltaimg.cli.completion import find_completer, prepare_completion
from deltaimg.cli.help_text import format_command, format_group, usage
from deltaimg.cli.interruption import describe_interruption
from deltaimg.cli.options import Threads, move_common_options
from deltaimg.cli.shortage import check_address_space, find_shortage
from deltaimg.errors import Interrupted, UsageError
from deltaimg.options.values import parse_count
from deltaimg.threads import limit_workers

COMMAND_GROUPS = {
    "Backup": {
        "init": "Create a repository.",
        "backup": "Store an image as a new snapshot.",
        "snapshots": "List snapshots, oldest first.",
        "show": "Describe one snapshot: its content, and what its backup stored.",
        "diff": "List which extents differ between two snapshots.",
        "inspect": "List the partitions and file systems of an image or a snapshot.",
    },
    "Offsite": {
        "sync": "Copy snapshots from one repository to another.",
        "mirror": "Keep a plain copy of an image current, on another host or here.",
    },
    "Recovery": {
        "restore": "Restore a snapshot as a sparse image, all of a group, or every image.",
        "mount": "Show all snapshots as files of a folder, which can only be read.",
        "cat": "Write a range of a snapshot to the standard output.",
        "repair": "Repair a damaged repository, and list what stays damaged.",
    },
    "Maintenance": {
        "check": "Check the structure of a repository.",
        "verify": "Verify that snapshots can be restored.",
        "forget": "Forget snapshots by policy or by name.",
        "pin": "Pin a snapshot: it cannot be forgotten until unpinned.",
        "unpin": "Unpin a snapshot: it can be forgotten again. Of a group, all members are unpinned.",
        "tag": "Add tags to a snapshot, or remove them.",
        "prune": "Delete what no snapshot needs, and free its space.",
        "flatten": "Make snapshots self-contained, or bound delta depth.",
        "parity": "Protect packs by parity, and recover damaged ones.",
        "stats": "Sum up a repository: what it holds, and its size.",
        "key": "Manage the keys of an encrypted repository.",
        "unlock": "List the locks in a repository, or remove one.",
    },
    "One file, without a repository": {
        "signature": "Write the signature of a file, for 'deltaimg delta'.",
        "delta": "Write the delta from a signed file to a new one.",
        "patch": "Apply a delta to the old file, which gives the new one.",
    },
    "This machine": {
        "doctor": "Say what this host, a repository and images allow, and why not more.",
        "cache": "Show or clean what this host keeps so that its next backups are faster and smaller.",
        "benchmark": "Measure how fast this machine can back up.",
        "version": "Print the version; with -v, those of libraries too.",
        "help": "Describe a command, or list all commands.",
    },
}
"""What each command is for: the first paragraph of its help, so that listing commands imports none."""
COMMANDS = tuple(name for names in COMMAND_GROUPS.values() for name in names)

_ParserError: type[Exception] = typer.BadParameter.__mro__[1]
"""What the parser raises: bad values and all other misuse have this class in common."""


class Command(TyperCommand):
    """A command with help in our own layout."""

    def get_params(self, ctx: Any) -> Any:
        params = _keep_as_they_are(super().get_params(ctx))
        for param in params:
            if completer := find_completer(self.name or "", param.name):
                param.shell_complete = completer
        return params

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(format_command(self, ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            check_address_space(self.name or "")
            return super().invoke(ctx)
        except Interrupted as error:
            raise describe_interruption(error.signal_number, self.name or "") from error
        except Exception as error:
            if shortage := find_shortage(error, self.name or ""):
                raise shortage from error
            raise


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is asked for."""

    def get_params(self, ctx: Any) -> Any:
        return _keep_as_they_are(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and arguments of a command line."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from deltaimg.cli.habits import suggest_command

            raise UsageError(f"there is no command '{args[0][:60]}'", hint=suggest_command(args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, whose module is imported only now."""
        return build_command(cmd_name) if cmd_name in COMMANDS else None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(format_group(self, ctx, COMMAND_GROUPS))


def find_function(name: str) -> Any:
    """Return the function that is the command `name`."""
    return getattr(import_module(f"deltaimg.cli.{name}"), name)


def build_command(name: str) -> Any:
    """Return the command `name`, ready to run."""
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, cls=Command)(_with_threads(find_function(name)))
    return typer.main.get_command(single)


def _with_threads(function: Any) -> Any:
    """Return a command's function with an option more, which all commands have: on how many threads to work."""

    @wraps(function)
    def run_command(*, threads: str | None = None, **values: Any) -> Any:
        if threads is not None:
            limit_workers(parse_count(threads))
        return function(**values)

    hints = get_type_hints(function, include_extras=True)
    own = [each.replace(annotation=hints[each.name]) for each in signature(function).parameters.values()]
    added = Parameter("threads", Parameter.KEYWORD_ONLY, default=None, annotation=Threads)
    described: Any = run_command
    described.__signature__ = Signature([*own, added], return_annotation=None)
    described.__annotations__ = {each.name: each.annotation for each in (*own, added)}
    return described


def build_group() -> Any:
    """Return the whole command line."""
    return typer.main.get_command(app)


def run() -> int:
    """Parse the command line, run the command that it names and return the exit code; raises DeltaimgError."""
    try:
        prepare_completion(os.environ)
        arguments = move_common_options(sys.argv[1:])
        return int(build_group().main(arguments, prog_name="deltaimg", standalone_mode=False) or 0)
    except _ParserError as error:
        raise _describe_misuse(error, arguments) from error


def _describe_misuse(error: Any, arguments: Sequence[str]) -> UsageError:
    from deltaimg.cli.habits import suggest_option, suggest_repository

    message = str(error.format_message()).strip().rstrip(".")
    # Options that all commands have were moved behind it; of an option without its value the parser does not say whose it is.
    name = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    hint = f"'deltaimg help{name and ' '}{name}' lists its options"
    if hasattr(error, "possibilities"):
        message = f"no such option: {error.option_name}"
        options = error.ctx.command.params if error.ctx else ()
        hint = suggest_option(error.option_name, name, (each for option in options for each in option.opts))
    elif isinstance(missing := getattr(error, "param", None), TyperArgument) and error.ctx is not None:
        hint = f"{usage(error.ctx.command, error.ctx)}; {missing.metavar}: {str(missing.help).rstrip('.')}"
    elif message.startswith("Got unexpected extra argument"):
        hint = suggest_repository(name, arguments[-1]) or hint
    return UsageError(message[:1].lower() + message[1:], hint=hint)


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
        bool,
        typer.Option("--version", "-V", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Back up disk images and block devices: one full, then small increments.

    Any snapshot is restored as a sparse image, and every block is verified by its digest.

    Set DELTAIMG_REPO to leave -r out. 'deltaimg help COMMAND' describes a command, with examples. Options that all commands
    have (-r, -q, -v, --json, --threads) may also stand before the command.

    Examples:

        deltaimg init -r /backup/repo
        deltaimg backup /dev/vg0/vm1-snap --image vm1 -r /backup/repo
        deltaimg restore vm1@latest /var/lib/images/vm1.raw -r /backup/repo
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
