# SPDX-License-Identifier: Apache-2.0
"""One file brought to where another is, without a repository."""

from __future__ import annotations

from deltaimg.engine.files.interface import DeltaResult, PatchResult, SignatureResult
from deltaimg.engine.files.run import make_delta, patch, sign
from deltaimg.engine.progress import Progress


def sign_file(
    old_path: str,
    signature_path: str,
    *,
    format_name: str = "deltaimg",
    block_bytes: int | None = None,
    is_forced: bool = False,
    progress: Progress | None = None,
) -> SignatureResult:
    """Write the signature of a file, by which `delta_file` finds out elsewhere what is new in another. No repository needed.

    Args:
        format_name: `deltaimg`, or `rdiff` for the program of that name; `vcdiff` has no signatures. Paths may be `-`, here
            and below.
        block_bytes: the finer, the smaller deltas and the larger signatures are; chosen from the file's size where not given.
        is_forced: replace an existing file.
    """
    return sign(
        old_path,
        signature_path,
        format_name=format_name,
        block_bytes=block_bytes,
        is_forced=is_forced,
        progress=progress,
    )


def delta_file(
    signature_path: str,
    new_path: str,
    delta_path: str,
    *,
    format_name: str = "deltaimg",
    is_forced: bool = False,
    progress: Progress | None = None,
) -> DeltaResult:
    """Write what makes the file at `new_path` of the one that the signature is of.

    Args:
        signature_path: with `vcdiff`, which is for the program `xdelta3`, the old file itself.
    """
    return make_delta(
        signature_path, new_path, delta_path, format_name=format_name, is_forced=is_forced, progress=progress
    )


def patch_file(
    old_path: str,
    delta_path: str,
    new_path: str,
    *,
    format_name: str = "deltaimg",
    is_forced: bool = False,
    is_synced: bool = False,
    progress: Progress | None = None,
) -> PatchResult:
    """Write the new file that a delta makes of the old one; it gets its name once it is proven, where the format can prove it.

    Raises:
        WrongOldFile: the file at `old_path` is not the one that the signature was made of.
    """
    return patch(
        old_path,
        delta_path,
        new_path,
        format_name=format_name,
        is_forced=is_forced,
        is_synced=is_synced,
        progress=progress,
    )
