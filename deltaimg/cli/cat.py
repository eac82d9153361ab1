# SPDX-License-Identifier: Apache-2.0
"""`deltaimg cat`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from deltaimg.cli.options import Json, Quiet, Repo, Verbose, parse_size, require_repo

app = typer.Typer(rich_markup_mode="rich", add_completion=False)

_PIECE_BYTES = 4 << 20


@app.command()
def cat(
    snapshot: Annotated[str, typer.Argument(metavar="SNAPSHOT", help="vm1, vm1@latest~2, vm1@2026-11-23, or an id.")],
    offset: Annotated[str, typer.Option("--offset", "-o", help="Where to begin, such as 1M.")] = "0",
    length: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--length", "-n", help="How much, such as 512.", show_default="to the end"),
    ] = None,
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a range of a snapshot to the standard output, every block proven, reading no more than it needs.

    With --json, the bytes come as one object, in base64.

    Examples:

        deltaimg cat vm1 --length 512 | hexdump -C

        deltaimg cat vm1@2026-11-23 -o 1M -n 64K > superblock.bin
    """
    import sys

    from deltaimg.api import open_repository, open_snapshot
    from deltaimg.errors import UsageError

    if sys.stdout.isatty() and not as_json:
        raise UsageError("the standard output is a terminal", hint="send it to a file or a pipe")
    start = parse_size(offset)
    reader = open_snapshot(open_repository(require_repo(repo)), snapshot)
    if start > reader.size_bytes:
        raise UsageError(f"offset {start} lies behind the end of the image, {reader.size_bytes}")
    end = reader.size_bytes if length is None else min(reader.size_bytes, start + parse_size(length))
    if as_json:
        import base64
        import json

        data = base64.b64encode(reader.read(start, end - start)).decode()
        print(json.dumps({"offset": start, "length": end - start, "base64": data}))
        return
    while start < end:
        piece = reader.read(start, min(_PIECE_BYTES, end - start))
        sys.stdout.buffer.write(piece)
        start += len(piece)
    sys.stdout.buffer.flush()
