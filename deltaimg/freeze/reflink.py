# SPDX-License-Identifier: Apache-2.0
"""A clone of an image file that shares its blocks (FICLONE): XFS, btrfs, and network file systems that pass it on.

The file system writes out what waits in the page cache and clones in one step, during which nothing can write to the image: a
millisecond for a contiguous file, some tens of them for one in many pieces.

The clone has no name (O_TMPFILE), so that nothing is left of a process that was killed. Where a file system cannot do that, it
is called `.<image>.deltaimg.<host>-<random>.partial`, and the next backup of the same image removes it: see `image.temporary`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from deltaimg.errors import FreezeFailed
from deltaimg.freeze.interface import FreezeRequest, Held, Unfrozen
from deltaimg.freeze.methods import REFLINK
from deltaimg.image.cloning import clone_content
from deltaimg.image.temporary import TemporaryFile

_NO_REFLINKS = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)
_PARTIAL_NAME = ".{name}.deltaimg"


class ReflinkFreezer:
    """Clones an image file beside it."""

    name = REFLINK

    def remove_leftovers(self, paths: Sequence[str]) -> list[str]:  # noqa: ARG002
        """Return nothing: making a clone removes those of dead processes."""
        return []

    def check(self, request: FreezeRequest) -> None:
        """Clone the file; the clone has no name, and is gone at once."""
        clone_file(request.path).close()

    @contextmanager
    def hold(self, request: FreezeRequest) -> Iterator[Held]:
        """Clone the file; the clone is gone at the end."""
        clone = clone_file(request.path)
        try:
            yield Unfrozen(f"/proc/self/fd/{clone.descriptor}")
        finally:
            clone.close()


def clone_file(path: str) -> TemporaryFile:
    """Return a clone of a regular file, with no name yet, in its folder; raises FreezeFailed."""
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    try:
        source = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise FreezeFailed(path, f"cannot be read: {_explain(error)}") from error
    try:
        clone = TemporaryFile(os.path.join(folder, _PARTIAL_NAME.format(name=name)), 0o600)
    except OSError as error:
        os.close(source)
        raise FreezeFailed(path, f"cannot be cloned beside itself: {_explain(error)}") from error
    try:
        clone_content(real, source, clone.descriptor)
    except OSError as error:
        clone.close()
        raise FreezeFailed(path, _describe(error)) from error
    except BaseException:
        clone.close()
        raise
    finally:
        os.close(source)
    return clone


def _describe(error: OSError) -> str:
    if error.errno in _NO_REFLINKS:
        return "cannot be cloned: its file system has no reflinks, as XFS and btrfs have"
    return f"cannot be cloned: {_explain(error)}"


def _explain(error: OSError) -> str:
    return os.strerror(error.errno or 0)
