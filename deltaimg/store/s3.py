# SPDX-License-Identifier: Apache-2.0
"""S3 and what speaks its language: from an address and the usual settings of AWS to a store.

    s3://bucket/prefix                                       Amazon S3
    s3://bucket/prefix?endpoint=https://host:port            another server
    …&region=…&style=virtual&profile=…&ca=/path/of/ca.pem    as needed

Credentials are never in an address. They are looked for as AWS's own tools do: environment, profile, then the role of a
container or of an instance, which obstore asks for itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from deltaimg.errors import PermissionDenied, StoreUnusable, UsageError
from deltaimg.store.aws_profile import Credentials, Profile, load_profile
from deltaimg.store.bucket_address import BucketAddress, check_endpoint, parse_bucket_address, read_certificates
from deltaimg.store.interface import Store
from deltaimg.store.object_storage import Connections, ObjectStorage
from deltaimg.store.object_storage_errors import ObjectStorageErrors
from deltaimg.store.retrying import RetryingStore

OPTIONS = ("endpoint", "region", "style", "profile", "ca")
CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for a profile in ~/.aws: docs/offsite.md"
)
CONNECT = timedelta(seconds=10)
SILENT_READ = timedelta(seconds=60)
SLOW_WRITE = timedelta(minutes=20)
"""The parts in flight at 0.25 Mbit/s."""
NO_RETRIES: dict[str, Any] = {"max_retries": 0, "retry_timeout": timedelta(minutes=20)}
"""`RetryingStore` retries: it finds out what a lost answer was about."""
PART_RETRIES: dict[str, Any] = {
    "max_retries": 4,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {"init_backoff": timedelta(milliseconds=250), "max_backoff": timedelta(seconds=5), "base": 2},
}
"""A part may be sent twice; whether one that fails for longer is worth more tries, `RetryingStore` finds out."""


def open_s3(location: str, _writer: Callable[[], str]) -> Store:
    """Return the store at an address; raises UsageError, StoreUnusable or PermissionDenied. Nothing is requested yet."""
    address = parse_bucket_address(location, OPTIONS)
    profile = load_profile(address.options.get("profile"))
    config, host = _configure(address, profile)
    credentials = _find_credentials(address, profile)
    client = _client_options(address, config.get("endpoint", ""))
    errors = ObjectStorageErrors(location, address.bucket, host, credentials_hint=CREDENTIALS_HINT)

    def connect(proxy_url: str | None) -> Connections:
        through = {} if proxy_url is None else {"proxy_url": proxy_url}
        return _connect(address, config | credentials, client | through)

    return RetryingStore(ObjectStorage(location, connect, errors))


def _configure(address: BucketAddress, profile: Profile) -> tuple[dict[str, Any], str]:
    """Return what obstore is to know of server and region, and the server's name for messages."""
    environment = os.environ.get
    endpoint = (
        address.options.get("endpoint")
        or environment("AWS_ENDPOINT_URL_S3")
        or environment("AWS_ENDPOINT_URL")
        or profile.get("endpoint_url")
    )
    region = (
        address.options.get("region")
        or environment("AWS_REGION")
        or environment("AWS_DEFAULT_REGION")
        or profile.get("region")
        or "us-east-1"
    )
    style = address.options.get("style", "path" if endpoint else "virtual")
    if style not in ("path", "virtual"):
        raise UsageError(f"{address.short}: the style is neither 'path' nor 'virtual'")
    config: dict[str, Any] = {
        "region": region,
        "virtual_hosted_style_request": style == "virtual",
        "conditional_put": "etag",
        "checksum_algorithm": "SHA256",  # Amazon wants one for a bucket with Object Lock.
    }
    if not endpoint:
        return config, f"Amazon S3 in {region}"
    endpoint = check_endpoint(address.short, endpoint)
    host = urlsplit(endpoint).netloc
    if style == "virtual":
        endpoint = endpoint.replace("://", f"://{address.bucket}.", 1)
    return config | {"endpoint": endpoint}, host


def _find_credentials(address: BucketAddress, profile: Profile) -> dict[str, Any]:
    """Return the credentials for obstore; nothing where it is to look for them itself."""
    has_keys = "AWS_ACCESS_KEY_ID" in os.environ and "AWS_SECRET_ACCESS_KEY" in os.environ
    if "profile" not in address.options and (has_keys or "AWS_WEB_IDENTITY_TOKEN_FILE" in os.environ):
        return {}
    profile.check_login()
    if profile.has_credentials:
        first: Credentials | None = profile.load_credentials()

        def provide() -> Credentials:
            nonlocal first
            given, first = first, None
            return given or profile.load_credentials()

        return {"credential_provider": provide}
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true" and not _is_container():
        raise PermissionDenied(address.short, "there are no credentials", hint=CREDENTIALS_HINT)
    return {}


def _is_container() -> bool:
    return any(f"AWS_CONTAINER_CREDENTIALS_{kind}_URI" in os.environ for kind in ("RELATIVE", "FULL"))


def _client_options(address: BucketAddress, endpoint: str) -> dict[str, Any]:
    options: dict[str, Any] = {"connect_timeout": CONNECT, "allow_http": endpoint.startswith("http://")}
    authority = address.options.get("ca") or os.environ.get("AWS_CA_BUNDLE")
    if authority:
        options["root_certificate"] = read_certificates(address.short, authority)
    return options


def _connect(address: BucketAddress, config: dict[str, Any], client: dict[str, Any]) -> Connections:
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise StoreUnusable("s3", "obstore", "s3") from error

    def connect(timeouts: dict[str, timedelta], **changes: Any) -> Any:
        options: dict[str, Any] = {"client_options": client | timeouts, "retry_config": NO_RETRIES}
        return S3Store(address.bucket, prefix=address.prefix or None, **(options | config | changes))

    patient = {"timeout": SLOW_WRITE}
    return Connections(
        reads=connect({"read_timeout": SILENT_READ, "timeout": SLOW_WRITE}, disable_bulk_delete=True),
        writes=connect(patient),
        parts=connect(patient, retry_config=PART_RETRIES),
        bulk_deletes=connect(patient),
    )
