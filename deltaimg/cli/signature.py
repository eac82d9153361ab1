# SPDX-License-Identifier: Apache-2.0
"""`deltaimg signature`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from deltaimg.cli.options import Force, Json, Quiet, Verbose, check_output, parse_size
from deltaimg.cli.terminal import Terminal, format_bytes


def signature(
    old: Annotated[str, typer.Argument(metavar="OLD", help="File, block device, or '-' for the standard input.")],
    output: Annotated[str, typer.Argument(metavar="SIG", help="New file, or '-' for the standard output.")] = "-",
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="'deltaimg', or 'rdiff' for the rdiff program at the other end. VCDIFF has no signatures.",
        ),
    ] = "deltaimg",
    block_size: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--block-size",
            "-b",
            metavar="SIZE",
            help="Finer blocks: smaller deltas, a larger signature.",
            show_default="from the size of OLD",
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the signature of a file, for 'deltaimg delta'.

    The first of three steps that bring a new file to where an old one is, over a thin line and without a repository. The
    signature has some bytes for each block that is not zero.

    Examples:

        deltaimg signature old.raw old.sig
        ssh host deltaimg signature /srv/old.raw > old.sig
        deltaimg signature --format rdiff -b 4K old.raw old.sig
    """
    from deltaimg.api.files import sign_file

    is_piped = check_output(output, as_json=as_json)
    with Terminal(as_json=as_json, is_quiet=quiet or is_piped, is_verbose=verbose) as terminal:
        result = sign_file(
            old,
            output,
            format_name=format_,
            block_bytes=None if block_size is None else parse_size(block_size),
            is_forced=force,
            progress=terminal,
        )
        if as_json:
            terminal.print_json(
                {
                    "format": format_,
                    "image_bytes": result.image_bytes,
                    "block_bytes": result.block_bytes,
                    "signature_bytes": result.signature_bytes,
                }
            )
        terminal.remark(
            f"{old}: {format_bytes(result.image_bytes)} in blocks of {format_bytes(result.block_bytes)}, "
            f"signature of {format_bytes(result.signature_bytes)}"
        )
