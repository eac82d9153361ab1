# SPDX-License-Identifier: Apache-2.0
"""`deltaimg sync`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from deltaimg.cli.lock_wait import LockWait, make_lock_waiting
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Verbose
from deltaimg.cli.passphrase import ask_passphrase
from deltaimg.cli.store_access import find_cache_dir
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_moment, format_seconds
from deltaimg.errors import RepositoryNotFound
from deltaimg.options.executor import ExecutorOptions
from deltaimg.options.keep import Policy
from deltaimg.options.store import StoreOptions
from deltaimg.options.sync import SyncOptions

if TYPE_CHECKING:
    from deltaimg.api.results import Compared, Failure, Repository, SyncEstimate, SyncResult

_COLUMNS = ("snapshot", "taken", "")


@takes_options
def sync(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The repository to copy from.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="The repository to copy to.")],
    options: SyncOptions,
    policy: Policy,
    where: ExecutorOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="List what would be copied and how much that is; change nothing.")
    ] = False,
    store: StoreOptions = StoreOptions(),
    lock_wait: LockWait = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Copy snapshots from one repository to another.

    Only records that the destination lacks are sent, as they are stored. A snapshot appears there once it is complete, so
    that an interrupted run leaves whole snapshots; the next one does not send again what has arrived.

    The destination is best made by 'init --like'. In a repository of another family, snapshots are stored again, which takes
    longer and gives them new ids. With --keep options only those snapshots are copied that 'forget' would keep in
    the source. What the source forgets stays in the destination, unless --delete is given; pinned snapshots stay even then.

    Examples:

        deltaimg sync /backup/repo /mnt/offsite/repo --dry-run
        deltaimg sync /backup/repo /mnt/offsite/repo --newest-first
        deltaimg sync /backup/repo /mnt/offsite/repo --image vm1 --since 30d
        deltaimg sync /backup/repo /mnt/offsite/repo --snapshot vm1@2026-11-23
        deltaimg sync /backup/repo /mnt/offsite/repo --keep-weekly 8 --delete
    """
    from deltaimg.api.clusters import open_cluster
    from deltaimg.api.repositories import is_remote, open_repository
    from deltaimg.api.sync import plan_sync
    from deltaimg.api.sync import sync as run_sync
    from deltaimg.describe.sync import describe_estimate, describe_sync

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        waiting = make_lock_waiting(lock_wait, terminal)
        is_verified = options.verify != "none"
        cache = find_cache_dir()
        open_side = partial(open_repository, ask=ask_passphrase, may_be_plain=True)
        with ExitStack() as stack:
            # A limit is one of the line: a source on this host is read as fast as it can be.
            of_source = store if is_remote(source) else replace(store, bandwidth=None, max_requests=None)
            src = stack.enter_context(open_side(source, of_source, cache_folder=cache))
            with _pointing_to_like(source, destination):
                dst = stack.enter_context(open_side(destination, store, cache_folder=None if is_verified else cache))
            src.lock_waiting = dst.lock_waiting = waiting
            terminal.watch(dst)
            terminal.note = partial(describe_limit, store)
            _warn_of_clear_text(src, dst, terminal)
            if dry_run:
                estimate = plan_sync(src, dst, options, policy, progress=terminal)
                if as_json:
                    terminal.print_json({**describe_estimate(estimate), "limit_s": count_seconds(estimate, store)})
                _warn_of_families(terminal, estimate)
                _print_plan(terminal, estimate, store)
                _report_failures(dst, estimate.failed, terminal)
                return

            def announce(estimate: SyncEstimate) -> None:
                _warn_of_families(terminal, estimate)
                if estimate.snapshots:
                    terminal.remark(f"copying {_describe(estimate, store)}")

            with open_cluster(where.executor) as cluster:
                result = run_sync(src, dst, options, policy, executor=cluster, on_estimate=announce, progress=terminal)
            if as_json:
                terminal.print_json(describe_sync(result))
            _print_result(terminal, result)
            _report_failures(dst, result.failed, terminal)


@contextmanager
def _pointing_to_like(source: str, destination: str) -> Iterator[None]:
    """Have the hint where there is no destination yet say how one of the same family is made."""
    try:
        yield
    except RepositoryNotFound as error:
        if error.problem is not None:
            raise
        hint = f"'deltaimg init -r {destination} --like {source}' creates one for copies of {source}"
        raise RepositoryNotFound(destination, "there is no repository here", hint=hint) from error


