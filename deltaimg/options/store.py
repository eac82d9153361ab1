# SPDX-License-Identifier: Apache-2.0
"""Options of everything that uses a repository: how its store may be used, and where its key is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deltaimg.errors import UsageError
from deltaimg.options.bandwidth import BANDWIDTH, Bandwidth
from deltaimg.options.definition import option
from deltaimg.options.values import ValueType, format_size, parse_size

_REQUESTS = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)/(s|min|h)", re.ASCII)
_UNIT_S = {"s": 1.0, "min": 60.0, "h": 3600.0}


def parse_requests(text: str) -> float:
    """Return the requests a second that `30/s`, `600/min` or `1000/h` means; raises UsageError."""
    match = _REQUESTS.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"--max-requests '{text[:40]}': is no number of requests a time", hint="write 30/s or 600/min")
    return float(match[1]) / _UNIT_S[match[2]]


def _format_requests(rate: float) -> str:
    return f"{rate:g}/s"


def _parse_cache_size(text: str) -> int:
    return 0 if text == "none" else parse_size(text)


def _format_cache_size(size_bytes: int) -> str:
    return format_size(size_bytes) if size_bytes else "none"


_CACHE_SIZE = ValueType(
    "SIZE", _parse_cache_size, _format_cache_size, lambda size: None if size >= 0 else "it must not be below 0"
)
_PATH = ValueType("FILE", str, str, lambda text: None if text else "it is empty")


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a repository's store may be used, and where the key of an encrypted one is; each key that is given is tried."""

    bandwidth: Bandwidth | None = option(
        None,
        BANDWIDTH,
        "At most this many bytes a second to and from the repository: 10M, 10M:1M (up:down), or a timetable such as "
        "'08:00,512K 19:00,10M 23:00,off'.",
        "--bwlimit",
        environment="DELTAIMG_BWLIMIT",
    )
    max_requests: float | None = option(
        None,
        ValueType("N/s", parse_requests, _format_requests, lambda rate: None if rate > 0 else "it must be above 0"),
        "At most this many requests a second to the repository: 30/s, 600/min.",
        environment="DELTAIMG_MAX_REQUESTS",
    )
    pack_cache_bytes: int | None = option(
        None,
        _CACHE_SIZE,
        "What packs of repositories on other hosts may take in the cache of this one, so that backups need not read them "
        "back; or none.",
        "--pack-cache",
        default_text="5G, or a tenth of the free space",
        environment="DELTAIMG_PACK_CACHE",
    )
    passphrase_file: str | None = option(
        None,
        _PATH,
        "The passphrase of an encrypted repository is the first line of this file.",
        environment="DELTAIMG_PASSPHRASE_FILE",
    )
    passphrase_command: str | None = option(
        None,
        ValueType("COMMAND", str, str, lambda text: None if text.strip() else "it is empty"),
        "The passphrase is the first line that this command prints.",
        environment="DELTAIMG_PASSPHRASE_COMMAND",
    )
    key_file: str | None = option(
        None, _PATH, "The key file of an encrypted repository.", environment="DELTAIMG_KEY_FILE"
    )
