# SPDX-License-Identifier: Apache-2.0
"""`deltaimg delta`."""

from __future__ import annotations

from typing import Annotated

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Verbose, check_output
from deltaimg.cli.terminal import Terminal, format_bytes
from deltaimg.options.files import DeltaOptions


@takes_options
def delta(
    options: DeltaOptions,
    signature: Annotated[
        str,
        typer.Argument(
            metavar="SIG", help="Signature of OLD, or '-' for the standard input. With --format vcdiff, OLD itself."
        ),
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="File, block device, or '-' for the standard input.")],
    output: Annotated[str, typer.Argument(metavar="DELTA", help="New file, or '-' for the standard output.")] = "-",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the delta from a signed file to a new one.

    Blocks are looked for where they were, then, in what did not match, at any offset. What is new is compressed (not with
    --format rdiff or vcdiff, which have no room for that). With --format vcdiff, blocks are looked for within 4 MiB of where
    they were.

    Examples:

        deltaimg delta old.sig new.raw new.delta
        ssh host deltaimg signature /srv/old.raw | deltaimg delta - new.raw new.delta
        deltaimg delta --format rdiff old.sig new.raw | zstd > new.delta.zst
        deltaimg delta --format vcdiff old.raw new.raw new.vcdiff
    """
    from deltaimg.api.files import delta_file
    from deltaimg.describe.files import describe_file

    is_piped = check_output(output, as_json=as_json)
    with Terminal(as_json=as_json, is_quiet=quiet or is_piped, is_verbose=verbose) as terminal:
        result = delta_file(signature, new, output, options, progress=terminal)
        if as_json:
            terminal.print_json(describe_file(result, options.format))
        terminal.remark(
            f"{new}: {format_bytes(result.image_bytes)}, of which {format_bytes(result.copied_bytes)} from the old file, "
            f"{format_bytes(result.zero_bytes)} zero and {format_bytes(result.literal_bytes)} new; "
            f"delta of {format_bytes(result.delta_bytes)}"
        )
