# SPDX-License-Identifier: Apache-2.0
"""What users write after `-r`: today the folder of a repository, and nothing that could be meant as an address."""

from __future__ import annotations

from deltaimg.errors import UsageError


def parse_address(location: str) -> str:
    """Return the folder that `location` names; raises UsageError where it looks like an address, or names nothing.

    `sftp://host/path`, `s3:bucket`, `host:/path` and the like must never become folders of that name. A folder with a colon in
    its name can be given as `./s3:bucket`.
    """
    if not location or "\0" in location:
        raise UsageError("no repository named" if not location else "the repository's name has a zero byte in it")
    first = location.partition("/")[0]
    if ":" in first or location.startswith("\\\\"):
        raise UsageError(
            f"{location}: looks like an address; a repository is a folder of this machine",
            hint=f"mount that place, and name the folder; a folder of this very name is './{location}'",
        )
    if first.startswith("~"):
        raise UsageError(
            f"{location}: '~' was not expanded: only a shell does that, and only at the beginning of a word",
            hint=f"write out the path; a folder of this very name is './{location}'",
        )
    return location
