# SPDX-License-Identifier: Apache-2.0
"""Names that say which process made a thing, so that another one can tell whether it is left over.

    deltaimg-<host, 8 digits>.<boot, 8 digits>.<process, see processes.name_process>

A process of another boot of this host is dead, and so is one of this boot that the process table no longer has. Whatever else
made a thing (another host on shared storage, another container) may be alive, and what it made stays.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from deltaimg.processes import ProcessPlace, find_own_place, is_named_dead, name_own_process

PREFIX = "deltaimg-"
_NAME = re.compile(
    re.escape(PREFIX) + r"(?P<host>[0-9a-f]{8})\.(?P<boot>[0-9a-f]{8})\.(?P<process>[0-9a-f]{16}-\d+-\d+)"
)


def name_owner() -> str:
    """Return the name of this process: letters, digits, dots and dashes, 70 characters at most."""
    host, boot = _describe(find_own_place())
    return f"{PREFIX}{host}.{boot}.{name_own_process()}"


def is_left_over(text: str) -> bool:
    """Return whether `text` begins with the name of a process that is known to be dead."""
    match = _NAME.match(text)
    if match is None:
        return False
    place = find_own_place()
    host, boot = _describe(place)
    is_of_earlier_boot = bool(place.boot_id and place.machine) and match["host"] == host and match["boot"] != boot
    return is_of_earlier_boot or is_named_dead(match["process"])


def _describe(place: ProcessPlace) -> tuple[str, str]:
    return _digest(f"{place.host}\0{place.machine}"), _digest(place.boot_id)


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogateescape"), digest_size=4).hexdigest()
