# SPDX-License-Identifier: Apache-2.0
"""`deltaimg snapshots`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from deltaimg.cli.options import Json, Quiet, Repo, Verbose, require_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_moment

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command()
def snapshots(
    name: Annotated[Optional[str], typer.Argument(metavar="[NAME]", help="One image only.")] = None,  # noqa: UP045
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List snapshots, oldest first, with four sizes each.

    apparent: the image's size; allocated: what its file system had allocated; changed: against the snapshot before;
    stored: by how much the repository grew.

    Examples:

        deltaimg snapshots

        deltaimg snapshots vm1 --json
    """
    from deltaimg.api import open_repository
    from deltaimg.cli.describe import describe_manifest
    from deltaimg.errors import DeltaimgError, SnapshotNotFound
    from deltaimg.repo.selector import check_image_name

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repository(require_repo(repo))
        found = list(repository.load_manifests(None if name is None else check_image_name(name)))
        if name is not None and not found:
            raise SnapshotNotFound(name)
        damaged = [each for each in found if isinstance(each, DeltaimgError)]
        manifests = [each for each in found if not isinstance(each, DeltaimgError)]
        if as_json:
            terminal.print_json([describe_manifest(each) for each in manifests])
        elif not manifests:
            terminal.print("no snapshot yet; 'deltaimg backup IMAGE --image NAME' makes the first")
        else:
            rows = []
            for each in manifests:
                sizes = each.statistics
                marks = ["live"] if each.is_live else []
                rows.append(
                    [
                        each.label,
                        format_moment(each.taken_at),
                        "full" if each.base is None else "incremental",
                        format_bytes(sizes.apparent_bytes),
                        format_bytes(sizes.allocated_bytes),
                        format_bytes(sizes.changed_bytes),
                        format_bytes(sizes.stored_bytes),
                        ", ".join([*each.tags, *marks]),
                    ]
                )
            columns = ("snapshot", "taken", "kind", ">apparent", ">allocated", ">changed", ">stored", "tags")
            terminal.print_table(columns, rows)
        if damaged:
            for error in damaged[1:]:
                terminal.warn(str(error))
            raise damaged[0]
