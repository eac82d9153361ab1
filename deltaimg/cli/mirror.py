# SPDX-License-Identifier: Apache-2.0
"""`deltaimg mirror`."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Verbose
from deltaimg.cli.store_access import find_cache_dir
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_seconds
from deltaimg.errors import UsageError
from deltaimg.options.mirror import MirrorOptions

if TYPE_CHECKING:
    from deltaimg.api.mirror import MirrorResult

_DONE = {
    "undone": "the copy is again what it was before the run that was cut",
    "finished": "the run that was cut was complete; the copy is its image",
    "removed": "the copy that was begun is removed; the one before it is as it was",
    "nothing": "there is nothing to recover",
}


@takes_options
def mirror(
    options: MirrorOptions,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="File or block device.")] = "",
    destination: Annotated[
        str, typer.Argument(metavar="COPY", help="HOST:/path/copy.img, user@HOST:/path, or a path of this host.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say how much would change; change nothing.")
    ] = False,
    recovers: Annotated[
        bool,
        typer.Option("--recover", help="Undo what a run that was cut has begun, or finish one that was complete."),
    ] = False,
    serves: Annotated[bool, typer.Option("--serve", hidden=True)] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Keep a plain copy of an image current, on another host or here.

    The copy is a sparse file, or a block device, that any program can use. Only blocks that changed travel, compressed, over
    the system's ssh; the other host needs deltaimg, and no repository. After a cut at any point the next run continues, or
    'deltaimg mirror --recover COPY' undoes what was begun.

    Examples:

        deltaimg mirror vm1.raw backup@host:/srv/copies/vm1.img
        deltaimg mirror vm1.raw host:/srv/vm1.img --bwlimit 2M --verify
        deltaimg mirror /dev/vg0/vm1-snap host:/dev/vg1/vm1 --force
        deltaimg mirror --recover host:/srv/vm1.img
    """
    from deltaimg.api import mirror as api

    if serves:
        return api.serve_mirror()
    if recovers:
        if image and destination:
            raise UsageError("--recover takes the copy alone", hint="deltaimg mirror --recover COPY")
        image, destination = "", image or destination
    if not destination or (not image and not recovers):
        raise UsageError("IMAGE and COPY are needed", hint="'deltaimg help mirror' has examples")
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        if recovers:
            done = api.recover_mirror(destination, options)
            if as_json:
                terminal.print_json({"recovered": done})
            terminal.remark(f"{destination}: {_DONE.get(done, done)}")
            return None
        terminal.note = partial(_describe_limit, options)
        result = api.mirror(
            image, destination, options, is_dry=dry_run, cache_folder=find_cache_dir(), progress=terminal
        )
        _print_result(terminal, destination, result)
    return None


def _describe_limit(options: MirrorOptions) -> str:
    """Return what limit holds now; empty without one."""
    return "" if options.bandwidth is None else f"limit {options.bandwidth.rates_at(datetime.now())}"


def _print_result(terminal: Terminal, destination: str, result: MirrorResult) -> None:
    from deltaimg.describe.mirror import describe_mirror

    if terminal.as_json:
        terminal.print_json(describe_mirror(result))
    if result.recovered == "continued":
        terminal.remark("continued a run that was cut")
    blocks = format_count(result.changed_blocks, "block")
    if result.is_dry:
        terminal.remark(
            f"{destination}: {blocks} would change, {format_bytes(result.literal_bytes)} before compression"
        )
        return
    if terminal.is_verbose:
        terminal.remark(
            f"  {result.mode}; {result.moved_blocks} blocks moved, {result.zeroed_blocks} zero, "
            f"{format_bytes(result.literal_bytes)} new, {format_bytes(result.verified_bytes)} verified, "
            f"{format_bytes(result.copy_read_bytes)} of the copy read"
        )
    travelled = f"{format_bytes(result.sent_bytes)} sent, {format_bytes(result.received_bytes)} received"
    terminal.remark(f"{destination}: {blocks} changed, {travelled}, {format_seconds(result.duration_s)}")
