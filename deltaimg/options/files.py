# SPDX-License-Identifier: Apache-2.0
"""Options of `signature`, `delta` and `patch`, which work on files without a repository."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.options.definition import flag, option
from deltaimg.options.values import SIZE, choice

FORMATS = ("deltaimg", "rdiff", "vcdiff")
_FORMAT = choice(FORMATS, "FORMAT")
_FORMATS_HELP = (
    "'deltaimg' is compressed, sparse and verified; 'rdiff' and 'vcdiff' are for the rdiff and xdelta3 programs at the "
    "other end."
)
_FORCE = "Replace an existing file."


@dataclass(frozen=True, slots=True)
class SignatureOptions:
    """How a signature is made."""

    format: str = option(
        "deltaimg", _FORMAT, "'deltaimg', or 'rdiff' for the rdiff program at the other end. VCDIFF has no signatures."
    )
    block_bytes: int | None = option(
        None,
        SIZE,
        "Finer blocks: smaller deltas, a larger signature.",
        "--block-size",
        "-b",
        default_text="from the size of OLD",
    )
    is_forced: bool = flag(_FORCE, "--force", "-f")


@dataclass(frozen=True, slots=True)
class DeltaOptions:
    """How a delta is written."""

    format: str = option("deltaimg", _FORMAT, _FORMATS_HELP)
    is_forced: bool = flag(_FORCE, "--force", "-f")


@dataclass(frozen=True, slots=True)
class PatchOptions:
    """How a new file is made of an old one."""

    format: str = option("deltaimg", _FORMAT, _FORMATS_HELP)
    is_forced: bool = flag("Replace an existing file; write to a block device.", "--force", "-f")
    is_synced: bool = flag("Wait until a new file is on the disk.", "--sync")
