# SPDX-License-Identifier: Apache-2.0
"""Addresses as other programs write them, and what they are here: those of restic, borg, scp and rsync.

Source  "Preparing a new repository" of restic's manual, "Repository URLs" of borg's, scp(1).
"""

from __future__ import annotations

import re

_AMAZON = "s3.amazonaws.com"
_SSH_URL = re.compile(r"(?:ssh|sftp)://(?P<host>[^/]+)(?P<path>/.*)", re.IGNORECASE)
_SFTP = re.compile(r"(?:sftp:)?(?P<host>(?:[^/:@]+@)?[^/:@]+):(?!//)(?P<path>.*)")
_S3 = re.compile(r"s3:(?P<scheme>https?://)?(?P<rest>[^/].*)", re.IGNORECASE)
_CLOUD = re.compile(r"(?P<kind>gs|azure):(?P<bucket>[^:/]+):/?(?P<prefix>.*)", re.IGNORECASE)
_OF_OTHERS = ("b2", "rclone", "rest", "swift", "local", "http", "https", "file", "rbd", "nbd")
"""What restic has in front of other kinds, and what is no host either."""


def suggest_address(location: str) -> str | None:
    """Return the address here of what another program would take `location` for; None if there is none."""
    if found := _CLOUD.fullmatch(location):
        scheme = {"gs": "gs", "azure": "az"}[found["kind"].lower()]
        return f"{scheme}://{found['bucket']}/{found['prefix']}"
    if found := _S3.fullmatch(location):
        return _suggest_bucket(found["scheme"] or "", found["rest"])
    if found := _SSH_URL.fullmatch(location):
        return f"sftp://{found['host']}{found['path']}"
    if (found := _SFTP.fullmatch(location)) and found["host"].lower() not in _OF_OTHERS and found["path"]:
        path = found["path"] if found["path"].startswith("/") else f"/./{found['path']}"
        return f"sftp://{found['host']}{path}"
    return None


def _suggest_bucket(scheme: str, rest: str) -> str:
    """Return the address of a bucket that restic has as `s3:https://HOST/BUCKET/PREFIX` or `s3:HOST/BUCKET/PREFIX`."""
    host, _, path = rest.partition("/")
    if not scheme and "." not in host and ":" not in host:
        return f"s3://{rest}"
    path = path.rstrip("/") or "BUCKET/PREFIX"
    return f"s3://{path}" if host == _AMAZON else f"s3://{path}?endpoint={scheme or 'https://'}{host}"
