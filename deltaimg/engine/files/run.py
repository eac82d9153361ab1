# SPDX-License-Identifier: Apache-2.0
"""Sign, compare and patch files: opens what is read, and gives what is written its name once it is whole.

Always  nothing is written to that is read from: not the file itself, whatever it is called, nor a device that it lies on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deltaimg.engine.files.interface import DeltaResult, PatchResult, SignatureResult
from deltaimg.engine.files.registry import DIRECT_FORMATS, find_format, find_signature_format
from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.errors import SourceChanged, UsageError
from deltaimg.image.block_devices import identify, share_storage, stat_quietly
from deltaimg.image.open_source import STREAM, is_stream, open_source
from deltaimg.image.open_target import STDOUT, open_target
from deltaimg.image.source import ImageSource
from deltaimg.image.target import ImageTarget


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
    progress = progress or NoProgress()
    with (
        _source(old, progress) as source,
        _target(signature, [source], progress, is_forced=is_forced) as target,
    ):
        return chosen.sign(source, Output(target), block_bytes=block_bytes, progress=progress)


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
    progress = progress or NoProgress()
    direct = DIRECT_FORMATS.get(format_name)
    if direct is not None:
        with (
            _seekable_source(signature, progress) as old,
            _source(new, progress) as source,
            _target(delta, [old, source], progress, is_forced=is_forced) as target,
        ):
            return direct.compare(old, source, Output(target), progress=progress)
    chosen = find_signature_format(format_name)
    if signature == new == STREAM:
        raise UsageError("the signature and the new file cannot both be the standard input")
    with (
        Input(signature) as read,
        _source(new, progress) as source,
        _target(delta, [source], progress, is_forced=is_forced) as target,
    ):
        return chosen.make_delta(read, source, Output(target), progress=progress)


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
    """Write to `new` what `delta` makes of `old`, holes kept; the file gets its name once it is complete (and verified).

    Raises:
        UsageError, ImageError: a bad option; a file that cannot be read or written. WrongOldFile: `old` is another file.
        IntegrityError, UnsupportedFormat: `delta` is damaged, or of another format.
    """
    chosen = find_format(format_name)
    _refuse_overwriting(new, old, delta)
    progress = progress or NoProgress()
    with (
        _seekable_source(old, progress) as source,
        Input(delta) as read,
        _target(new, [source], progress, is_forced=is_forced, is_synced=is_synced) as target,
    ):
        return chosen.patch(source, read, target, progress=progress)


def _refuse_overwriting(target: str, *read: str) -> None:
    """Raise UsageError where a command would write to what it reads, by whatever names."""
    for path in read:
        written, source = 1 if target == STDOUT else target, 0 if path == STREAM else path
        if share_storage(written, source):
            relation = "it is" if identify(written) == identify(source) else "it shares its storage with"
            raise UsageError(
                f"{target}: cannot be written: {relation} {path}, which is read here", hint="write to a new file"
            )


def _refuse_changed(source: ImageSource) -> None:
    change = source.find_change()
    if change is not None:
        raise SourceChanged(source.path, change, hint="freeze it first, or stop its guest")


@contextmanager
def _source(path: str, progress: Progress) -> Iterator[ImageSource]:
    source = open_source(path)
    try:
        writer = source.find_writer()
        if writer is not None:
            progress.warn(f"{path}: is {writer}; what is read of it may be inconsistent")
        yield source
    finally:
        source.close()


@contextmanager
def _seekable_source(path: str, progress: Progress) -> Iterator[ImageSource]:
    found = stat_quietly(path)
    if path == STREAM or (found is not None and is_stream(path, found.st_mode)):
        name = "the standard input" if path == STREAM else f"{path}, a pipe"
        raise UsageError(
            f"the old file is read here and there, so it cannot be {name}", hint="write it to a file first"
        )
    with _source(path, progress) as source:
        yield source


@contextmanager
def _target(
    path: str, sources: list[ImageSource], progress: Progress, *, is_forced: bool, is_synced: bool = False
) -> Iterator[ImageTarget]:
    """Open a target; commit it at the end, if none of the sources was written to meanwhile, or leave nothing behind."""
    target = open_target(path, 0, is_forced=is_forced, is_synced=is_synced)
    try:
        yield target
        for source in sources:
            _refuse_changed(source)
        target.commit()
    except BaseException:
        target.abort()
        raise
    for warning in target.warnings:
        progress.warn(warning)
