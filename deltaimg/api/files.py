# SPDX-License-Identifier: Apache-2.0
"""Signature, delta and patch of single files, without a repository."""

from __future__ import annotations

from deltaimg.engine.files.interface import DeltaResult, PatchResult, SignatureResult
from deltaimg.engine.files.run import make_delta, patch, sign
from deltaimg.engine.progress import Progress
from deltaimg.options.definition import validate
from deltaimg.options.files import DeltaOptions, PatchOptions, SignatureOptions


def sign_file(
    old_path: str,
    signature_path: str,
    options: SignatureOptions | None = None,
    *,
    progress: Progress | None = None,
) -> SignatureResult:
    """Write the signature of a file, by which `delta_file` finds out elsewhere what is new in another. No repository needed.

    Paths may be `-`, here and below.
    """
    options = options or SignatureOptions()
    validate(options)
    return sign(
        old_path,
        signature_path,
        format_name=options.format,
        block_bytes=options.block_bytes,
        is_forced=options.is_forced,
        progress=progress,
    )


def delta_file(
    signature_path: str,
    new_path: str,
    delta_path: str,
    options: DeltaOptions | None = None,
    *,
    progress: Progress | None = None,
) -> DeltaResult:
    """Write what makes the file at `new_path` of the one that the signature is of.

    Args:
        signature_path: with `vcdiff`, which is for the program `xdelta3`, the old file itself.
    """
    options = options or DeltaOptions()
    validate(options)
    return make_delta(
        signature_path,
        new_path,
        delta_path,
        format_name=options.format,
        is_forced=options.is_forced,
        progress=progress,
    )


def patch_file(
    old_path: str,
    delta_path: str,
    new_path: str,
    options: PatchOptions | None = None,
    *,
    progress: Progress | None = None,
) -> PatchResult:
    """Write the new file that a delta makes of the old one; it gets its name once it is verified, where the format allows that.

    Raises:
        WrongOldFile: the file at `old_path` is not the one that the signature was made of.
    """
    options = options or PatchOptions()
    validate(options)
    return patch(
        old_path,
        delta_path,
        new_path,
        format_name=options.format,
        is_forced=options.is_forced,
        is_synced=options.is_synced,
        progress=progress,
    )
