# SPDX-License-Identifier: Apache-2.0
"""`deltaimg show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaimg.cli.group import show_group
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Snapshot, Verbose
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_moment, format_seconds
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import Manifest, StoredContent

_SHOWN = 10


@takes_options
def show(
    snapshot: Snapshot,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Describe one snapshot: its content, and what its backup stored.

    Where it came from, what changed since its base, how new blocks are encoded, which parts of the image took most, and what
    restoring it takes. With -v, all parts of the image are listed. Of a group, what it consists of.

    Examples:

        deltaimg show vm1
        deltaimg show vm1@2026-11-23 --json
    """
    from deltaimg.api.groups import find_named_group
    from deltaimg.api.guest_configs import find_guest_config
    from deltaimg.api.inspection import inspect
    from deltaimg.api.repositories import find_snapshot
    from deltaimg.describe.inspection import describe_layout
    from deltaimg.describe.snapshots import describe_snapshot, format_base, format_clock, is_forgotten

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repo(repo, store, terminal)
        if (group := find_named_group(repository, snapshot)) is not None:
            show_group(group, find_guest_config(repository, group), terminal)
            return
        found = find_snapshot(repository, snapshot)
        manifest = found.manifest
        is_base_forgotten = is_forgotten(manifest.base, repository.list_snapshots(manifest.image))
        inspected = inspect(repository, manifest)
        layout, stored_content = inspected.layout, inspected.stored_content
        if as_json:
            terminal.print_json(
                describe_snapshot(found, is_base_forgotten=is_base_forgotten) | describe_layout(layout, stored_content)
            )
            return
        done = manifest.statistics
        terminal.print_pairs(
            [
                ("snapshot", f"{manifest.label} ({manifest.id})"),
                ("taken", "; ".join(filter(None, [format_moment(manifest.taken_at), format_clock(manifest)]))),
                *_describe_source(manifest),
                ("base", format_base(manifest, is_forgotten=is_base_forgotten)),
                ("tags", ", ".join(found.tags) or "none"),
                ("pinned", "no" if found.pin_reason is None else found.pin_reason or "yes"),
                ("size", f"{format_bytes(manifest.size_bytes)} ({manifest.size_bytes} bytes)"),
                ("blocks of", format_bytes(manifest.block_bytes)),
                (
                    "holds",
                    f"{format_bytes(layout.data_bytes)} data, {format_bytes(layout.zero_bytes)} zeros, "
                    f"{format_bytes(layout.hole_bytes)} holes, in {format_count(layout.extents, 'extent')}",
                ),
                ("changed", format_bytes(done.changed_bytes) + _tell_since(manifest, is_forgotten=is_base_forgotten)),
                ("stored", f"{format_bytes(done.stored_bytes)} in {format_seconds(done.duration_s)}"),
                (
                    "a restore reads",
                    f"{format_bytes(layout.payload_bytes)} from {format_count(layout.packs, 'pack')}, and expands "
                    f"{format_count(layout.records, 'record')} to {format_bytes(layout.record_bytes)}",
                ),
                (
                    "read amplification",
                    f"{layout.read_amplification:.2f} bytes decoded for each byte of data; "
                    + (f"deltas up to {layout.depth} deep" if layout.depth else "no deltas"),
                ),
                ("root digest", manifest.root_digest),
            ]
        )
        _print_unreadable(terminal, manifest, is_verbose=verbose)
        if stored_content is None:
            why = "its base is forgotten" if is_base_forgotten else "a clock was set back, or its base is damaged"
            terminal.remark(f"what it stored and why is not known: {why}")
        else:
            _print_stored_content(terminal, manifest, stored_content, is_verbose=verbose)


def _describe_source(manifest: Manifest) -> list[tuple[str, str]]:
    """Return what was read, and how it was kept still meanwhile, with labels."""
    from deltaimg.describe.snapshots import format_free_space, format_freezing, format_tracking

    live = ", while it was in use or written to" if manifest.is_live else ""
    rows = [("of", f"{manifest.source} on {manifest.host}{live}")]
    if manifest.group is not None:
        rows.append(("group", f"{manifest.group.name}, of {', '.join(manifest.group.members)}"))
    if manifest.freeze is not None:
        rows.append(("point in time", format_freezing(manifest.freeze)))
    if manifest.tracking is not None:
        rows.append(("tracking", format_tracking(manifest.tracking)))
    if manifest.free_space is not None:
        rows.append(("free space", format_free_space(manifest.free_space)))
    return rows


def _print_unreadable(terminal: Terminal, manifest: Manifest, *, is_verbose: bool) -> None:
    if not manifest.unreadable:
        return
    lost_bytes = sum(extent.length for extent in manifest.unreadable)
    terminal.print("")
    terminal.print(f"{format_bytes(lost_bytes)} could not be read, and are zeros in it:")
    shown = manifest.unreadable if is_verbose else manifest.unreadable[:_SHOWN]
    for lost in shown:
        terminal.print(f"  bytes {lost.start} to {lost.end}")
    if len(shown) < len(manifest.unreadable):
        terminal.print(f"  and {format_count(len(manifest.unreadable) - len(shown), 'more place')}; -v lists all")


def _tell_since(manifest: Manifest, *, is_forgotten: bool) -> str:
    """Return since when an image changed, for people."""
    if manifest.base_taken_at is None:
        return ""
    since = f" since its base of {format_moment(manifest.base_taken_at, to_minutes=True)}"
    return since + (", which is forgotten" if is_forgotten else "")


def _print_stored_content(
    terminal: Terminal, manifest: Manifest, stored_content: StoredContent, *, is_verbose: bool
) -> None:
    plain = (
        ("same" if manifest.base else "empty", stored_content.same_bytes),
        ("zeros now", stored_content.zero_bytes),
        ("deduplicated", stored_content.referenced_bytes),
        ("rewritten", stored_content.rewritten_bytes),
    )
    rows = [[name, "", format_bytes(size), "", ""] for name, size in plain]
    rows += [
        [
            kind.name,
            str(kind.records),
            format_bytes(kind.content_bytes),
            format_bytes(kind.payload_bytes),
            _format_ratio(kind.content_bytes, kind.payload_bytes),
        ]
        for kind in stored_content.stored
    ]
    terminal.print("")
    terminal.print_table(("blocks", ">records", ">content", ">stored as", ">ratio"), rows)
    parts = stored_content.contributors if is_verbose else stored_content.contributors[:_SHOWN]
    if not parts:
        return
    terminal.print("")
    total = max(1, stored_content.payload_bytes)
    terminal.print_table(
        (">from byte", ">to byte", ">new content", ">stored as", ">of all"),
        [
            [
                str(part.start),
                str(part.end),
                format_bytes(part.content_bytes),
                format_bytes(part.payload_bytes),
                f"{100 * part.payload_bytes / total:.0f} %",
            ]
            for part in parts
        ],
    )


def _format_ratio(content_bytes: int, payload_bytes: int) -> str:
    return f"{content_bytes / max(1, payload_bytes):.1f}"