def _warn_of_clear_text(source: Repository, destination: Repository, terminal: Terminal) -> None:
    """Warn before the first copy of what is encrypted to where it is not: once it is there, that is how it was meant."""
    if source.config.is_encrypted and not destination.config.is_encrypted and not destination.list_snapshots():
        terminal.warn(
            f"{destination.objects.location} is not encrypted: whoever can read it can read the images; "
            "'deltaimg init --like' with --encryption makes a copy that is"
        )


def _warn_of_families(terminal: Terminal, estimate: SyncEstimate) -> None:
    if estimate.is_other_family:
        terminal.warn(
            "the repositories are of different families: snapshots are decoded and stored again; "
            "records are copied as they are to one that 'deltaimg init --like' makes"
        )


def count_seconds(estimate: SyncEstimate, store: StoreOptions) -> float | None:
    """Return how long what is sent takes at least within the limits that were given, in seconds; None without any."""
    times = []
    if store.bandwidth is not None:
        now = datetime.now()
        end = store.bandwidth.find_end(estimate.amount.sent_bytes, now)
        times.append(float("inf") if end is None else (end - now).total_seconds())
    if store.max_requests is not None:
        times.append(estimate.amount.objects / store.max_requests)
    return round(max(times), 1) if times else None


def describe_limit(store: StoreOptions) -> str:
    """Return what limit holds now, and for how long; empty without one."""
    if store.bandwidth is None:
        return ""
    now = datetime.now()
    change = store.bandwidth.next_change(now)
    until = "" if change is None else f" for {format_seconds((change - now).total_seconds())}"
    return f"limit {store.bandwidth.rates_at(now)}{until}"


def _describe(estimate: SyncEstimate, store: StoreOptions) -> str:
    amount, seconds = estimate.amount, count_seconds(estimate, store)
    within = "" if seconds is None else f", {format_seconds(seconds)} at the limit"
    arrived = f"; {format_bytes(amount.arrived_bytes)} of an earlier run are there" if amount.arrived_bytes else ""
    return (
        f"{format_count(len(estimate.snapshots), 'snapshot')}: about {format_bytes(amount.sent_bytes)} "
        f"in {format_count(amount.objects, 'object')}{within}{arrived}"
    )


def _print_plan(terminal: Terminal, estimate: SyncEstimate, store: StoreOptions) -> None:
    refs = [(ref, "copy") for ref in estimate.snapshots] + [(ref, "forget") for ref in estimate.forgotten]
    rows = [[ref.label, format_moment(ref.taken_at, to_minutes=not terminal.is_verbose), what] for ref, what in refs]
    if rows:
        terminal.print_table(_COLUMNS, rows)
    there = f"{format_count(estimate.there_count, 'snapshot')} there already"
    terminal.remark(
        f"would copy {_describe(estimate, store)}; {there}" if estimate.snapshots else f"nothing to copy; {there}"
    )


def _print_result(terminal: Terminal, result: SyncResult) -> None:
    if terminal.is_verbose:
        for ref in result.copied:
            terminal.remark(f"  {ref.label} copied")
        for ref in result.forgotten:
            terminal.remark(f"  {ref.label} forgotten")
    if result.compared.objects or result.compared.read_bytes:
        terminal.remark(_describe_compared(result.compared))
    forgotten = f", {len(result.forgotten)} forgotten" if result.forgotten else ""
    terminal.remark(
        f"{format_count(len(result.copied), 'snapshot')} copied{forgotten}, {result.there_count} there before; "
        f"{format_bytes(result.stored_bytes)} stored, {format_seconds(result.duration_s)}"
    )


def _describe_compared(compared: Compared) -> str:
    """Return what was compared at the end, and how much that says."""
    read = f"{format_bytes(compared.read_bytes)} read back and verified"
    if not compared.objects:
        return read
    parts = [f"{format_count(compared.objects, 'object')} that were sent are there"]
    if compared.digest_objects:
        parts.append(f"{compared.digest_objects} verified by the store's digests")
    if read_objects := compared.read_objects + compared.sampled_objects:
        parts.append(f"{read_objects} of them, {read}")
    if compared.listed_objects:
        parts.append(f"damage to 1 % of the others would be found with a probability of {compared.detects():.0%}")
    return "; ".join(parts)


def _report_failures(destination: Repository, failed: tuple[Failure, ...], terminal: Terminal) -> None:
    """Print what was not copied; raises SyncIncomplete if there is any."""
    from deltaimg.errors import SyncIncomplete

    for each in failed[1:]:
        terminal.warn(f"{each.ref.label} is not copied: {each.error}")
    if failed:
        raise SyncIncomplete(
            destination.objects.location,
            [(each.ref.label, str(each.error)) for each in failed],
            hint=failed[0].error.hint,
        )
