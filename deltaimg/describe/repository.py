# SPDX-License-Identifier: Apache-2.0
"""A new repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltaimg.format.config import Config


def describe_repository(location: str, config: Config) -> dict[str, object]:
    """Return the object that `init --json` prints."""
    return {
        "repository": location,
        "id": config.repository_id,
        "family": config.family_id,
        "encryption": config.encryption,
        "padding": config.padding,
    }
