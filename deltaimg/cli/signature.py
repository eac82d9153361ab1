# SPDX-License-Identifier: Apache-2.0
"""`deltaimg signature`."""

from __future__ import annotations

from typing import Annotated

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Verbose, check_output
from deltaimg.cli.terminal import Terminal, format_bytes
from deltaimg.options.files import SignatureOptions


@takes_options
def signature(
    options: SignatureOptions,
    old: Annotated[str, typer.Argument(metavar="OLD", help="File, block device, or '-' for the standard input.")],
    output: Annotated[str, typer.Argument(metavar="SIG", help="New file, or '-' for the standard output.")] = "-",
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
    from deltaimg.describe.files import describe_file

    is_piped = check_output(output, as_json=as_json)
    with Terminal(as_json=as_json, is_quiet=quiet or is_piped, is_verbose=verbose) as terminal:
        result = sign_file(
            old,
            output,
            options,
            progress=terminal,
        )
        if as_json:
            terminal.print_json(describe_file(result, options.format))
        terminal.remark(
            f"{old}: {format_bytes(result.image_bytes)} in blocks of {format_bytes(result.block_bytes)}, "
            f"signature of {format_bytes(result.signature_bytes)}"
        )
