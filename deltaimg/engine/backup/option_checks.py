# SPDX-License-Identifier: Apache-2.0
"""Are the options of a backup valid?"""

from __future__ import annotations

from deltaimg.errors import UsageError
from deltaimg.format.annotation import TAGS_HINT, find_remark_problem, find_tag_problem
from deltaimg.format.limits import MAX_TAGS
from deltaimg.options.backup import BackupOptions
from deltaimg.options.definition import validate


def check_options(options: BackupOptions) -> None:
    """Raise UsageError where an option has a value that is not valid."""
    validate(options)
    if len(options.tags) > MAX_TAGS:
        raise UsageError(f"{len(options.tags)} tags: a snapshot can have {MAX_TAGS}")
    for tag in options.tags:
        if problem := find_tag_problem(tag):
            raise UsageError(f"tag {tag[:60]!r} {problem}", hint=TAGS_HINT)
    if problem := find_remark_problem(options.comment):
        raise UsageError(f"comment {problem}")
