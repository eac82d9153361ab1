# SPDX-License-Identifier: Apache-2.0
"""Addresses of buckets: `s3://bucket/prefix?option=value&…`, the same for every kind of object storage.

Always  an address has no secrets: one with a user or a password in it is refused, and is not repeated in the error.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from deltaimg.errors import UsageError
from deltaimg.store.interface import check_object_name

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_ENDPOINT = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?/?")


class BucketAddress(Struct, frozen=True):
    """A place in object storage, as the user named it."""

    location: str
    bucket: str
    prefix: str
    """Of the names of objects, without slashes around it; empty for the whole bucket."""
    options: dict[str, str]

    @property
    def short(self) -> str:
        """The bucket for messages about the address itself, whose options may have in them what they should not."""
        return f"{self.location.partition('://')[0]}://{self.bucket}"


def parse_bucket_address(location: str, options: Collection[str]) -> BucketAddress:
    """Read an address; raises UsageError.

    Args:
        options: those that this kind of storage takes.
    """
    url = urlsplit(location)
    if "@" in url.netloc:
        raise UsageError(
            f"{url.scheme}://…: an address has no credentials in it: it would be shown in lists of processes, and in logs",
            hint="put them into environment variables or a profile: docs/offsite.md",
        )
    if not _BUCKET.fullmatch(url.netloc):
        raise UsageError(
            f"{url.scheme}://{url.netloc}: is no name of a bucket", hint=f"write {url.scheme}://BUCKET/PREFIX"
        )
    if url.fragment:
        raise UsageError(f"{url.scheme}://{url.netloc}: has a '#' in it", hint="write it as %23")
    prefix = unquote(url.path).strip("/")
    if prefix:
        check_object_name(prefix)
    found: dict[str, str] = {}
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        # The value of an unknown option may be a secret.
        if name not in options:
            raise UsageError(
                f"{url.scheme}://{url.netloc}: there is no option '{name[:40]}'", hint=f"there are {', '.join(options)}"
            )
        if not value or name in found:
            raise UsageError(f"{url.scheme}://{url.netloc}: '{name}' has no value, or more than one")
        found[name] = value
    return BucketAddress(location, url.netloc, prefix, found)


def check_endpoint(where: str, endpoint: str) -> str:
    """Return the URL of a server without a slash at its end; raises UsageError for what is none."""
    if not _ENDPOINT.fullmatch(endpoint):
        raise UsageError(
            f"{where}: the endpoint is no URL of a server",
            hint="write https://HOST or https://HOST:PORT, without a path",
        )
    return endpoint.rstrip("/")


def read_certificates(where: str, path: str) -> bytes:
    """Return the certificates in a file; raises UsageError where there are none."""
    try:
        with open(path, "rb") as file:
            data = file.read(1 << 22)
    except OSError as error:
        raise UsageError(f"{where}: the certificates in {path} cannot be read: {error.strerror}") from error
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise UsageError(f"{where}: {path} has no certificate in it", hint="it must be in the PEM format")
    return data
