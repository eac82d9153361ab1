# SPDX-License-Identifier: Apache-2.0
"""`deltaimg check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_count, format_seconds
from deltaimg.describe.check import describe_check
from deltaimg.options.executor import ExecutorOptions
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.results import CheckReport, Finding

_SHOWN_NOTES = 10
_REPAIR = "'deltaimg repair --dry-run' lists what can be repaired"
_ACCEPT = "ask whoever operates the store; if it is right, 'deltaimg check --accept-state' accepts it"


@takes_options
def check(
    where: ExecutorOptions,
    read_packs: Annotated[
        bool,
        typer.Option("--read-packs", help="Read packs whole, and compare their bytes with their names."),
    ] = False,
    accept_state: Annotated[
        bool,
        typer.Option(
            "--accept-state",
            help="Accept the snapshots that there are, though others were recorded, or seen by this host.",
        ),
    ] = False,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check the structure of a repository.

    Every object is compared with its name and digests, and every reference is followed: snapshots, maps, records, their
    sources, index, signatures, and the footers of packs. Errors mean that content may be lost; warnings and notes do not.

    Only metadata is read, unless --read-packs is given, which also finds changed bytes in packs. Decoding the content is
    'verify'. Parity is checked by 'parity show --check'.

    Without a key, an encrypted repository is checked as far as names, headers and digests go.

    In an encrypted repository, snapshots that the store withholds or has put back are found by what was recorded of each image,
    and an older state of the repository by what this host has seen. Where that is right, as when the repository was restored
    from a copy, --accept-state says so.

    Examples:

        deltaimg check
        deltaimg check --read-packs --json
    """
    from deltaimg.api.clusters import open_cluster
    from deltaimg.api.verification import FindingKind, Severity
    from deltaimg.api.verification import accept_state as accept
    from deltaimg.api.verification import check as run_check
    from deltaimg.errors import RepositoryDamaged

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repo(repo, store, terminal, uses_cache=False, needs_key=accept_state)
        accepted = accept(repository) if accept_state else None
        with open_cluster(where.executor) as cluster:
            report = run_check(repository, read_packs=read_packs, executor=cluster, progress=terminal)
        errors = report.of(Severity.ERROR)
        _print_report(terminal, report, accepted)
        if errors:
            raise RepositoryDamaged(
                repository.objects.location,
                f"{format_count(len(errors), 'error')}; the first: {errors[0].object_name}: {errors[0].problem}",
                hint=_ACCEPT if all(each.kind is FindingKind.WITHHELD for each in errors) else _REPAIR,
            )


def _print_report(terminal: Terminal, report: CheckReport, accepted: list[str] | None) -> None:
    from deltaimg.api.verification import Severity

    by_severity = report.by_severity()
    if terminal.as_json:
        terminal.print_json(describe_check(report, accepted))
        return
    for text in accepted or ():
        terminal.print(f"accepted: {text}")
    if accepted == []:
        terminal.remark("nothing had to be accepted")
    for severity in (Severity.ERROR, Severity.WARNING):
        for each in by_severity[severity]:
            terminal.print(_tell(each))
    unused = "" if report.unused_records is None else f" ({report.unused_records} unused)"
    notes = by_severity[Severity.NOTE]
    shown = notes if terminal.is_verbose else notes[:_SHOWN_NOTES]
    for each in shown:
        terminal.remark(_tell(each))
    if len(notes) > len(shown):
        terminal.remark(f"{format_count(len(notes) - len(shown), 'more note')}; -v shows all")
    terminal.remark(
        f"{format_count(report.snapshots, 'snapshot')}, {format_count(sum(report.objects.values()), 'object')}, "
        f"{format_count(report.records, 'record')}{unused}: "
        f"{format_count(len(by_severity[Severity.ERROR]), 'error')}, "
        f"{format_count(len(by_severity[Severity.WARNING]), 'warning')}, {format_seconds(report.duration_s)}"
    )


def _tell(finding: Finding) -> str:
    place = "" if finding.offset is None else f" (at byte {finding.offset})"
    return f"{finding.severity.value}: {finding.object_name}: {finding.problem}{place}"
