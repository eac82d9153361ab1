# SPDX-License-Identifier: Apache-2.0
"""`locks/<scope>/<time>-<token>`: a claim to a lock; `locks/.reader-<token>`: a reader; `locks/.alive-<token>`: a heartbeat.

A lock is written once, under a name that is used once, so that one that was removed stays removed. What its holder renews is
the heartbeat: the same document, counted on.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from deltaimg.format.documents import build_document, parse_document
from deltaimg.format.framing import Kind
from deltaimg.format.limits import MAX_LOCK_BYTES

LOCKS = "locks/"
MAINTENANCE_SCOPE = ".maintenance"
"""Beside the names of images, none of which begins with a dot."""
READER_LOCKS = f"{LOCKS}.reader-"
HEARTBEATS = f"{LOCKS}.alive-"
TOKEN_DIGITS = 16
"""Every name of a lock or heartbeat ends in a token of so many hexadecimal digits."""
_CLAIM = re.compile(r"locks/(?P<scope>[^/]+)/[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-(?P<token>[0-9a-f]{16})")


class Lock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The process that holds a lock.

    Where these are this host, boot and PID namespace, the process table may show that it has ended.
    """

    owner: str
    host: str
    boot_id: str
    pid: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    process_start: Annotated[int, msgspec.Meta(ge=0)]
    created: str
    purpose: str
    token: str
    machine: str = ""
    """Distinguishes hosts of the same name."""
    namespace: str = ""
    """Of process numbers: containers of one host have several."""
    renewals: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0


def name_claim(scope: str, time: str, token: str) -> str:
    """Return the name in the store of a claim to the lock of `scope`: an image, or `MAINTENANCE_SCOPE`.

    Args:
        time: in the form of a manifest's; names sort by it.
    """
    return f"{name_claims(scope)}{time}-{token}"


def name_claims(scope: str) -> str:
    """Return the folder of the claims to the lock of `scope`, with its slash."""
    return f"{LOCKS}{scope}/"


def split_claim_name(name: str) -> tuple[str, str] | None:
    """Return scope and token of a claim's name, None for any other name."""
    match = _CLAIM.fullmatch(name)
    return (match["scope"], match["token"]) if match else None


def build_lock(lock: Lock) -> bytes:
    """Return a lock object."""
    return build_document(Kind.LOCK, lock)


def parse_lock(data: bytes, name: str) -> Lock:
    """Read a lock object; raises IntegrityError or UnsupportedFormat."""
    return parse_document(Kind.LOCK, name, data, Lock, max_bytes=MAX_LOCK_BYTES)
