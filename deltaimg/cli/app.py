# SPDX-License-Identifier: Apache-2.0
"""The list of commands. Each lives in a module of its own, loaded when it is run or its help is shown."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

COMMANDS = (
    "init",
    "backup",
    "snapshots",
    "show",
    "diff",
    "restore",
    "cat",
    "verify",
    "stats",
    "benchmark",
    "version",
)


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is asked for, so that starting up costs what the command needs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(import_module(f"deltaimg.cli.{cmd_name}").app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def deltaimg() -> None:
    """Back up disk images and block devices: one full, then small nightly deltas. Any night comes back as a sparse image,
    proven bit for bit.

    A first backup, a night later, and a restore:

        deltaimg init -r /backup/repo

        deltaimg backup /dev/vg0/vm1-snap --image vm1 -r /backup/repo

        deltaimg restore vm1@latest /var/lib/images/vm1.raw -r /backup/repo

    Set DELTAIMG_REPO to leave -r out. 'deltaimg COMMAND --help' has examples for each command.
    """
