# SPDX-License-Identifier: Apache-2.0
"""A plain copy of an image, kept current on this or another host."""

from __future__ import annotations

from deltaimg import __version__
from deltaimg.engine.mirror.connect import Connection, parse_destination
from deltaimg.engine.mirror.far import serve
from deltaimg.engine.mirror.request import MirrorRequest
from deltaimg.engine.mirror.request import MirrorResult as MirrorResult
from deltaimg.engine.mirror.run import mirror as mirror_image
from deltaimg.engine.mirror.run import recover_mirror as recover_copy
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.options.definition import validate
from deltaimg.options.mirror import MirrorOptions
from deltaimg.options.store import StoreOptions
from deltaimg.store.throttle import Throttle


def mirror(
    image_path: str,
    destination: str,
    options: MirrorOptions | None = None,
    *,
    is_dry: bool = False,
    cache_folder: str | None = None,
    progress: Progress | None = None,
) -> MirrorResult:
    """Make the plain copy at `destination`, `HOST:/path` or a path, equal to the image. Only what changed is sent.

    Args:
        is_dry: say how much would change, and change nothing.
        cache_folder: where this host keeps the digests of what copies hold, so that they need not be sent.

    Raises:
        MirrorError, ImageError: the copy is as it was, or the next call, or `recover_mirror`, makes it so.
    """
    options = options or MirrorOptions()
    validate(options)
    return mirror_image(
        MirrorRequest(
            image=image_path,
            connection=_connect(destination, options),
            is_forced=options.is_forced,
            is_in_place=options.is_in_place,
            is_verified=options.is_verified,
            allow_live=options.allow_live,
            is_dry=is_dry,
            pace=None if options.bandwidth is None else Throttle(StoreOptions(bandwidth=options.bandwidth)),
            cache_folder=cache_folder,
            progress=progress or NoProgress(),
        )
    )


def recover_mirror(destination: str, options: MirrorOptions | None = None) -> str:
    """Undo what a mirror that was cut has begun, or finish one that was complete; return what was done.

    That is undone, finished, removed or nothing.
    """
    options = options or MirrorOptions()
    validate(options)
    return recover_copy(_connect(destination, options))


def serve_mirror() -> None:
    """Be the side with the copy, over the standard input and output."""
    serve(0, 1, __version__)


def _connect(destination: str, options: MirrorOptions) -> Connection:
    return Connection(parse_destination(destination), options.ssh_command, options.remote_command)
