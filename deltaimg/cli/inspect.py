# SPDX-License-Identifier: Apache-2.0
"""`deltaimg inspect`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_bytes
from deltaimg.options.store import StoreOptions


@takes_options
def inspect(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE|SNAPSHOT", help="An image file or block device; or a snapshot: vm1, vm1@latest~2."
        ),
    ],
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the partitions and file systems of an image or a snapshot.

    Each with its label, what it counts as used and free, what of it is known to read as zeros or is a hole, and what of the
    rest 'backup --free-space skip' can leave out. They are read from their own structures: nothing is mounted, and of a
    snapshot only what these need is fetched. What is both a path and a snapshot is taken for the path.

    Known are MBR and GPT; ext2, ext3, ext4, XFS, NTFS, btrfs, FAT, swap space and LVM physical volumes. Of a file system that
    is mounted, used and free are what it had written last.

    Examples:

        deltaimg inspect vm1.raw
        deltaimg inspect vm1@2026-11-23 --json
    """
    from deltaimg.api.guest import inspect_image, inspect_snapshot
    from deltaimg.describe.guest import describe_guest, explain_kept, tabulate_guest

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        if os.path.lexists(subject) or "/" in subject or not repo:
            layout = inspect_image(subject)
        else:
            layout = inspect_snapshot(open_repo(repo, store, terminal), subject)
        if as_json:
            terminal.print_json(describe_guest(layout))
            return
        kind = "no partition table" if layout.table is None else f"partition table: {layout.table.upper()}"
        terminal.print(f"{format_bytes(layout.size_bytes)} image, {kind}")
        terminal.print_table(*tabulate_guest(layout))
        for line in explain_kept(layout):
            terminal.print(line)
