# SPDX-License-Identifier: Apache-2.0
"""`deltaimg doctor`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_moment
from deltaimg.errors import DeltaimgError
from deltaimg.options.store import StoreOptions

if TYPE_CHECKING:
    from deltaimg.api.doctor import Finding, ImageOutlook
    from deltaimg.api.results import Repository

_COLUMNS = ("", "what", "found", "for more")


@takes_options
def doctor(
    subject: Annotated[
        Optional[str],  # noqa: UP045  typer reads this at run time
        typer.Argument(
            metavar="IMAGE|GUEST",
            help="An image file or block device, or the name of an image, a group or a guest.",
            show_default="all of the repository",
        ),
    ] = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what this host, a repository and images allow, and why not more.

    Which programs and extras are there; how each image would be frozen and tracked by auto, and why not in a better way; why
    its last backup was a full one, or read everything. Nothing is changed: to see whether an image file can be cloned, it is,
    into a file without a name that is gone at once.

    Lines that begin with '-' name what is missing. Not all of it is needed.

    Examples:

        deltaimg doctor
        deltaimg doctor /dev/vg0/vm1
        deltaimg doctor web1 -r /backup/repo --json
    """
    from deltaimg.api.doctor import examine_host, examine_images, examine_repository
    from deltaimg.describe.doctor import describe_findings, describe_outlook

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        host = examine_host()
        repository, problem = _open(repo, store, terminal)
        findings = [] if repository is None else examine_repository(repository)
        usable = None if repository is None or repository.is_locked else repository
        outlooks, others = examine_images(subject, usable)
        if as_json:
            terminal.print_json(
                {
                    "host": describe_findings(host),
                    "repository": describe_findings(findings),
                    "repository_problem": None if problem is None else str(problem),
                    "images": [describe_outlook(each) for each in outlooks],
                    "not_examined": [{"name": name, "reason": str(reason)} for name, reason in others],
                }
            )
            return
        terminal.print_table(_COLUMNS, _make_rows(host, is_verbose=verbose))
        if not verbose and (missing := [each.name for each in host if _is_missing_extra(each)]):
            terminal.print(f"not installed: {', '.join(missing)}; -v says what for, and how")
        if problem is not None:
            terminal.warn(f"the repository cannot be used: {problem}")
        if findings:
            terminal.print("")
            terminal.print_table(_COLUMNS, _make_rows(findings, is_verbose=True))
        for each in outlooks:
            terminal.print("")
            _print_outlook(terminal, each)
        for name, reason in others:
            terminal.warn(f"{name}: {reason}" if isinstance(reason, str) else str(reason))


def _open(repo: str | None, store: StoreOptions, terminal: Terminal) -> tuple[Repository | None, DeltaimgError | None]:
    """Open the repository, if one was named; or return why that cannot be."""
    if not repo:
        return None, None
    try:
        return open_repo(repo, store, terminal, needs_key=False), None
    except DeltaimgError as error:
        return None, error


def _make_rows(findings: Iterable[Finding], *, is_verbose: bool) -> list[list[str]]:
    """Return a row for each; without -v none for extras that are missing, since nothing misses them."""
    return [
        ["+" if each.is_good else "-", each.name, each.detail, each.hint]
        for each in findings
        if is_verbose or not _is_missing_extra(each)
    ]


def _is_missing_extra(finding: Finding) -> bool:
    return not finding.is_good and finding.name.startswith("deltaimg[")


def _print_outlook(terminal: Terminal, outlook: ImageOutlook) -> None:
    size = "unknown" if outlook.size_bytes is None else format_bytes(outlook.size_bytes)
    pairs = [
        ("image", outlook.path + (f", {outlook.image} in the repository" if outlook.image else "")),
        ("size", size),
        ("in use", f"it is {outlook.writer}: freeze it" if outlook.writer else "nothing is known to write to it"),
        ("--freeze auto", outlook.best_freezing),
        *((f"  not {way.name}", way.obstacle) for way in outlook.freezing if way.obstacle),
        ("--track auto", outlook.best_tracking),
        *((f"  not {way.name}", way.obstacle) for way in outlook.tracking if way.obstacle),
    ]
    if outlook.last is not None:
        last = outlook.last
        pairs.append(
            ("last backup", f"{format_moment(last.manifest.taken_at, to_minutes=True)}, {last.manifest.label}")
        )
        if last.why_full:
            pairs.append(("  a full one", last.why_full))
        if last.why_scanned:
            pairs.append(("  read everything", last.why_scanned))
    terminal.print_pairs(pairs)
