# SPDX-License-Identifier: Apache-2.0
"""The image in a qcow2 file, or in another format that qemu reads, as an image source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from deltaimg.errors import ImageError
from deltaimg.image.nbd.client import Client
from deltaimg.image.nbd.connection import NbdFailure
from deltaimg.image.nbd.handshake import negotiate
from deltaimg.image.nbd.source import NbdSource, name_contexts
from deltaimg.image.qemu.chain import describe_chain
from deltaimg.image.qemu.server import QemuServer
from deltaimg.image.uses import find_writer
from deltaimg.image.write_watch import FileWatch


class QemuSource(NbdSource):
    """The image in a file, which a qemu-nbd of our own serves. What else is done to the file is seen as with a flat one."""

    is_device = False

    def __init__(
        self, path: str, client: Client, resources: ExitStack, descriptor: int, *, use_holes: bool, is_salvaging: bool
    ) -> None:
        """Args: resources: closed by `close`, after the client. descriptor: of the file itself. Raises OSError."""
        self._watch = FileWatch(descriptor, os.fstat(descriptor).st_size)
        super().__init__(path, client, use_holes=use_holes, is_salvaging=is_salvaging)
        self._resources, self._descriptor = resources, descriptor

    def find_writer(self) -> str | None:
        """Return what uses the file and may write to it; a qemu that does so would have kept it from being opened."""
        return find_writer(self._descriptor)

    def find_change(self) -> str | None:
        """Return how the file was changed since it was opened; None if it was not. Raises ImageError."""
        try:
            return self._watch.find_change()
        except OSError as error:
            raise ImageError(self.path, f"cannot be examined again: {os.strerror(error.errno or 0)}") from error

    def close(self) -> None:
        """Close the connection, upon which the server ends."""
        self._watch.close()
        super().close()
        self._resources.close()


def open_file(
    path: str,
    shown: str,
    driver: str,
    *,
    bitmaps: Sequence[str] = (),
    use_holes: bool = True,
    is_direct: bool = False,
    is_salvaging: bool = False,
) -> QemuSource:
    """Open the image in a file, with the files that it lies over.

    Args:
        path: what to open. shown: what it is called, and where names of backing files begin. driver: its format, by qemu's
        name. bitmaps: dirty bitmaps in it to ask for. use_holes, is_direct, is_salvaging: see `open_source`.

    Raises:
        ImageInUse: a qemu that may write to it has it open. ImageError: it cannot be read.
    """
    options = describe_chain(path, shown, driver, is_direct=is_direct)
    with ExitStack() as resources:
        server = QemuServer(shown, options, bitmaps)
        resources.callback(server.stop)
        resources.callback(server.connection.close)
        try:
            contexts = name_contexts(bitmaps, use_holes=use_holes)
            client = Client(server.connection, negotiate(server.connection, "", contexts))
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            resources.callback(os.close, descriptor)
            kept = ExitStack()
            source = QemuSource(shown, client, kept, descriptor, use_holes=use_holes, is_salvaging=is_salvaging)
            kept.push(resources.pop_all())
            return source
        except NbdFailure as failure:
            raise server.explain() or ImageError(shown, failure.problem, hint=failure.hint) from failure
        except OSError as error:
            raise ImageError(shown, f"cannot be read: {os.strerror(error.errno or 0)}") from error
