# SPDX-License-Identifier: Apache-2.0
"""What this host keeps between backups."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deltaimg.describe.parts import describe_time

if TYPE_CHECKING:
    from deltaimg.engine.backup.cache_folder import CachedImage


def find_last_use(image: CachedImage) -> datetime:
    """Return when a backup last used what is kept of an image."""
    return datetime.fromtimestamp(image.used_s, UTC)


def describe_cached_image(image: CachedImage, *, is_leftover: bool) -> dict[str, object]:
    """Return for programs what is kept of one image."""
    return {
        "repository": image.location,
        "repository_id": image.repository_id,
        "image": image.image,
        "index_bytes": image.anchor_bytes,
        "content_bytes": image.content_bytes,
        "is_leftover": is_leftover,
        **describe_time("used", find_last_use(image)),
    }
