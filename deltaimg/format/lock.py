# SPDX-License-Identifier: Apache-2.0
"""`locks/<scope>`: who is at work. The only objects that come and go; all others are written once."""

from __future__ import annotations

from typing import Annotated

import msgspec

from deltaimg.format.documents import build_document, parse_document
from deltaimg.format.framing import Kind

LOCKS = "locks/"


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds a lock.

    Host, boot and process start time together tell whether the process still runs, as long as one asks on that host.
    """

    owner: str
    host: str
    boot_id: str
    pid: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    process_start: Annotated[int, msgspec.Meta(ge=0)]
    created: str
    purpose: str
    token: str


def build_lock(lock: Lock) -> bytes:
    """Return a lock object."""
    return build_document(Kind.LOCK, lock)


def parse_lock(data: bytes, name: str) -> Lock:
    """Read a lock object; raises IntegrityError or UnsupportedFormat."""
    return parse_document(Kind.LOCK, name, data, Lock)
