# SPDX-License-Identifier: Apache-2.0
"""`deltaimg snapshots`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.options import Json, Quiet, Repo, Verbose, require_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_moment

if TYPE_CHECKING:
    from deltaimg.format.manifest import Manifest

_COLUMNS = ("snapshot", "taken", ">apparent", ">allocated", ">changed", ">stored", "notes")


def snapshots(
    name: Annotated[Optional[str], typer.Argument(metavar="NAME", help="Only those of one image.")] = None,  # noqa: UP045
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List snapshots, oldest first, with four sizes each.

    Apparent is the image's size, allocated what its file system had allocated of that, changed what differed from the
    snapshot before, and stored by how much the repository grew. Notes say which are full or pinned, and what
    tags they have.

    With -q only the names are printed, one a line. Where a manifest is damaged, the other snapshots are listed, and then
    the error.

    Examples:

        deltaimg snapshots
        deltaimg snapshots vm1 --json
    """
    from deltaimg.api.repositories import open_repository
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
        elif not found:
            terminal.remark("no snapshot yet; 'deltaimg backup IMAGE --image NAME' makes the first")
        elif quiet:
            for each in manifests:
                terminal.print(each.label)
        else:
            terminal.print_table(_COLUMNS, [_make_row(each, is_verbose=verbose) for each in manifests])
        if damaged:
            for error in damaged[1:]:
                terminal.warn(str(error))
            raise damaged[0]


def _make_row(manifest: Manifest, *, is_verbose: bool) -> list[str]:
    sizes = manifest.statistics
    marks = ["full"] * (manifest.base is None) + ["live"] * manifest.is_live
    if manifest.pin_reason is not None:
        marks.append("pinned" + (f" ({manifest.pin_reason})" if manifest.pin_reason else ""))
    return [
        manifest.label,
        format_moment(manifest.taken_at, to_minutes=not is_verbose),
        format_bytes(sizes.apparent_bytes),
        format_bytes(sizes.allocated_bytes),
        format_bytes(sizes.changed_bytes),
        format_bytes(sizes.stored_bytes),
        ", ".join([*marks, *manifest.tags]),
    ]
