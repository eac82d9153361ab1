# SPDX-License-Identifier: Apache-2.0
"""`deltaimg verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.damage import list_extents
from deltaimg.cli.option_parameters import takes_options
from deltaimg.cli.options import Json, Quiet, Repo, Verbose
from deltaimg.cli.store_access import open_repo
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_moment, format_seconds
from deltaimg.options.executor import ExecutorOptions
from deltaimg.options.store import StoreOptions
from deltaimg.options.verify import VerifyOptions

if TYPE_CHECKING:
    from deltaimg.api.results import Repository, VerifiedSummary


@takes_options
def verify(
    options: VerifyOptions,
    where: ExecutorOptions,
    snapshot: Annotated[
        list[str] | None,
        typer.Argument(metavar="SNAPSHOT", help="vm1, vm1@latest~2, vm1@2026-11-23, or an id; all if none is named."),
    ] = None,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--against", metavar="IMAGE", help="Compare an image with the snapshot instead."),
    ] = None,
    store: StoreOptions = StoreOptions(),
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Verify that snapshots can be restored.

    Every record is read and decoded, and every block compared with its digest; content that snapshots share is read once, and
    no image is written. The repository remembers what was verified when, so that daily runs of '--percent 5' verify all of
    it within 20 days.

    Examples:

        deltaimg verify
        deltaimg verify --percent 5
        deltaimg verify vm1 --against /dev/vg0/vm1-snap
    """
    from deltaimg.errors import UsageError

    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        repository = open_repo(repo, store, terminal, uses_cache=False)
        if against is None:
            _verify(repository, snapshot or [], options, where, terminal)
            return
        if where.executor is not None:
            raise UsageError("--against reads the image here, so that --executor has no meaning")
        if len(snapshot or []) != 1:
            raise UsageError("--against takes exactly one snapshot", hint="deltaimg verify vm1 --against IMAGE")
        _compare(repository, (snapshot or [])[0], against, terminal)


def _verify(
    repository: Repository,
    selectors: list[str],
    options: VerifyOptions,
    where: ExecutorOptions,
    terminal: Terminal,
) -> None:
    from deltaimg.api.clusters import open_cluster
    from deltaimg.api.verification import verify as run_verify
    from deltaimg.describe.verify import describe_verify
    from deltaimg.errors import ContentDamaged

    with open_cluster(where.executor) as cluster:
        results = run_verify(repository, selectors, options, executor=cluster, progress=terminal)
    if terminal.as_json:
        terminal.print_json(describe_verify(results))
    for each in results:
        state = "damaged" if each.damage else "verified"
        terminal.remark(
            f"{each.ref.label}  {state}  {format_bytes(each.verified_bytes)} in {each.records} of "
            f"{format_count(each.records_total, 'record')}, {format_seconds(each.duration_s)}"
        )
        for line in list_extents(each.damage, "", terminal):
            terminal.remark(f"  {line}")
    terminal.remark(_tell_verified_share(results.verified_share, sum(bool(each.damage) for each in results)))
    for each in results:
        if each.damage:
            raise ContentDamaged(each.ref.label, each.damage, is_whole=not each.records_total)


def _tell_verified_share(verified_share: VerifiedSummary, damaged: int) -> str:
    """Return since when all content is verified, or how much of it is not yet, and how much this run verified."""
    today = f"{verified_share.run_percent:.0f} % by this run"
    if damaged:
        return (
            f"{format_count(damaged, 'snapshot')} {'is' if damaged == 1 else 'are'} damaged; {today} of what is there"
        )
    if verified_share.verified_since is None or verified_share.never_percent > 0:
        return f"{verified_share.never_percent:.0f} % of all content is not yet verified; {today}"
    return f"all content was verified since {format_moment(verified_share.verified_since)}; {today}"


def _compare(repository: Repository, selector: str, image: str, terminal: Terminal) -> None:
    from deltaimg.api.compare import compare
    from deltaimg.describe.verify import describe_comparison
    from deltaimg.errors import ContentDiffers

    found = compare(repository, selector, image, progress=terminal)
    differing_bytes = sum(extent.length for extent in found.differing)
    if terminal.as_json:
        terminal.print_json(describe_comparison(found, image))
    if found.differing:
        first = found.differing[0]
        raise ContentDiffers(
            f"{image}: differs from snapshot {found.manifest.label} in {differing_bytes} bytes, "
            f"first at {first.start} to {first.end}"
        )
    terminal.remark(f"{image} is {found.manifest.label}, byte for byte")
    if found.tail_bytes:
        terminal.remark(f"  {format_bytes(found.tail_bytes)} more follow in {image}, which were not compared")
