# SPDX-License-Identifier: Apache-2.0
"""`deltaimg restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.group import report_restored
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Snapshot, Verbose, check_output
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_seconds
from deltaimg.errors import UsageError
from deltaimg.options.groups import GroupRestoreOptions
from deltaimg.options.restore import RestoreOptions
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import Repository


@takes_options
def restore(
    snapshot: Snapshot,
    options: RestoreOptions,
    group_options: GroupRestoreOptions,
    target: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            metavar="TARGET", help="New file, block device, or '-' for the standard output.", show_default=False
        ),
    ] = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Restore a snapshot as a sparse image, or all of a group.

    Every block is verified by its digest, and the image gets its name once all are. A file that is replaced stays until then,
    so both must fit; the new one gets its owner, group, mode and access list. Where a file is replaced, and on devices, the
    content is on the disk before the command ends; for a new file, --sync asks for that. A device that is mounted or in use
    is refused; one that is larger than the image keeps what follows it.

    With --into, SNAPSHOT is that of a group: each disk is restored under the name that it had. All places are looked at before
    anything is written.

    Examples:

        deltaimg restore vm1 /var/lib/images/vm1.raw
        deltaimg restore vm1@2026-11-23 /dev/vg0/vm1 --force
        deltaimg restore vm1 - | ssh host 'dd of=/dev/vg0/vm1 bs=1M'
        deltaimg restore web1 --into /dev/vg0 --force
    """
    if group_options.into is not None:
        with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
            _restore_group(snapshot, target, options, group_options, open_repo(repo, store, terminal), terminal)
        return
    if target is None:
        raise UsageError("no place to restore to was given", hint="give TARGET, or for a group --into FOLDER")
    from deltaimg.api.restore import restore as run_restore
    from deltaimg.describe.restore import describe_restored
    from deltaimg.errors import ContentDamaged

    is_piped = check_output(target, as_json=as_json)
    with Terminal(as_json=as_json, is_quiet=quiet or is_piped, is_verbose=verbose) as terminal:
        result = run_restore(
            open_repo(repo, store, terminal),
            snapshot,
            target,
            options,
            progress=terminal,
        )
        if as_json and not result.damage:
            terminal.print_json(describe_restored(result, target))
        if result.damage:
            for lost in result.damage:
                terminal.warn(f"bytes {lost.start} to {lost.end} are missing and read as zeros: {lost.reason}")
            raise ContentDamaged(result.manifest.label, result.damage, is_rest_restored=True)
        terminal.remark(
            f"{result.manifest.label} restored to {target} and verified: {format_bytes(result.manifest.size_bytes)} image, "
            f"{format_bytes(result.data_bytes)} data, in {format_seconds(result.duration_s)}"
        )
        if result.tail_bytes:
            terminal.remark(
                f"  the last {format_bytes(result.tail_bytes)} of {target} are no part of it and were left as they were"
            )


def _restore_group(
    snapshot: str,
    target: str | None,
    options: RestoreOptions,
    group_options: GroupRestoreOptions,
    repository: Repository,
    terminal: Terminal,
) -> None:
    from deltaimg.api.groups import restore_group

    if target is not None:
        raise UsageError("TARGET and --into cannot both be given", hint="leave one of them out")
    assert group_options.into is not None
    report_restored(restore_group(repository, snapshot, group_options.into, options, progress=terminal), terminal)
