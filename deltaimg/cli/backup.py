# SPDX-License-Identifier: Apache-2.0
"""`deltaimg backup`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.lock_wait import LockWait, open_to_lock
from deltaimg.cli.options import (
    CacheDir,
    Json,
    Quiet,
    Repo,
    Verbose,
    parse_count,
    parse_ratio,
    parse_size,
    parse_time,
)
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_seconds
from deltaimg.errors import SourceUnreadable, UsageError

if TYPE_CHECKING:
    from deltaimg.engine.backup.forecast import BackupForecast
    from deltaimg.format.manifest import Manifest
    from deltaimg.model import Extent

_SHOWN = 10
"""Extents that are listed one by one."""


def backup(
    name: Annotated[str, typer.Option("--image", "-i", metavar="NAME", help="Name of the image in the repository.")],
    image: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            metavar="IMAGE", help="Raw image, block device or pipe; '-' is the standard input.", show_default=False
        ),
    ] = None,
    command: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--stdin-from-command",
            metavar="COMMAND",
            help="Back up what this shell command prints, if it ends with exit status 0.",
        ),
    ] = None,
    size: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--size", metavar="SIZE", help="Refuse an image or stream that is shorter or longer."),
    ] = None,
    taken: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--time",
            metavar="TIME",
            help="When the image was saved, as 2026-11-23 or 2026-11-23T02:30. Import older images first.",
            show_default="now",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would be stored, and store nothing.")
    ] = False,
    comment: Annotated[
        str,
        typer.Option("--comment", metavar="TEXT", help="A remark about the snapshot, for people.", show_default=False),
    ] = "",
    tag: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--tag", "-t", metavar="TAG", help="Mark the snapshot, for people and for 'forget --keep-tag'; repeatable."
        ),
    ] = None,
    compression: Annotated[
        str,
        typer.Option("--compression", "-c", metavar="LEVEL", help="fast, default, best, or a zstd level from 1 to 19."),
    ] = "default",
    block_size: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--block-size",
            metavar="SIZE",
            help="4K to 1M, a power of two. An image keeps that of its first snapshot.",
            show_default="4K",
        ),
    ] = None,
    no_holes: Annotated[
        bool, typer.Option("--no-holes", help="Read everything, whatever the file system says about holes.")
    ] = False,
    direct: Annotated[bool, typer.Option("--direct", help="Read past the page cache, with O_DIRECT.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Store a qcow2 file, an archive or the like as it is, not the image in it.")
    ] = False,
    on_read_error: Annotated[
        str,
        typer.Option(
            "--on-read-error",
            metavar="WHAT",
            help="fail; or zero: back up the rest of a failing disk, with zeros for what it cannot read, and list that.",
        ),
    ] = "fail",
    allow_live: Annotated[
        bool,
        typer.Option(
            "--allow-live", help="Accept an image that is in use or written to meanwhile, and mark the snapshot."
        ),
    ] = False,
    allow_shrink: Annotated[
        bool,
        typer.Option(
            "--allow-shrink", help="Accept a stream that is shorter than before, or a file of which little is left."
        ),
    ] = False,
    match_memory: Annotated[
        str,
        typer.Option(
            "--match-memory", metavar="SIZE", help="Memory for finding content that other images store already."
        ),
    ] = "256M",
    delta: Annotated[
        str,
        typer.Option(
            "--delta",
            metavar="HOW",
            help="auto: encode new content against similar content where that is smaller, by deltaimg's own codec, and by "
            "zstd where that leaves much; deltaimg, zstd, xdelta: by this codec, wherever there is any; best: the smallest "
            "of all, from more content, and slower; none: never.",
        ),
    ] = "auto",
    delta_depth: Annotated[
        str, typer.Option("--delta-depth", metavar="N", help="How many deltas may depend on one another, 1 to 64.")
    ] = "8",
    max_read_amplification: Annotated[
        str,
        typer.Option(
            "--max-read-amplification",
            metavar="N",
            help="Restore read amplification: how many times the bytes a restore may decode, for the sake of deltas.",
        ),
    ] = "2",
    delta_memory: Annotated[
        str, typer.Option("--delta-memory", metavar="SIZE", help="Memory for finding similar content.")
    ] = "256M",
    cache_dir: CacheDir = None,
    cache_size: Annotated[
        str, typer.Option("--cache-size", metavar="SIZE", help="What all images together may take there.")
    ] = "1G",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep nothing on this host.")] = False,
    lock_wait: LockWait = None,
    repo: Repo = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Store an image as a new snapshot.

    The first snapshot of an image is a full one. Each later one stores what changed, and is restored just as fast. Holes
    are neither read nor stored.

    Nothing may write to an image while it is read: back up an LVM snapshot or a clone. One that is mounted read-write, used
    as swap space or held by another program, or that was written to meanwhile, is refused, unless --allow-live is given.
    So is a stream that is shorter than the last snapshot, since it may have been cut short, unless --allow-shrink is given.

    An image is stored flat. A qcow2 file, an archive or a compressed file is refused, with the hint how to back up what is
    in it. A disk that fails ends the backup, unless --on-read-error zero is given: then the rest is stored, and the exit code
    is 19.

    Examples:

        deltaimg backup /var/lib/images/vm1.raw --image vm1
        deltaimg backup /dev/vg0/vm1-snap --image vm1 --tag nightly
        deltaimg backup --image vm2 --stdin-from-command 'ssh host cat /dev/vg0/vm2'
        deltaimg backup old.raw --image vm1 --time 2024-05-01 --dry-run
    """
    from deltaimg.api.backup import backup as run_backup
    from deltaimg.api.backup import plan_backup
    from deltaimg.cli.describe import describe_backup
    from deltaimg.codec.registry import parse_level
    from deltaimg.engine.backup.options import BackupOptions

    source = _choose_source(image, command)
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        options = BackupOptions(
            tags=tuple(tag or ()),
            comment=comment,
            level=parse_level(compression),
            block_bytes=None if block_size is None else parse_size(block_size),
            allow_live=allow_live,
            allow_shrink=allow_shrink,
            stores_containers=raw,
            expected_bytes=None if size is None else parse_size(size),
            taken_at=None if taken is None else parse_time(taken),
            match_budget_bytes=parse_size(match_memory),
            delta=delta,
            delta_budget_bytes=parse_size(delta_memory),
            max_depth=parse_count(delta_depth),
            max_read_amplification=parse_ratio(max_read_amplification),
            cache_folder=None if no_cache else cache_dir or _find_cache_folder(terminal),
            cache_budget_bytes=parse_size(cache_size),
        )
        repository = open_to_lock(repo, lock_wait, terminal)
        opened = {
            "is_command": command is not None,
            "use_holes": not no_holes,
            "is_direct": direct,
            "is_salvaging": _is_salvaging(on_read_error),
        }
        if dry_run:
            planned = plan_backup(repository, source, name, options, progress=terminal, **opened)
            _report_forecast(planned, name, terminal)
            _warn_of_unreadable(planned.unreadable, image or "command", terminal)
            return
        manifest = run_backup(repository, source, name, options, progress=terminal, **opened)
        if as_json:
            terminal.print_json(describe_backup(manifest))
        else:
            _report(manifest, terminal, threads=options.workers)
        _report_unreadable(manifest, image or "command", terminal)


