# SPDX-License-Identifier: Apache-2.0
"""Manifests that write-only hosts sealed: which of them a holder of the secret takes, and vouches for in a roster.

A write-only host can seal any manifest, of any image, so also one for the place of another. So the roster of an image has, of
each snapshot that such a host made, the digest of the manifest as a holder of the secret saw it first. From then on no other
is taken.

Always  one that no roster has is taken while the host's key slot is there, and no roster says that the key was removed.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from contextlib import suppress

from msgspec import Struct, field

from deltaimg.errors import ObjectNotFound
from deltaimg.format.framing import digest_bytes
from deltaimg.format.key_slot import KEYS
from deltaimg.format.roster import Roster
from deltaimg.format.sealing import find_host
from deltaimg.repo.objects import Objects


class Vouched(Struct, frozen=True):
    """What is found of manifests of write-only hosts."""

    digests: dict[str, str] = field(default_factory=dict)
    """digest-16 of the stored bytes of each that is taken, by the id of its snapshot."""
    refused: set[str] = field(default_factory=set)
    """The ids of the others."""


def list_hosts(objects: Objects) -> set[str]:
    """Return the ids of all key slots, those of write-only hosts among them."""
    return {found.name.removeprefix(KEYS) for found in objects.list(KEYS)}


def find_refusal(roster: Roster | None, snapshot: str, data: bytes, hosts: Container[str]) -> str | None:
    """Return why a manifest that a write-only host sealed is not taken, None if it is.

    Args:
        roster: the newest of its image. snapshot: its id. data: its stored bytes. hosts: what `list_hosts` returns.
    """
    host = find_host(data).hex()
    if roster is not None and snapshot in (*roster.snapshots, *roster.unsettled):
        recorded = roster.find_written(snapshot)
        if recorded is None:
            return f"is sealed by the write-only host {host[:8]}, and was not when it was recorded: it was exchanged"
        if recorded != digest_bytes(data).hex():
            return f"is not what the write-only host {host[:8]} had stored when it was recorded: it was exchanged"
        return None
    if host not in hosts or (roster is not None and host in roster.removed):
        return f"was stored by the write-only host {host[:8]} after its key was removed"
    return None


def vouch(objects: Objects, roster: Roster | None, manifests: Iterable[tuple[str, str]]) -> Vouched:
    """Read manifests that the next roster is to have, and return what it says of those of write-only hosts.

    Args:
        roster: the newest so far. manifests: the id of each snapshot, and the name of its manifest.
    """
    found, hosts = Vouched(), None
    for snapshot, name in manifests:
        with suppress(ObjectNotFound):  # in quarantine
            data = objects.get_bytes(name)
            if not find_host(data):
                continue
            hosts = list_hosts(objects) if hosts is None else hosts
            if find_refusal(roster, snapshot, data, hosts) is None:
                found.digests[snapshot] = digest_bytes(data).hex()
            else:
                found.refused.add(snapshot)
    return found
