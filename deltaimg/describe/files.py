# SPDX-License-Identifier: Apache-2.0
"""Signature, delta and patch of single files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import asdict

if TYPE_CHECKING:
    from deltaimg.engine.files.interface import DeltaResult, PatchResult, SignatureResult


def describe_file(result: SignatureResult | DeltaResult | PatchResult, format_name: str) -> dict[str, object]:
    """Return for programs what was written, in which format: a field for each of the result."""
    return {"format": format_name, **asdict(result)}
