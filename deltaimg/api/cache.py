# SPDX-License-Identifier: Apache-2.0
"""What this host keeps beside repositories, so that its next backups are faster and smaller."""

from __future__ import annotations

import os
from collections.abc import Sequence

from deltaimg.engine.backup.cache_folder import CachedImage, CacheFolder
from deltaimg.errors import CacheError, DeltaimgError, RepositoryNotFound
from deltaimg.repo.objects import Objects
from deltaimg.repo.repository import Repository
from deltaimg.store.metadata_cache import MetadataCache
from deltaimg.store.open import open_store
from deltaimg.store.pack_cache import PackCache


def find_cache_folder() -> str | None:
    """Return where this user's cache is: `$XDG_CACHE_HOME/deltaimg` or `~/.cache/deltaimg`; None without a home folder."""
    home = os.path.expanduser("~")
    root = os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if os.path.isdir(home) else "")
    return os.path.join(root, "deltaimg") if os.path.isabs(root) else None


def list_cache(folder: str) -> list[CachedImage]:
    """Return what the cache in `folder` holds of each image, by repository and name."""
    return CacheFolder(folder).list_images()


def is_leftover(cached: CachedImage) -> bool:
    """Whether there is no repository any more where that of a cached image was, or another one."""
    if cached.location is None:
        return True
    try:
        store = open_store(cached.location)
        try:
            return Repository.read_config(store).repository_id != cached.repository_id
        finally:
            store.close()
    except RepositoryNotFound:
        return True
    except DeltaimgError:
        # A server that does not answer now may have it.
        return "://" not in cached.location


def resolve_location(location: str) -> str:
    """Return what `CachedImage.location` is for a repository; raises UsageError where it is no location."""
    return Objects(open_store(location)).absolute_location


def measure_metadata(folder: str) -> int:
    """Return how many bytes the cache in `folder` holds of metadata in remote repositories."""
    return MetadataCache(folder).measure()


def clean_metadata(folder: str) -> int:
    """Remove what the cache holds of metadata in remote repositories; return how many bytes that were."""
    return MetadataCache(folder).clear()


def measure_packs(folder: str) -> int:
    """Return how many bytes of the disk packs of remote repositories take in the cache in `folder`."""
    return PackCache(folder).measure()


def clean_packs(folder: str) -> int:
    """Remove what the cache holds of packs of remote repositories; return how many bytes that were."""
    return PackCache(folder).clear()


def clean_cache(folder: str, images: Sequence[CachedImage]) -> int:
    """Remove what the cache holds of images, as `list_cache` returned them; return how many bytes that were."""
    try:
        return CacheFolder(folder).remove(images)
    except OSError as error:
        raise CacheError(folder, os.strerror(error.errno or 0)) from error
