# SPDX-License-Identifier: Apache-2.0
"""Options of commands about groups of images and guests."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.options.definition import option
from deltaimg.options.values import ValueType

_NAME = ValueType("NAME", str)
_FOLDER = ValueType("FOLDER", str, str, lambda text: None if text else "it has no name")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """What is backed up together."""

    group: str | None = option(
        None,
        _NAME,
        "Back up several images of one moment, all or none, as NAME.disk0 and so on: name them as disk0=IMAGE.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRestoreOptions:
    """What is restored together, and where it goes."""

    into: str | None = option(
        None,
        _FOLDER,
        "Restore all disks of a group into this folder, or onto the volumes of this group, under the names that they had.",
    )
