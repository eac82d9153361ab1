# SPDX-License-Identifier: Apache-2.0
"""What every fuzz target and the property tests share: parse, and check the result.

A parser may return a value or raise a `DeltaimgError`; anything else is a defect. So is a value that does not survive being
written and read again, or runs that the kernels, which trust the parser, refuse.

Targets hand over whole objects whose checksums are right: bytes that fail at a checksum find nothing behind it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from deltaimg.arrays import empty_runs
from deltaimg.errors import DeltaimgError
from deltaimg.format.manifest import Manifest
from deltaimg.format.map import MapObject
from deltaimg.kernels import overlay_runs
from tests.golden.kinds import KINDS, PackContent
from tests.golden.samples import SAMPLES

NAMES = {kind: next(iter(cases.values()))[0] for kind, cases in SAMPLES.items()}
"""The object name that each kind is parsed under."""


def fingerprint(value: Any) -> Any:
    """Return something equal for equal values, at the cost of a copy."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, msgspec.Struct):
        return tuple(fingerprint(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return [fingerprint(each) for each in value]
    return value


def exercise(kind: str, data: bytes, name: str | None = None) -> Any:
    """Return what `data` says, or None when it was refused as it should be; raises what would be a defect."""
    name = name or NAMES[kind]
    try:
        value = KINDS[kind].parse(data, name)
    except DeltaimgError as error:
        if not str(error).isprintable() and name.isprintable():
            raise ValueError(f"a message that is not printable: {str(error)!a}") from error
        return None
    if isinstance(value, PackContent):
        # A footer may leave records out, and gaps between them; what was walked over is written and read again.
        again = KINDS[kind].parse(KINDS[kind].build(value), name)
        assert fingerprint(again.records) == fingerprint(value.records), "a pack is not rebuilt as it was read"
        return value
    again = KINDS[kind].parse(KINDS[kind].build(value), name)
    assert fingerprint(again) == fingerprint(value), f"a {kind} is not rebuilt as it was read"
    if isinstance(value, MapObject):
        overlay_runs(empty_runs(), value.runs)
    if isinstance(value, Manifest):
        assert value.object_name == name
        assert value.taken_at
    return value


def run(target: Callable[[bytes], None]) -> None:
    """Hand the process over to atheris: `target` is called with inputs until the limits on the command line are reached."""
    import atheris

    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
