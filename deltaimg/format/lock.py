# SPDX-License-Identifier: Apache-2.0
"""`locks/<scope>`: who is at work; `locks/.alive-<token>`: that they still are.

A lock is written once and never again by its holder, so that one that was removed stays removed. What its holder renews is a
heartbeat beside it: the same document, counted on.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from deltaimg.format.documents import build_document, parse_document
from deltaimg.format.framing import Kind
from deltaimg.format.limits import MAX_LOCK_BYTES

LOCKS = "locks/"
MAINTENANCE_LOCK = f"{LOCKS}.maintenance"
"""No image name begins with a dot."""
READER_LOCKS = f"{LOCKS}.reader-"
HEARTBEATS = f"{LOCKS}.alive-"


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


def build_lock(lock: Lock) -> bytes:
    """Return a lock object."""
    return build_document(Kind.LOCK, lock)


def parse_lock(data: bytes, name: str) -> Lock:
    """Read a lock object; raises IntegrityError or UnsupportedFormat."""
    return parse_document(Kind.LOCK, name, data, Lock, max_bytes=MAX_LOCK_BYTES)
