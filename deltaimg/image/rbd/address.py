# SPDX-License-Identifier: Apache-2.0
"""Where an image of Ceph is, as users and the program `rbd` write it.

rbd:vms/vm1                    the image vm1 in the pool vms
rbd:vms/customer7/vm1          in a namespace of the pool
rbd:vms/vm1@monday             its snapshot monday
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from deltaimg.errors import UsageError

SCHEME = "rbd:"
_FORM = (
    "write rbd:POOL/IMAGE, rbd:POOL/NAMESPACE/IMAGE, or with @SNAPSHOT; CEPH_CONF and CEPH_ARGS name cluster and user"
)


class RbdAddress(Struct, frozen=True):
    """An image, or one of its snapshots."""

    pool: str
    namespace: str
    """Empty for that which every pool has."""
    image: str
    snapshot: str = ""
    """Empty for the image as it is now."""

    @property
    def spec(self) -> str:
        """As the program `rbd` takes it."""
        return "/".join(filter(None, (self.pool, self.namespace, self.image))) + ("@" + self.snapshot) * bool(
            self.snapshot
        )

    @property
    def location(self) -> str:
        """As users name it."""
        return SCHEME + self.spec

    def at(self, snapshot: str) -> RbdAddress:
        """Return the address of a snapshot of the image; that of the image itself for an empty name."""
        return replace(self, snapshot=snapshot)


def is_rbd_address(text: str) -> bool:
    """Return whether a text is meant to be the address of an image of Ceph, valid or not."""
    return text.startswith(SCHEME)


def parse_rbd_address(location: str) -> RbdAddress:
    """Return what an address means; raises UsageError where it is not valid."""
    spec, at, snapshot = location.removeprefix(SCHEME).partition("@")
    parts = spec.split("/")
    if len(parts) not in (2, 3) or not all(parts) or bool(at) != bool(snapshot):
        raise UsageError(f"{location}: names no image of a pool", hint=_FORM)
    if "\0" in location or "@" in snapshot or "/" in snapshot:
        raise UsageError(f"{location}: names no possible image", hint=_FORM)
    return RbdAddress(parts[0], parts[1] if len(parts) == 3 else "", parts[-1], snapshot)
