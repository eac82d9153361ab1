# SPDX-License-Identifier: Apache-2.0
"""`deltaimg parity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import to_builtins

from deltaimg.cli.lock_wait import LockWait, open_to_lock
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.terminal import Terminal, format_bytes, format_count
from deltaimg.describe.parity import describe_parity_added, describe_protection
from deltaimg.errors import PacksDamaged, ParityExhausted, UsageError
from deltaimg.options.executor import ExecutorOptions
from deltaimg.options.parity import ParityOptions
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import ParityProtection, Repository

_SHORT_NAME = len("parity/") + 12


@takes_options
def parity(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="'add', 'show' or 'repair'.")],
    options: ParityOptions,
    where: ExecutorOptions,
    check: Annotated[
        bool,
        typer.Option("--check", help="Read all parity: 'show' counts its damage, 'add' replaces what is damaged."),
    ] = False,
    lock_wait: LockWait = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Protect packs by parity, and recover damaged ones.

    'add' writes Reed-Solomon parity for all packs that have too little of it, and removes parity that is no longer useful.
    Run it after each backup and each prune. It reads new packs whole, and some older ones together with them; at 5 percent,
    up to 2.5 GiB of packs share their parity.

    'show' lists what is protected, and what loss each group of packs survives.

    'repair' reads every pack, and recovers damaged and missing ones where there is enough parity.

    'add' and 'repair' need the Python package pyeclib. 'show' and 'repair' need no key of an encrypted repository; without one,
    packs that are missing altogether are not noticed.

    Examples:

        deltaimg parity add
        deltaimg parity add --percent 10 --json
        deltaimg parity show --check
        deltaimg parity repair
    """
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        if action == "add":
            repository = open_to_lock(repo, lock_wait, store, terminal, uses_cache=False)
            _add(terminal, repository, options, where, is_thorough=check)
        elif action not in ("show", "repair"):
            raise UsageError(f"there is no action '{action[:60]}'", hint="'deltaimg parity add', 'show' or 'repair'")
        elif options.percent is not None or where.executor is not None:
            raise UsageError(f"{'--percent' if where.executor is None else '--executor'} is for 'parity add'")
        elif action == "repair":
            if check:
                raise UsageError("--check is for 'parity add' and 'parity show'")
            _repair(terminal, open_to_lock(repo, lock_wait, store, terminal, uses_cache=False, needs_key=False))
        else:
            _show(
                terminal,
                open_to_lock(repo, lock_wait, store, terminal, uses_cache=False, needs_key=False),
                is_thorough=check,
            )


def _add(
    terminal: Terminal, repository: Repository, options: ParityOptions, where: ExecutorOptions, *, is_thorough: bool
) -> None:
    from deltaimg.api.clusters import open_cluster
    from deltaimg.api.repair import add_parity

    with open_cluster(where.executor) as cluster:
        added = add_parity(repository, options, is_thorough=is_thorough, executor=cluster, progress=terminal)
    if terminal.as_json:
        terminal.print_json(describe_parity_added(added))
    elif added.groups or added.removed_groups:
        terminal.remark(
            f"read {format_bytes(added.read_bytes)} in {format_count(added.packs, 'pack')}, stored "
            f"{format_bytes(added.stored_bytes)} of parity in {format_count(added.groups, 'object')}"
            + (f", removed {format_bytes(added.removed_bytes)}" if added.removed_groups else "")
        )
    else:
        terminal.remark("every pack is protected already")
    _warn(terminal, added.protection)
    if added.damaged:
        raise PacksDamaged(added.damaged)


def _repair(terminal: Terminal, repository: Repository) -> None:
    from deltaimg.api.repair import pack_name, repair_packs

    done = repair_packs(repository, progress=terminal)
    if terminal.as_json:
        terminal.print_json(to_builtins(done))
    terminal.remark(
        f"read {format_bytes(done.read_bytes)} in {format_count(done.packs, 'pack')}: "
        f"{len(done.repaired)} repaired, {len(done.failed)} unrecoverable"
    )
    for pack in done.repaired:
        terminal.remark(f"{pack_name(pack)}  repaired")
    for pack, reason in done.failed:
        terminal.warn(f"{pack_name(pack)}: {reason}")
    if done.failed:
        pack, reason = done.failed[0]
        raise ParityExhausted(pack_name(pack), 0, reason)


def _show(terminal: Terminal, repository: Repository, *, is_thorough: bool) -> None:
    from deltaimg.api.repair import survey_parity

    protection = survey_parity(repository, is_thorough=is_thorough)
    _warn(terminal, protection)
    if terminal.as_json:
        terminal.print_json(describe_protection(protection))
        return
    percent = 100 * protection.parity_bytes / protection.protected_bytes if protection.protected_bytes else 0.0
    terminal.print_pairs(
        [
            (
                "protected",
                f"{format_bytes(protection.protected_bytes)} in {format_count(protection.protected_packs, 'pack')}",
            ),
            (
                "not protected",
                f"{format_bytes(protection.unprotected_bytes)} in {format_count(protection.unprotected_packs, 'pack')}",
            ),
            ("parity", f"{format_bytes(protection.parity_bytes)}, {percent:.1f} %"),
        ]
    )
    if protection.groups:
        terminal.print()
        rows = [
            [
                group.name if terminal.is_verbose else group.name[:_SHORT_NAME],
                str(group.packs),
                str(group.gone_packs + group.lost_packs),
                format_bytes(group.pack_bytes),
                format_bytes(group.parity_bytes),
                format_bytes(group.survives_bytes),
                str(group.survives_packs),
            ]
            for group in protection.groups
        ]
        columns = ("group", ">packs", ">missing", ">bytes", ">parity", ">survives", ">packs lost")
        terminal.print_table(columns, rows)


def _warn(terminal: Terminal, protection: ParityProtection) -> None:
    for error in protection.damage:
        terminal.warn(f"{error}: what it protected is not protected now; 'parity add' protects it again")
    for group in protection.groups:
        if group.damaged_parts:
            terminal.warn(
                f"{group.name}: {format_count(group.damaged_parts, 'part')} damaged; 'parity add --check' replaces it"
            )
    for pack in protection.lost:
        terminal.warn(f"pack {pack} is missing; 'deltaimg parity repair' recovers it if it can")
