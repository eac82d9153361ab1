# SPDX-License-Identifier: Apache-2.0
"""`deltaimg cat`."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Snapshot, Verbose
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal
from deltaimg.descriptors import write_output
from deltaimg.options.store import StoreOptions
from deltaimg.options.values import parse_size

if TYPE_CHECKING:
    from deltaimg.api.results import SnapshotReader

_PIECE_BYTES = 4 << 20
_MAX_JSON_BYTES = 64 << 20


@takes_options
def cat(
    snapshot: Snapshot,
    offset: Annotated[str, typer.Option("--offset", "-o", metavar="SIZE", help="Where to begin, such as 1M.")] = "0",
    length: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--length", "-n", metavar="SIZE", help="How much, such as 512.", show_default="to the end"),
    ] = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a range of a snapshot to the standard output.

    Every block is verified by its digest, and only what the range needs is read. With --json, at most 64 MiB come as one
    object, in base64.

    Examples:

        deltaimg cat vm1 --length 512 | hexdump -C
        deltaimg cat vm1@2026-11-23 -o 1M -n 64K > superblock.bin
    """
    import sys
    from contextlib import ExitStack

    from deltaimg.api.restore import open_snapshot
    from deltaimg.errors import UsageError

    start = parse_size(offset)
    wanted = None if length is None else parse_size(length)
    if sys.stdout.isatty() and not as_json:
        raise UsageError("the standard output is a terminal", hint="send it to a file or a pipe")
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal, ExitStack() as stack:
        reader = stack.enter_context(open_snapshot(open_repo(repo, store, terminal), snapshot))
        if start > reader.size_bytes:
            raise UsageError(f"offset {start} is past the end of the image, which has {reader.size_bytes} bytes")
        end = reader.size_bytes if wanted is None else min(reader.size_bytes, start + wanted)
        if not as_json:
            _copy(reader, start, end)
            return
        if end - start > _MAX_JSON_BYTES:
            raise UsageError(
                f"{end - start} bytes are too many for one JSON object", hint="name a --length of at most 64M"
            )
        data = base64.b64encode(reader.read(start, end - start)).decode()
        terminal.print_json({"offset": start, "length": end - start, "base64": data})


def _copy(reader: SnapshotReader, start: int, end: int) -> None:
    """Write bytes [start, end) of a snapshot to the standard output."""
    while start < end:
        piece = reader.read(start, min(_PIECE_BYTES, end - start))
        start += len(piece)
        write_output(piece)
