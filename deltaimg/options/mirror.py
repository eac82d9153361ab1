# SPDX-License-Identifier: Apache-2.0
"""Options of `mirror`."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.options.bandwidth import BANDWIDTH, Bandwidth
from deltaimg.options.definition import flag, option
from deltaimg.options.values import ValueType

DEFAULT_SSH = "ssh"
DEFAULT_REMOTE = "deltaimg"
_COMMAND = ValueType("COMMAND", str, str, lambda text: None if text.strip() else "it is empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorOptions:
    """How a copy of an image is brought up to date."""

    ssh_command: str = option(
        DEFAULT_SSH, _COMMAND, "How the host is reached, such as 'ssh -p 2222 -i KEY'.", "--ssh", "-e"
    )
    remote_command: str = option(DEFAULT_REMOTE, _COMMAND, "How deltaimg is called on that host.")
    bandwidth: Bandwidth | None = option(
        None,
        BANDWIDTH,
        "At most this many bytes a second: 10M, 10M:1M (up:down), or a timetable such as '08:00,512K 19:00,10M 23:00,off'.",
        "--bwlimit",
        environment="DELTAIMG_BWLIMIT",
    )
    is_verified: bool = flag("Read all of the copy at the end, and compare it; what was sent always is.", "--verify")
    is_in_place: bool = flag("Do not make a clone of the copy, even where its file system can.", "--in-place")
    allow_live: bool = flag("Mirror an image that something may write to.", "--allow-live")
    is_forced: bool = flag(
        "Overwrite a file or block device that is no mirror yet; by an image of which little is left, too.",
        "--force",
        "-f",
    )
