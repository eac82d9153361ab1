# SPDX-License-Identifier: Apache-2.0
"""`deltaimg restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple, Optional

import typer

from deltaimg.cli.damage import list_extents
from deltaimg.cli.group import report_restored, restore_newest_images
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose, check_output
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_seconds
from deltaimg.errors import UsageError
from deltaimg.options.groups import GroupRestoreOptions
from deltaimg.options.restore import RestoreOptions
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import Repository


class _Showing(NamedTuple):
    """How a command says what it does."""

    as_json: bool
    is_quiet: bool
    is_verbose: bool


@takes_options
def restore(
    options: RestoreOptions,
    group_options: GroupRestoreOptions,
    snapshot: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            metavar="SNAPSHOT",
            help="vm1, vm1@latest~2, vm1@2026-11-23, or the beginning of an id.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            metavar="TARGET",
            help="New file, block device, rbd:POOL/IMAGE, or '-' for the standard output.",
            show_default=False,
        ),
    ] = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Restore a snapshot as a sparse image, all of a group, or every image.

    Every block is verified by its digest, and the image gets its name once all are. A file that is replaced stays until then,
    so both must fit; the new one gets its owner, group, mode and access list. Where a file is replaced, and on devices, the
    content is on the disk before the command ends; for a new file, --sync asks for that. A device that is mounted or in use,
    or a file that a loop device lies on, is refused. A device that is larger than the image keeps what follows it.

    With --into or --map, SNAPSHOT is that of a group or guest: each disk is restored under the name that it had, or to where
    --map says. All places are looked at before anything is written. --config-only gives the configuration of a guest back.

    --all restores the newest snapshot of every image in the same way, --image of some. Of a group it is the newest that is
    complete, so that all its disks are of one moment. Damage to one image does not stop the others; it is named at the end, and
    the exit code is 28.

    Examples:

        deltaimg restore vm1 /var/lib/images/vm1.raw
        deltaimg restore vm1@2026-11-23 /dev/vg0/vm1 --force
        deltaimg restore vm1 - | ssh host 'dd of=/dev/vg0/vm1 bs=1M'
        deltaimg restore web1 --into /dev/vg0 --force
        deltaimg restore --all --into /var/lib/images
        deltaimg restore --guest web1 --map /dev/vg0=/dev/vg1 --force
        deltaimg restore --guest web1 --config-only --map /dev/vg0=/dev/vg1 > web1.cfg
    """
    if group_options != GroupRestoreOptions():
        if group_options.is_all or group_options.images:
            _check_newest(snapshot, group_options)
            with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
                restore_newest_images(open_repo(repo, store, terminal), options, group_options, terminal)
            return
        snapshot, target = _choose_group(snapshot, target, group_options)
        is_piped = group_options.is_config_only and check_output(target or "-", as_json=as_json)
        with Terminal(as_json=as_json, is_quiet=quiet or is_piped, is_verbose=verbose) as terminal:
            repository = open_repo(repo, store, terminal)
            if group_options.is_config_only:
                _restore_config(snapshot, target, options, group_options, repository, terminal)
            else:
                _restore_group(snapshot, options, group_options, repository, terminal)
        return
    if snapshot is None or target is None:
        missing = "SNAPSHOT" if snapshot is None else "TARGET"
        raise UsageError(
            f"missing argument '{missing}'",
            hint="or for a group --into FOLDER, for all images --all --into FOLDER; 'deltaimg help restore' says more",
        )
    _restore_image(snapshot, target, options, repo, store, _Showing(as_json, quiet, verbose))


def _restore_image(
    snapshot: str, target: str, options: RestoreOptions, repo: str | None, store: StoreOptions, showing: _Showing
) -> None:
    from deltaimg.api.restore import restore as run_restore
    from deltaimg.describe.restore import describe_restored
    from deltaimg.errors import ContentDamaged

    is_piped = check_output(target, as_json=showing.as_json)
    with Terminal(
        as_json=showing.as_json, is_quiet=showing.is_quiet or is_piped, is_verbose=showing.is_verbose
    ) as terminal:
        result = run_restore(
            open_repo(repo, store, terminal),
            snapshot,
            target,
            options,
            progress=terminal,
        )
        if terminal.as_json and not result.damage:
            terminal.print_json(describe_restored(result, target))
        if result.damage:
            for line in list_extents(result.damage, " are missing and read as zeros", terminal):
                terminal.warn(line)
            raise ContentDamaged(result.manifest.label, result.damage, is_rest_restored=True)
        terminal.remark(
            f"{result.manifest.label} restored to {target} and verified: {format_bytes(result.manifest.size_bytes)} image, "
            f"{format_bytes(result.data_bytes)} data, in {format_seconds(result.duration_s)}"
        )
        if result.tail_bytes:
            terminal.remark(
                f"  the last {format_bytes(result.tail_bytes)} of {target} are no part of it and were left as they were"
            )


def _check_newest(snapshot: str | None, chosen: GroupRestoreOptions) -> None:
    """Raise UsageError where arguments do not fit a restore of many images."""
    option = "--all" if chosen.is_all else "--image"
    others = (
        ("SNAPSHOT", snapshot is not None),
        ("--guest", chosen.guest is not None),
        ("--image", bool(chosen.is_all and chosen.images)),
        ("--config-only", chosen.is_config_only),
    )
    for other, is_given in others:
        if is_given:
            hint = "--into FOLDER says where images go" if other == "SNAPSHOT" else "leave one of them out"
            raise UsageError(f"{option} and {other} cannot both be given", hint=hint)
    if chosen.into is None and not chosen.moves:
        raise UsageError(f"nothing says where {option} restores to", hint="give --into FOLDER, or --map OLD=NEW")


def _choose_group(snapshot: str | None, target: str | None, chosen: GroupRestoreOptions) -> tuple[str, str | None]:
    """Return the snapshot of a group, and what the configuration is written to; raises UsageError."""
    if chosen.guest is not None:
        if target is not None:
            raise UsageError("SNAPSHOT and --guest cannot both be given", hint="leave one of them out")
        snapshot, target = chosen.guest, snapshot
    if snapshot is None:
        raise UsageError("missing argument 'SNAPSHOT'", hint="give the name of a group, or --guest NAME")
    if target is not None and not chosen.is_config_only:
        raise UsageError(
            "TARGET cannot be given for a group", hint="--into FOLDER or --map OLD=NEW say where its disks go"
        )
    if chosen.is_config_only and chosen.into is not None:
        raise UsageError("--config-only and --into cannot both be given", hint="leave one of them out")
    return snapshot, target


def _restore_group(
    snapshot: str,
    options: RestoreOptions,
    chosen: GroupRestoreOptions,
    repository: Repository,
    terminal: Terminal,
) -> None:
    from deltaimg.api.restore_many import restore_group

    restored = restore_group(repository, snapshot, chosen.into, options, moves=dict(chosen.moves), progress=terminal)
    report_restored(restored, terminal)


def _restore_config(
    snapshot: str,
    target: str | None,
    options: RestoreOptions,
    chosen: GroupRestoreOptions,
    repository: Repository,
    terminal: Terminal,
) -> None:
    from deltaimg.api.guest_configs import read_guest_config, write_guest_config

    config = read_guest_config(repository, snapshot, dict(chosen.moves))
    write_guest_config(config, target or "-", options)
    if target is not None:
        terminal.remark(f"the configuration of {snapshot} restored to {target}")
    if terminal.as_json:
        terminal.print_json({"guest": snapshot, "target": target, "config_bytes": len(config)})
