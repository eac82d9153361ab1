# SPDX-License-Identifier: Apache-2.0
"""A snapshot of an image of Ceph, whoever has the image open: a virtual machine, a mapped device.

It is called `<process, see owner.name_owner>-<random>`, so that the next backup of the image removes those of dead processes.
One that change tracking keeps gets another name.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct

from deltaimg.errors import FreezeFailed, ImageError
from deltaimg.freeze.interface import FreezeRequest, Held
from deltaimg.freeze.methods import RBD
from deltaimg.freeze.owner import is_left_over, name_owner
from deltaimg.image.rbd.address import RbdAddress, is_rbd_address, parse_rbd_address
from deltaimg.image.rbd.image import RbdSnapshot, opened_rbd_image
from deltaimg.image.rbd.library import RbdFailure


class HeldSnapshot(Struct, frozen=True):
    """A snapshot that is there."""

    address: RbdAddress
    used_bytes: int = 0

    @property
    def path(self) -> str:
        """Its address."""
        return self.address.location

    def find_failure(self) -> str | None:
        """Return that it has gone: then anything may have been read. Raises FreezeFailed where Ceph does not say."""
        try:
            with opened_rbd_image(self.address.at("")) as image:
                is_there = any(each.name == self.address.snapshot for each in image.list_snapshots())
        except RbdFailure as failure:
            raise FreezeFailed(self.path, failure.problem, hint=failure.hint) from failure
        return None if is_there else f"its snapshot {self.address.snapshot} was removed"


class RbdFreezer:
    """Makes a snapshot of an image. Where the image cannot be opened, it cannot be read either: that is an ImageError."""

    name = RBD

    def remove_leftovers(self, paths: Sequence[str]) -> list[str]:
        """Remove the snapshots of dead processes; raises ImageError where an image cannot be opened."""
        removed: list[str] = []
        for path in filter(is_rbd_address, paths):
            address, snapshots = _list_snapshots(path)
            with suppress(RbdFailure):
                remove_snapshots(address, [each.name for each in snapshots if is_left_over(each.name)], removed)
        return removed

    def check(self, request: FreezeRequest) -> None:
        """Find the image; raises ImageError where there is none."""
        _find_image(request.path)

    @contextmanager
    def hold(self, request: FreezeRequest) -> Iterator[Held]:
        """Snapshot the image; the snapshot is removed at the end."""
        held = HeldSnapshot(_find_image(request.path).at(f"{name_owner()}-{secrets.token_hex(4)}"))
        try:
            try:
                with opened_rbd_image(held.address.at(""), is_writable=True) as image:
                    image.create_snapshot(held.address.snapshot)
            except RbdFailure as failure:
                raise FreezeFailed(request.path, failure.problem, hint=failure.hint) from failure
            yield held
        finally:
            # One that could not be removed is found by the next backup. One that is kept has another name by now.
            with suppress(RbdFailure, ImageError):
                _, snapshots = _list_snapshots(request.path)
                remove_snapshots(held.address, [each.name for each in snapshots if each.name == held.address.snapshot])


def remove_snapshots(address: RbdAddress, names: list[str], removed: list[str] | None = None) -> None:
    """Remove snapshots of an image, as far as that is possible; raises RbdFailure where the image cannot be opened.

    Args:
        removed: takes the addresses of those that are gone.
    """
    if not names:
        return
    with opened_rbd_image(address.at(""), is_writable=True) as image:
        for name in names:
            with suppress(RbdFailure):
                image.remove_snapshot(name)
                if removed is not None:
                    removed.append(address.at(name).location)


def _find_image(path: str) -> RbdAddress:
    """Return the address of an image that can be frozen; raises FreezeFailed, and ImageError where there is none."""
    if not is_rbd_address(path):
        raise FreezeFailed(path, f"is no image of Ceph, so that --freeze {RBD} cannot be used")
    address, _ = _list_snapshots(path)
    if address.snapshot:
        raise FreezeFailed(path, "is a snapshot already, which nothing writes to", hint="leave --freeze out")
    return address


def _list_snapshots(path: str) -> tuple[RbdAddress, list[RbdSnapshot]]:
    """Return the address of an image, and its snapshots; raises ImageError."""
    address = parse_rbd_address(path)
    try:
        with opened_rbd_image(address.at("")) as image:
            return address, image.list_snapshots()
    except RbdFailure as failure:
        raise ImageError(path, failure.problem, hint=failure.hint) from failure
