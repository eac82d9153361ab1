# SPDX-License-Identifier: Apache-2.0
"""`deltaimg snapshots`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_moment
from deltaimg.options.store import StoreOptions
from deltaimg.options.values import parse_count

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from deltaimg.api.results import DamagedSnapshot, ListedSnapshot, Snapshot

_COLUMNS = ("snapshot", "taken", ">apparent", ">allocated", ">changed", ">stored", "notes")


@takes_options
def snapshots(
    name: Annotated[Optional[str], typer.Argument(metavar="NAME", help="Only those of one image or group.")] = None,  # noqa: UP045
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", "-t", metavar="TAG", help="Only those with this tag; given several times, with all of them."
        ),
    ] = None,
    latest: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--latest", metavar="N", help="Only the newest N of each image.", show_default=False),
    ] = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List snapshots, oldest first.

    Each has four sizes: apparent, the size of the image; allocated, what its file system had allocated; changed, what
    differs from the previous snapshot; and stored, by how much the repository grew. Notes say which are full or pinned,
    their tags and comments, how much of the image could not be read, and, where the base is forgotten, when it was taken;
    with -v also the depth of delta chains. Where a group of images was backed up together, and one of them has no snapshot
    of that moment, the others say so.

    With -q only the names are printed, one a line. Snapshots that are known to be damaged are marked, and the exit code says
    that there are some.

    Examples:

        deltaimg snapshots
        deltaimg snapshots vm1 --latest 3 --json
        deltaimg snapshots --tag weekly
    """
    from deltaimg.api.listing import describe_snapshots
    from deltaimg.api.repositories import list_snapshots
    from deltaimg.api.vanished import find_known, find_vanished_beside
    from deltaimg.describe.snapshots import describe_listed
    from deltaimg.errors import SnapshotNotFound

    count = None if latest is None else parse_count(latest)
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repo(repo, store, terminal)
        known = find_known(repository)
        found = list_snapshots(repository, name)
        vanished = find_vanished_beside(repository, known, {each.ref.image for each in found}) if name is None else {}
        _warn_of_vanished(terminal, vanished)
        if name is not None and not found:
            raise SnapshotNotFound(name)
        wanted = _choose(found, frozenset(tags or ()), count)
        listed = [each for each in describe_snapshots(repository, found, with_depth=verbose) if each.snapshot in wanted]
        if as_json:
            terminal.print_json([describe_listed(each) for each in listed])
        elif not found and not vanished:
            terminal.remark("no snapshot yet; 'deltaimg backup IMAGE --image NAME' makes the first")
        elif not found:
            terminal.remark("no snapshot is there")
        elif not listed:
            terminal.remark(
                f"none of {format_count(len(found), 'snapshot')} was chosen; 'deltaimg snapshots' lists all"
            )
        elif quiet:
            for each in listed:
                terminal.print(each.snapshot.label)
        else:
            terminal.print_table(_COLUMNS, [_make_row(each, is_verbose=verbose) for each in listed])
        _report_damage(repository.objects.location, listed)


def _choose(
    found: list[Snapshot | DamagedSnapshot], tags: frozenset[str], count: int | None
) -> list[Snapshot | DamagedSnapshot]:
    """Return those with all of some tags, and of these the newest of each image."""
    from deltaimg.api.repositories import DamagedSnapshot

    wanted = [each for each in found if not tags or (not isinstance(each, DamagedSnapshot) and tags <= set(each.tags))]
    if count is None:
        return wanted
    by_image: dict[str, list[Snapshot | DamagedSnapshot]] = {}
    for each in wanted:
        by_image.setdefault(each.ref.image, []).append(each)
    return [each for of_image in by_image.values() for each in of_image[max(0, len(of_image) - count) :]]


def _warn_of_vanished(terminal: Terminal, vanished: Mapping[str, datetime]) -> None:
    """Warn of images all of whose snapshots are missing: the list is not to look as if there had been none."""
    if vanished:
        image, seen = next(iter(vanished.items()))
        others = f" (and {len(vanished) - 1} more)" if len(vanished) > 1 else ""
        terminal.warn(
            f"image '{image}'{others} had snapshots on {seen:%Y-%m-%d}, and has none now: is a disk not mounted? "
            f"'deltaimg check' lists what is missing"
        )


def _report_damage(location: str, listed: list[ListedSnapshot]) -> None:
    """Raise RepositoryDamaged where a snapshot is damaged."""
    from deltaimg.errors import RepositoryDamaged

    damaged = [each for each in listed if each.damage is not None]
    if damaged:
        first, verb = damaged[0], "is" if len(damaged) == 1 else "are"
        raise RepositoryDamaged(
            location,
            f"{format_count(len(damaged), 'snapshot')} {verb} damaged; the first: {first.snapshot.label}: {first.damage}",
            hint=(
                "'deltaimg repair' recovers what can be recovered; "
                f"'deltaimg forget {first.snapshot.label}' gives the snapshot up"
            ),
        )


def _make_row(listed: ListedSnapshot, *, is_verbose: bool) -> list[str]:
    from deltaimg.api.repositories import DamagedSnapshot

    snapshot = listed.snapshot
    taken = format_moment(snapshot.ref.taken_at, to_minutes=not is_verbose)
    marks = ["DAMAGED"] * (listed.damage is not None)
    if snapshot.pin_reason is not None:
        marks.append("pinned" + (f" ({snapshot.pin_reason})" if snapshot.pin_reason else ""))
    if isinstance(snapshot, DamagedSnapshot):
        return [snapshot.label, taken, "", "", "", "", ", ".join(marks)]
    sizes: Any = snapshot.manifest.statistics
    return [
        snapshot.label,
        taken,
        format_bytes(sizes.apparent_bytes),
        format_bytes(sizes.allocated_bytes),
        format_bytes(sizes.changed_bytes),
        format_bytes(sizes.stored_bytes),
        ", ".join([*marks, *_make_notes(snapshot, listed), *snapshot.tags]),
    ]


def _make_notes(snapshot: Snapshot, listed: ListedSnapshot) -> list[str]:
    from deltaimg.describe.snapshots import format_clock

    manifest = snapshot.manifest
    notes = ["full"] * (manifest.base is None) + ["live"] * manifest.is_live
    notes += [manifest.container] * bool(manifest.container)
    if clock := format_clock(manifest):
        notes.append(clock)
    if listed.missing:
        notes.append(f"INCOMPLETE GROUP: {', '.join(listed.missing)} missing")
    if manifest.unreadable:
        lost_bytes = sum(extent.length for extent in manifest.unreadable)
        notes.append(f"{format_bytes(lost_bytes)} unreadable")
    if listed.is_base_forgotten and manifest.base_taken_at is not None:
        notes.append(f"since {format_moment(manifest.base_taken_at, to_minutes=True)} (forgotten)")
    if listed.depth is not None:
        notes.append(f"deltas {listed.depth} deep" if listed.depth else "no deltas")
    if snapshot.comment:
        notes.append(f'"{snapshot.comment}"')
    return notes
