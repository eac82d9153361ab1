# SPDX-License-Identifier: Apache-2.0
"""The formats of signatures and deltas by name."""

from __future__ import annotations

from deltaimg.engine.files.deltaimg_format import DeltaimgFormat
from deltaimg.engine.files.interface import DirectFormat, PatchFormat, SignatureFormat
from deltaimg.engine.files.rdiff import RdiffFormat
from deltaimg.engine.files.vcdiff import VcdiffFormat
from deltaimg.errors import UsageError

SIGNATURE_FORMATS: dict[str, SignatureFormat] = {each.name: each for each in (DeltaimgFormat(), RdiffFormat())}
DIRECT_FORMATS: dict[str, DirectFormat] = {each.name: each for each in (VcdiffFormat(),)}
FORMATS: dict[str, PatchFormat] = {**SIGNATURE_FORMATS, **DIRECT_FORMATS}


def find_format(name: str) -> PatchFormat:
    """Return the format of this name; raises UsageError."""
    try:
        return FORMATS[name]
    except KeyError:
        raise UsageError(f"there is no format '{name}'", hint=f"there are {', '.join(FORMATS)}") from None


def find_signature_format(name: str) -> SignatureFormat:
    """Return the format of this name; raises UsageError where there is none, or none with signatures."""
    if find_format(name).name in DIRECT_FORMATS:
        raise UsageError(
            f"the format '{name}' has no signatures",
            hint=f"compare the files themselves: deltaimg delta --format {name} OLD NEW DELTA",
        )
    return SIGNATURE_FORMATS[name]
