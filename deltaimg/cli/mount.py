# SPDX-License-Identifier: Apache-2.0
"""`deltaimg mount`."""

from __future__ import annotations

from typing import Annotated

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.output import flush_output
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal
from deltaimg.options.store import StoreOptions


@takes_options
def mount(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="An empty folder.", show_default=False)],
    is_shared: Annotated[bool, typer.Option("--allow-other", help="Let other users see them, too.")] = False,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show all snapshots as files of a folder, which can only be read.

    Each image is a folder, each snapshot a file in it, named by its time (UTC) and id; latest.raw is a link to the newest.
    Only what is read of a file is decoded, and every block is verified. New snapshots appear within seconds. This runs until
    CTRL-C, or 'umount FOLDER'. It needs deltaimg[mount] and FUSE (apt install fuse3). docs/mount.md says how to take
    single files out of an image, and how to start a guest from a snapshot.

    Examples:

        deltaimg mount /mnt/snapshots &
        mount -o ro,loop,offset=1M /mnt/snapshots/vm1/latest.raw /mnt/vm1
    """
    from deltaimg.api.mount import mount as mount_snapshots

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repo(repo, store, terminal)

        def tell() -> None:
            if as_json:
                terminal.print_json({"folder": folder, "mounted": True})
            terminal.remark(f"snapshots are in {folder}; CTRL-C or 'umount {folder}' ends this")
            flush_output()  # it is read while this goes on

        mount_snapshots(repository, folder, is_shared=is_shared, on_mounted=tell, progress=terminal)
