# SPDX-License-Identifier: Apache-2.0
"""Options of `sync`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from deltaimg.errors import UsageError
from deltaimg.options.definition import flag, option
from deltaimg.options.keep import Span, parse_span
from deltaimg.options.values import TEXT, ValueType, choice, count, parse_time

DEFAULT_MAX_DELETE = 20
VERIFY_MODES = ("none", "sample", "all")


def _parse_since(text: str) -> datetime | Span:
    try:
        return parse_span(text.strip())
    except UsageError:
        pass
    try:
        return parse_time(text)
    except UsageError as error:
        raise UsageError(
            f"'{text[:60]}' is no time and no span", hint="write 2026-11-23, 2026-11-23T02:30Z, 30d or 6m"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """Which snapshots are copied, and in which order."""

    images: tuple[str, ...] = option(
        (),
        ValueType("NAME", str),
        "Only snapshots of this image; repeatable.",
        "--image",
        is_repeatable=True,
        default_text="all images",
    )
    snapshots: tuple[str, ...] = option(
        (),
        ValueType("SNAPSHOT", str),
        "Only this snapshot, or of a group all disks of that moment: vm1, vm1@latest~2, web1@2026-11-23, or an id; repeatable.",
        "--snapshot",
        is_repeatable=True,
        default_text="all",
    )
    with_tags: tuple[str, ...] = option(
        (), TEXT, "Only those with this tag; given several times, with all of them.", "--tag", "-t", is_repeatable=True
    )
    since: datetime | Span | None = option(
        None,
        ValueType("TIME", _parse_since),
        "Only those taken since then: 2026-11-23, or a span back from now such as 30d.",
        default_text="all",
    )
    ignores_parity: bool = flag("Do not copy parity.", "--no-parity")
    verify: str = option(
        "none",
        choice(VERIFY_MODES, "HOW"),
        "sample: compare what was sent with the digests that the store tells; where it tells none, read a part of it back, by "
        "chance; all: read all of it back; none: trust the store.",
    )
    newest_first: bool = flag("Copy the newest snapshot of each image first, then back in time.")
    delete: bool = flag("Then forget in the destination what the source has forgotten, of images that are copied.")
    max_delete: int = option(
        DEFAULT_MAX_DELETE, count(0, 10**9), "Forget nothing where --delete would forget more than N snapshots."
    )
