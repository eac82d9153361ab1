# SPDX-License-Identifier: Apache-2.0
"""`deltaimg repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.damage import SHOWN
from deltaimg.cli.lock_wait import LockWait, make_lock_waiting
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose, require_repo
from deltaimg.cli.passphrase import ask_passphrase
from deltaimg.cli.terminal import Terminal, format_count, format_seconds
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import DamagedExtent, RepairReport


@takes_options
def repair(
    from_path: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--from",
            metavar="PLACE",
            help="Where to look for lost content: another copy of this repository, or the image itself.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="List what would be done, and change nothing.")
    ] = False,
    lock_wait: LockWait = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Repair a damaged repository, and list what stays damaged.

    All packs are read. Damaged packs are recovered from parity first; a lost index is rebuilt from packs; good records of
    damaged packs are stored again; lost ones are taken from --from. What stays damaged is moved to 'quarantine/', never
    deleted. It may be interrupted and run again at any time.

    Examples:

        deltaimg repair --dry-run
        deltaimg repair --from /mnt/offsite/repo
        deltaimg repair --from /dev/vg0/vm1-snap
    """
    from deltaimg.api.repair import open_for_repair
    from deltaimg.api.repair import repair as run_repair
    from deltaimg.errors import RepositoryDamaged

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        waiting = make_lock_waiting(lock_wait, terminal)
        repository = open_for_repair(require_repo(repo), from_path, store, ask=ask_passphrase)
        terminal.watch(repository)
        repository.lock_waiting = waiting
        report = run_repair(repository, from_path, store, ask=ask_passphrase, is_dry_run=dry_run, progress=terminal)
        _print_report(terminal, report)
        if report.damage:
            raise RepositoryDamaged(
                repository.objects.location,
                f"{format_count(len(report.damage), 'snapshot')} {_choose_verb(len(report.damage), dry_run)} damaged: "
                f"{', '.join(each.ref.label for each in report.damage[:5])}{', …' if len(report.damage) > 5 else ''}",
                hint=_suggest_next(report, has_source=from_path is not None),
            )


def _print_report(terminal: Terminal, report: RepairReport) -> None:
    from deltaimg.describe.repair import describe_repair

    if terminal.as_json:
        terminal.print_json(describe_repair(report))
        return
    would = "would be " if report.is_dry_run else ""
    for count, what in (
        (len(report.copied), f"{format_count(len(report.copied), 'object')} {would}taken from the copy"),
        (len(report.recovered), f"{format_count(len(report.recovered), 'pack')} {would}recovered from parity"),
        (
            report.salvaged_records,
            f"{format_count(report.salvaged_records, 'record')} {would}salvaged from damaged packs",
        ),
        (report.remade_records, f"{format_count(report.remade_records, 'lost record')} {would}recovered"),
        (report.indexed_packs, f"{format_count(report.indexed_packs, 'pack')} {would}indexed again"),
        (
            len(report.quarantined),
            f"{format_count(len(report.quarantined), 'object')} {would}moved to 'quarantine/'",
        ),
        (report.lost_records, f"{format_count(report.lost_records, 'record')} could not be found anywhere"),
    ):
        if count:
            terminal.remark(what)
    if terminal.is_verbose:
        for name in (*report.copied, *report.recovered, *report.quarantined):
            terminal.remark(f"  {name}")
    if report.damage:
        rows = [
            [each.ref.label, *_name_place(extent), extent.reason]
            for each in report.damage
            for extent in (each.extents if terminal.is_verbose else each.extents[:SHOWN])
        ]
        terminal.print_table(("damaged", ">from byte", ">to byte", "because"), rows)
        hidden = sum(max(0, len(each.extents) - SHOWN) for each in report.damage)
        if hidden and not terminal.is_verbose:
            terminal.print(f"{format_count(hidden, 'more extent')}; -v shows all")
    state = "damaged, see above" if report.damage else "no snapshot is damaged"
    terminal.remark(f"{state}; {format_seconds(report.duration_s)}")


def _name_place(extent: DamagedExtent) -> tuple[str, str]:
    """Return the two columns of where damage is; of a snapshot whose size is not known it is everywhere."""
    return (str(extent.start), str(extent.end)) if extent.end > extent.start else ("all", "")


def _suggest_next(report: RepairReport, *, has_source: bool) -> str:
    if not has_source:
        return "'deltaimg repair --from PLACE' takes what is lost from the image or from another copy of the repository"
    if all(each.is_whole for each in report.damage):
        return "another copy may have it; 'deltaimg forget' removes a snapshot that is lost for good"
    return "'deltaimg restore --keep-going' restores what is not damaged"


def _choose_verb(count: int, is_dry_run: bool) -> str:
    if is_dry_run:
        return "is" if count == 1 else "are"
    return "stays" if count == 1 else "stay"
