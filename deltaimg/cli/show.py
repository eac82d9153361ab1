# SPDX-License-Identifier: Apache-2.0
"""`deltaimg show`."""

from __future__ import annotations

from deltaimg.cli.options import Json, Quiet, Repo, Snapshot, Verbose, require_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_moment, format_seconds


def show(
    snapshot: Snapshot,
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Tell all about one snapshot.

    Where it came from, what it holds, what it took to store, and what restoring it takes.

    Examples:

        deltaimg show vm1
        deltaimg show vm1@2026-11-23 --json
    """
    from deltaimg.api import find_snapshot, open_repository
    from deltaimg.cli.describe import describe_manifest
    from deltaimg.engine.inspect import inspect_snapshot

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repository(require_repo(repo))
        manifest = find_snapshot(repository, snapshot)
        layout = inspect_snapshot(repository, manifest)
        if as_json:
            terminal.print_json(
                describe_manifest(manifest)
                | {
                    "data_bytes": layout.data_bytes,
                    "zero_bytes": layout.zero_bytes,
                    "hole_bytes": layout.hole_bytes,
                    "extents": layout.extents,
                    "records": layout.records,
                    "restore_read_bytes": layout.payload_bytes,
                    "restore_expand_bytes": layout.record_bytes,
                    "packs": layout.packs,
                }
            )
            return
        done = manifest.statistics
        terminal.print_pairs(
            [
                ("snapshot", f"{manifest.label} ({manifest.id})"),
                ("taken", format_moment(manifest.taken_at)),
                (
                    "of",
                    f"{manifest.source} on {manifest.host}" + (", while it was written to" if manifest.is_live else ""),
                ),
                ("base", "none: a full snapshot" if manifest.base is None else manifest.base),
                ("tags", ", ".join(manifest.tags) or "none"),
                ("size", f"{format_bytes(manifest.size_bytes)} ({manifest.size_bytes} bytes)"),
                ("blocks of", format_bytes(manifest.block_bytes)),
                (
                    "holds",
                    f"{format_bytes(layout.data_bytes)} data, {format_bytes(layout.zero_bytes)} zeros, "
                    f"{format_bytes(layout.hole_bytes)} holes, in {format_count(layout.extents, 'extent')}",
                ),
                ("changed", format_bytes(done.changed_bytes) + (" since its base" if manifest.base else "")),
                ("known already", format_bytes(done.referenced_bytes)),
                ("new", format_bytes(done.new_bytes)),
                ("stored", f"{format_bytes(done.stored_bytes)} in {format_seconds(done.duration_s)}"),
                (
                    "a restore reads",
                    f"{format_bytes(layout.payload_bytes)} from {format_count(layout.packs, 'pack')}, and expands "
                    f"{format_count(layout.records, 'record')} to {format_bytes(layout.record_bytes)}",
                ),
                ("root digest", manifest.root_digest),
            ]
        )
