# SPDX-License-Identifier: Apache-2.0
"""`deltaimg snapshots`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.options import Json, Quiet, Repo, Verbose, require_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_moment

if TYPE_CHECKING:
    from deltaimg.repo.repository import SnapshotRef
    from deltaimg.repo.snapshots import Snapshot

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
    snapshot before, and stored by how much the repository grew. Notes say which are full or pinned, what tags they have, and
    where the snapshot before is forgotten, since when it changed.

    With -q only the names are printed, one a line. Where a manifest is damaged, the other snapshots are listed, and then
    the error.

    Examples:

        deltaimg snapshots
        deltaimg snapshots vm1 --json
    """
    from deltaimg.api.repositories import list_snapshots, open_repository
    from deltaimg.cli.describe import describe_snapshot, is_forgotten
    from deltaimg.errors import SnapshotNotFound
    from deltaimg.repo.snapshots import DamagedSnapshot, Snapshot

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repository(require_repo(repo))
        found = list_snapshots(repository, name)
        if name is not None and not found:
            raise SnapshotNotFound(name)
        refs = [each.ref for each in found]
        damaged = [each for each in found if isinstance(each, DamagedSnapshot)]
        sound = [each for each in found if isinstance(each, Snapshot)]
        if as_json:
            terminal.print_json(
                [describe_snapshot(each, is_base_forgotten=is_forgotten(each.manifest.base, refs)) for each in sound]
            )
        elif not found:
            terminal.remark("no snapshot yet; 'deltaimg backup IMAGE --image NAME' makes the first")
        elif quiet:
            for each in sound:
                terminal.print(each.label)
        else:
            terminal.print_table(_COLUMNS, [_make_row(each, refs, is_verbose=verbose) for each in sound])
        if damaged:
            for other in damaged[1:]:
                terminal.warn(str(other.error))
            raise damaged[0].error


def _make_row(snapshot: Snapshot, refs: list[SnapshotRef], *, is_verbose: bool) -> list[str]:
    from deltaimg.cli.describe import is_forgotten

    manifest = snapshot.manifest
    sizes = manifest.statistics
    marks = ["full"] * (manifest.base is None) + ["live"] * manifest.is_live
    if manifest.base_taken_at is not None and is_forgotten(manifest.base, refs):
        marks.append(f"since {format_moment(manifest.base_taken_at, to_minutes=True)} (forgotten)")
    if snapshot.pin_reason is not None:
        marks.append("pinned" + (f" ({snapshot.pin_reason})" if snapshot.pin_reason else ""))
    return [
        manifest.label,
        format_moment(manifest.taken_at, to_minutes=not is_verbose),
        format_bytes(sizes.apparent_bytes),
        format_bytes(sizes.allocated_bytes),
        format_bytes(sizes.changed_bytes),
        format_bytes(sizes.stored_bytes),
        ", ".join([*marks, *snapshot.tags]),
    ]
