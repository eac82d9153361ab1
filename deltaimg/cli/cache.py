# SPDX-License-Identifier: Apache-2.0
"""`deltaimg cache`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from deltaimg.cli.options import CacheDir, Json, Quiet, Verbose
from deltaimg.cli.terminal import Terminal, format_bytes, format_count, format_moment

if TYPE_CHECKING:
    from deltaimg.api.results import CachedImage

_COLUMNS = ("repository", "image", ">index", ">content", "used", "notes")


def cache(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="'show' or 'clean'.")],
    everything: Annotated[bool, typer.Option("--all", help="Clean everything, not only leftovers.")] = False,
    image: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--image", "-i", metavar="NAME", help="Show or clean what is kept of this image; repeatable."),
    ] = None,
    cache_dir: CacheDir = None,
    repo: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--repo", "-r", metavar="FOLDER", help="Show or clean what is kept for this repository only."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show or clean what this host keeps so that its next backups are faster and smaller.

    For each image that is a similarity index and the content of its latest deltas. 'backup --cache-size' bounds all of it
    together; what was used longest ago is removed first.

    Of remote repositories it is also index, maps and signatures that were read, at most 1 GiB of them, and packs that were
    stored or read, which '--pack-cache' bounds.

    'clean' removes what is left of repositories that are no longer where they were. All of it may be removed: the next
    backup of each image then reads the image twice, and may store more.

    Examples:

        deltaimg cache show
        deltaimg cache clean
        deltaimg cache clean --image vm1
        deltaimg cache clean --all
    """
    from deltaimg.api.cache import (
        clean_cache,
        clean_metadata,
        clean_packs,
        find_cache_folder,
        is_leftover,
        list_cache,
        resolve_location,
    )
    from deltaimg.errors import UsageError

    if action not in ("show", "clean"):
        raise UsageError(f"there is no action '{action[:60]}'", hint="'deltaimg cache show' or 'deltaimg cache clean'")
    if action == "show" and everything:
        raise UsageError("--all is for 'cache clean'")
    folder = cache_dir or find_cache_folder()
    if folder is None:
        raise UsageError("there is no cache: this user has no home folder", hint="name one with --cache-dir FOLDER")
    location = None if repo is None else resolve_location(repo)
    with Terminal(as_json=as_json, is_quiet=quiet, is_verbose=verbose) as terminal:
        found = [
            each
            for each in list_cache(folder)
            if (not image or each.image in image) and (location is None or each.location == location)
        ]
        leftovers = {id(each) for each in found if is_leftover(each)}
        if action == "show":
            _show(terminal, folder, found, leftovers)
            return
        chosen = found if everything or image or repo else [each for each in found if id(each) in leftovers]
        freed = clean_cache(folder, chosen)
        if everything and not image and repo is None:
            freed += clean_metadata(folder) + clean_packs(folder)
        if as_json:
            terminal.print_json({"folder": folder, "removed_images": len(chosen), "freed_bytes": freed})
        terminal.remark(f"removed {format_count(len(chosen), 'image')} from {folder}, {format_bytes(freed)} freed")


def _show(terminal: Terminal, folder: str, found: list[CachedImage], leftovers: set[int]) -> None:
    from deltaimg.api.cache import measure_metadata, measure_packs
    from deltaimg.describe.cache import describe_cached_image, find_last_use

    metadata_bytes, packs_bytes = measure_metadata(folder), measure_packs(folder)
    total = metadata_bytes + packs_bytes + sum(each.anchor_bytes + each.content_bytes for each in found)
    if terminal.as_json:
        images = [describe_cached_image(each, is_leftover=id(each) in leftovers) for each in found]
        terminal.print_json(
            {
                "folder": folder,
                "total_bytes": total,
                "metadata_bytes": metadata_bytes,
                "packs_bytes": packs_bytes,
                "images": images,
            }
        )
        return
    rows = [
        [
            each.location or each.repository_id,
            each.image,
            format_bytes(each.anchor_bytes),
            format_bytes(each.content_bytes),
            format_moment(find_last_use(each), to_minutes=not terminal.is_verbose),
            "repository is gone" if id(each) in leftovers else "",
        ]
        for each in found
    ]
    if rows:
        terminal.print_table(_COLUMNS, rows)
        terminal.print()
    kinds = {"metadata": metadata_bytes, "packs": packs_bytes}
    kept = " and ".join(f"{format_bytes(size)} {kind}" for kind, size in kinds.items() if size)
    terminal.print(f"{format_bytes(total)} in {folder}" + (f", {kept} of remote repositories" if kept else ""))