def _choose_source(image: str | None, command: str | None) -> str:
    """Return the path or the command that is to be backed up, of which there must be one; raises UsageError."""
    if image is not None and command is not None:
        raise UsageError("IMAGE and --stdin-from-command cannot both be given", hint="leave one of them out")
    source = command if image is None else image
    if source is None:
        raise UsageError("no image to back up was given", hint="give IMAGE, '-', or --stdin-from-command")
    return source


def _report_forecast(planned: BackupForecast, image: str, terminal: Terminal) -> None:
    from deltaimg.cli.describe import describe_forecast

    if terminal.as_json:
        terminal.print_json(describe_forecast(planned, image))
        return
    found = planned.statistics
    kind = "full" if planned.base is None else f"incremental on {planned.base.id[:8]}"
    terminal.print(f"would store a snapshot of {image} ({kind})")
    terminal.print(
        f"  {format_bytes(found.apparent_bytes)} image, {format_bytes(found.allocated_bytes)} allocated, "
        f"{format_bytes(found.changed_bytes)} changed"
    )
    terminal.print(
        f"  {format_bytes(found.referenced_bytes)} deduplicated, {format_bytes(found.new_bytes)} new before compression, "
        f"compared in {format_seconds(found.duration_s)}"
    )


def _report(manifest: Manifest, terminal: Terminal, *, threads: int) -> None:
    done = manifest.statistics
    kind = "full" if manifest.base is None else f"incremental on {manifest.base[:8]}"
    terminal.remark(f"snapshot {manifest.label} ({kind})")
    terminal.remark(
        f"  {format_bytes(done.apparent_bytes)} image, {format_bytes(done.allocated_bytes)} allocated, "
        f"{format_bytes(done.changed_bytes)} changed"
    )
    terminal.remark(
        f"  {format_bytes(done.referenced_bytes)} deduplicated, {format_bytes(done.new_bytes)} new, "
        f"{format_bytes(done.stored_bytes)} stored, in {format_seconds(done.duration_s)}"
    )
    if terminal.is_verbose:
        rate = done.read_bytes / max(done.duration_s, 0.001)
        terminal.remark(
            f"  {format_bytes(done.read_bytes)} read, {format_bytes(rate)}/s, in blocks of "
            f"{format_bytes(manifest.block_bytes)}, by {format_count(threads, 'thread')}"
        )


def _is_salvaging(on_read_error: str) -> bool:
    if on_read_error not in ("fail", "zero"):
        raise UsageError(f"--on-read-error '{on_read_error[:60]}' is neither 'fail' nor 'zero'")
    return on_read_error == "zero"


def _warn_of_unreadable(extents: tuple[Extent, ...], image: str, terminal: Terminal) -> None:
    for lost in extents[:_SHOWN]:
        terminal.warn(f"{image}: bytes {lost.start} to {lost.end} cannot be read, and are zeros in the snapshot")


def _report_unreadable(manifest: Manifest, image: str, terminal: Terminal) -> None:
    """List what could not be read; raises SourceUnreadable if there is something."""
    _warn_of_unreadable(manifest.unreadable, image, terminal)
    if manifest.unreadable:
        lost_bytes = sum(extent.length for extent in manifest.unreadable)
        places = format_count(len(manifest.unreadable), "place")
        raise SourceUnreadable(
            image,
            f"snapshot {manifest.label} was stored, but {format_bytes(lost_bytes)} in {places} could not be read",
            hint=f"'deltaimg show {manifest.label} --json' lists all of them; replace the disk soon",
        )


def _find_cache_folder(terminal: Terminal) -> str | None:
    """Return where this user's cache is, and say what it costs where there is none."""
    from deltaimg.api.cache import find_cache_folder

    folder = find_cache_folder()
    if folder is None:
        terminal.warn(
            "this user has no home folder, so there is no cache: the image may be read twice, and more may be stored; "
            "name a folder with --cache-dir, or accept it with --no-cache"
        )
    return folder
