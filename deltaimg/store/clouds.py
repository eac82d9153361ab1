# SPDX-License-Identifier: Apache-2.0
"""Object storage of Google and of Azure, as obstore brings it.

gs://bucket/prefix        credentials by GOOGLE_APPLICATION_CREDENTIALS, or the service account of an instance
az://container/prefix     AZURE_STORAGE_ACCOUNT_NAME, and a key, a token or an identity as obstore's documents have them
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from deltaimg.errors import PermissionDenied, StoreUnusable
from deltaimg.store.bucket_address import BucketAddress, parse_bucket_address
from deltaimg.store.interface import Store
from deltaimg.store.object_storage import Connections, ObjectStorage
from deltaimg.store.object_storage_errors import ObjectStorageErrors
from deltaimg.store.retrying import RetryingStore
from deltaimg.store.s3 import CONNECT, NO_RETRIES, PART_RETRIES, SILENT_READ, SLOW_WRITE


def open_google(location: str, _writer: Callable[[], str]) -> Store:
    """Return the store at an address; raises UsageError, StoreUnusable or PermissionDenied. Nothing is requested yet."""
    address = parse_bucket_address(location, ())
    try:
        from obstore.store import GCSStore
    except ImportError as error:
        raise StoreUnusable("gs", "obstore", "s3") from error
    hint = "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account: docs/offsite.md"
    return _open(address, lambda options: GCSStore(address.bucket, **options), "Google Cloud Storage", hint)


def open_azure(location: str, _writer: Callable[[], str]) -> Store:
    """Return the store at an address; raises UsageError, StoreUnusable or PermissionDenied. Nothing is requested yet."""
    address = parse_bucket_address(location, ())
    try:
        from obstore.store import AzureStore
    except ImportError as error:
        raise StoreUnusable("az", "obstore", "s3") from error
    hint = "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY: docs/offsite.md"
    return _open(address, lambda options: AzureStore(address.bucket, **options), "Azure Blob Storage", hint)


def _open(address: BucketAddress, connect: Callable[[dict[str, Any]], Any], host: str, hint: str) -> Store:
    def connect_with(
        timeouts: dict[str, timedelta], proxy_url: str | None, retries: dict[str, Any] = NO_RETRIES
    ) -> Any:
        through = {} if proxy_url is None else {"proxy_url": proxy_url}
        options = {
            "prefix": address.prefix or None,
            "client_options": {"connect_timeout": CONNECT} | timeouts | through,
            "retry_config": retries,
        }
        try:
            return connect(options)
        except Exception:  # noqa: BLE001  what obstore says of settings may show them
            raise PermissionDenied(address.short, "its credentials are missing or not valid", hint=hint) from None

    def connect_all(proxy_url: str | None) -> Connections:
        reads = connect_with({"read_timeout": SILENT_READ, "timeout": SLOW_WRITE}, proxy_url)
        patient = {"timeout": SLOW_WRITE}
        writes, parts = connect_with(patient, proxy_url), connect_with(patient, proxy_url, PART_RETRIES)
        return Connections(reads, writes, parts, None)

    errors = ObjectStorageErrors(address.location, address.bucket, host, credentials_hint=hint)
    return RetryingStore(ObjectStorage(address.location, connect_all, errors))
