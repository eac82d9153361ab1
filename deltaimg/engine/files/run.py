# SPDX-License-Identifier: Apache-2.0
"""Sign, compare and patch files: opens what is read, and gives what is written its name once it is whole.

Always  no device is written to that is read from.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from deltaimg.engine.files.interface import DeltaResult, PatchResult, SignatureResult
from deltaimg.engine.files.registry import DIRECT_FORMATS, find_format, find_signature_format
from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.errors import UsageError
from deltaimg.image.source import STREAM, Source, open_source
from deltaimg.image.target import Target, open_target


def sign(
    old: str,
    signature: str,
    *,
    format_name: str = "deltaimg",
    block_bytes: int | None = None,
    is_forced: bool = False,
    progress: Progress | None = None,
) -> SignatureResult:
    """Write the signature of the file `old` to `signature`; `-` is the standard input or output.

    Raises:
        UsageError, ImageError: a bad option; a file that cannot be read or written.
    """
    chosen = find_signature_format(format_name)
    _refuse_overwriting(signature, old)
    with _source(old) as source, _target(signature, is_forced=is_forced) as target:
        return chosen.sign(source, Output(target), block_bytes=block_bytes, progress=progress or NoProgress())


def make_delta(
    signature: str,
    new: str,
    delta: str,
    *,
    format_name: str = "deltaimg",
    is_forced: bool = False,
    progress: Progress | None = None,
) -> DeltaResult:
    """Write to `delta` what makes `new` of the file that `signature` was made of; or is itself, in formats without signatures.

    Raises:
        UsageError, ImageError: a bad option; a file that cannot be read or written.
        IntegrityError, UnsupportedFormat: `signature` is damaged, or of another format.
    """
    _refuse_overwriting(delta, signature, new)
    direct = DIRECT_FORMATS.get(format_name)
    if direct is not None:
        _refuse_stream(signature)
        with _source(signature) as old, _source(new) as source, _target(delta, is_forced=is_forced) as target:
            return direct.compare(old, source, Output(target), progress=progress or NoProgress())
    chosen = find_signature_format(format_name)
    if signature == new == STREAM:
        raise UsageError("the signature and the new file cannot both be the standard input")
    with Input(signature) as read, _source(new) as source, _target(delta, is_forced=is_forced) as target:
        return chosen.make_delta(read, source, Output(target), progress=progress or NoProgress())


def patch(
    old: str,
    delta: str,
    new: str,
    *,
    format_name: str = "deltaimg",
    is_forced: bool = False,
    is_synced: bool = False,
    progress: Progress | None = None,
) -> PatchResult:
    """Write to `new` what `delta` makes of `old`, holes kept; the file gets its name once it is whole, and proven if it can be.

    Raises:
        UsageError, ImageError: a bad option; a file that cannot be read or written. WrongOldFile: `old` is another file.
        IntegrityError, UnsupportedFormat: `delta` is damaged, or of another format.
    """
    chosen = find_format(format_name)
    _refuse_stream(old)
    _refuse_overwriting(new, old, delta)
    with (
        _source(old) as source,
        Input(delta) as read,
        _target(new, is_forced=is_forced, is_synced=is_synced) as target,
    ):
        return chosen.patch(source, read, target, progress=progress or NoProgress())


def _refuse_stream(old: str) -> None:
    if old == STREAM:
        raise UsageError("the old file is read here and there, so it cannot be the standard input")


def _refuse_overwriting(target: str, *read: str) -> None:
    """A file is replaced once the new one is whole; a device is written to while what is there is still read."""
    for path in read:
        try:
            is_same = stat.S_ISBLK(os.stat(target).st_mode) and os.stat(target).st_rdev == os.stat(path).st_rdev
        except (OSError, ValueError):
            continue  # what is wrong with them is told when they are opened
        if is_same:
            raise UsageError(f"{target} is a device that is read here, and cannot be written to at the same time")


@contextmanager
def _source(path: str) -> Iterator[Source]:
    source = open_source(path)
    try:
        yield source
    finally:
        source.close()


@contextmanager
def _target(path: str, *, is_forced: bool, is_synced: bool = False) -> Iterator[Target]:
    """Open a target; commit it at the end, or leave nothing behind."""
    target = open_target(path, 0, is_forced=is_forced, is_synced=is_synced)
    try:
        yield target
        target.commit()
    except BaseException:
        target.abort()
        raise
