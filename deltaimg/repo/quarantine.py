# SPDX-License-Identifier: Apache-2.0
"""Damaged objects, moved or copied below `quarantine/`: nothing that is damaged is deleted, and no reader reads it again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from deltaimg.errors import IntegrityError, ObjectExists, ObjectNotFound, StoreError
from deltaimg.repo.keys import QUARANTINE
from deltaimg.repo.objects import Objects


def move_to_quarantine(objects: Objects, name: str) -> None:
    """Move a damaged object to `quarantine/`, with a number after its name if that is taken there."""
    with suppress(ObjectNotFound):
        _name_in_quarantine(name, lambda new_name: objects.move(name, new_name))


def copy_to_quarantine(objects: Objects, name: str, data: bytes) -> None:
    """Copy the bytes of a damaged object to `quarantine/`, unless they are there; the object itself stays.

    They are where a repair ended between this and what it did next. One that has no room would else take more at every try.
    """

    def give(new_name: str) -> None:
        with suppress(IntegrityError, StoreError):
            if objects.get_bytes(new_name) == data:
                return
        objects.put_bytes(new_name, [data])

    _name_in_quarantine(name, give)


def _name_in_quarantine(name: str, give: Callable[[str], object]) -> None:
    """Call `give` with names under `quarantine/` until one is free."""
    for number in range(1, 1000):
        with suppress(ObjectExists):
            give(f"{QUARANTINE}{name}" + (f".{number}" if number > 1 else ""))
            return
    raise StoreError(name, "was moved to quarantine a thousand times", hint="inspect the quarantine, and empty it")
