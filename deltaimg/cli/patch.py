# SPDX-License-Identifier: Apache-2.0
"""`deltaimg patch`."""

from __future__ import annotations

from typing import Annotated

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Verbose, check_output
from deltaimg.cli.terminal import Terminal, format_bytes
from deltaimg.options.files import PatchOptions


@takes_options
def patch(
    options: PatchOptions,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The file that was signed, or a block device.")],
    delta: Annotated[str, typer.Argument(metavar="DELTA", help="What makes NEW of it, or '-' for the standard input.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="New file, block device, or '-' for the standard output.")],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Apply a delta to the old file, which gives the new one.

    The file gets its name once its digest is that of the file that was compared: another OLD is found, and no wrong NEW is
    left. A delta of --format rdiff has no digest: there an OLD that is merely changed is not found. One of --format
    vcdiff has a checksum of 32 bits for each window, unless xdelta3 was called with -n.

    Examples:

        deltaimg patch old.raw new.delta new.raw
        ssh host cat new.delta | deltaimg patch old.raw - new.raw
        deltaimg patch --format rdiff old.raw new.delta new.raw
        deltaimg patch --format vcdiff old.raw new.vcdiff new.raw
    """
    from deltaimg.api.files import patch_file
    from deltaimg.describe.files import describe_file

    is_piped = check_output(new, as_json=as_json)
    with Terminal(as_json=as_json, is_quiet=quiet or is_piped, is_verbose=verbose) as terminal:
        result = patch_file(old, delta, new, options, progress=terminal)
        if as_json:
            terminal.print_json(describe_file(result, options.format))
        terminal.remark(
            f"{new}: {format_bytes(result.image_bytes)} written{' and verified' if result.is_verified else ''}, "
            f"{format_bytes(result.copied_bytes)} of it from {old}"
        )
