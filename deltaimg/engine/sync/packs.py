# SPDX-License-Identifier: Apache-2.0
"""How records travel: in whole packs where most of a pack is wanted, else gathered into new ones.

A whole pack keeps its name, which is the digest of its bytes. So a run finds those that an earlier one sent and did not live to
index, and only indexes them; `repair --from` finds them in either repository. A pack that is gathered gets a name that follows
from what is in it, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum

from msgspec import Struct

from deltaimg.arrays import group_by
from deltaimg.engine.record_copies import payload_bytes
from deltaimg.ids import EntryNumbers
from deltaimg.model import KIB
from deltaimg.repo.index import StoredContent

_UNWANTED_SHARE, _UNWANTED_BYTES = 0.1, 16 * KIB
"""A pack of which no more than this is unwanted, whichever is more, is sent as it is."""


class PackChoice(Enum):
    """How the wanted records of a pack travel."""

    WHOLE = "whole"
    PRESENT = "present"
    """The destination has the pack, and its index lacks these records."""
    GATHERED = "gathered"


class WantedPack(Struct, frozen=True):
    """A pack of the source of which records are wanted."""

    name: str
    """Its digest."""
    choice: PackChoice
    entries: EntryNumbers
    """The wanted records, in order of offset."""
    sent_bytes: int


def choose_packs(
    source: StoredContent,
    destination: StoredContent,
    packs: Mapping[str, int],
    wanted: EntryNumbers,
    *,
    is_alike: bool,
) -> Iterator[WantedPack]:
    """Yield the packs that have the wanted records, in the order of the source's index.

    Args:
        is_alike: whether both seal alike; otherwise all records are gathered.
        packs: sizes of the packs that the destination has by now, by digest.
    """
    index = source.index
    for number, places in group_by(index.entries["pack"][wanted]):
        name, entries = index.packs[number], wanted[places]
        entries = EntryNumbers(entries[index.entries["offset"][entries].argsort()])
        wanted_bytes, size_bytes = int(payload_bytes(index.entries[entries]).sum()), source.pack_bytes[name]
        if not is_alike or name in destination.pending_packs or packs.get(name, size_bytes) != size_bytes:
            choice, sent_bytes = (
                PackChoice.GATHERED,
                wanted_bytes,
            )  # Its name would be another, or it goes, or is damaged there.
        elif name in packs:
            choice, sent_bytes = PackChoice.PRESENT, 0
        elif size_bytes - wanted_bytes <= max(_UNWANTED_SHARE * size_bytes, _UNWANTED_BYTES):
            choice, sent_bytes = PackChoice.WHOLE, size_bytes
        else:
            choice, sent_bytes = PackChoice.GATHERED, wanted_bytes
        yield WantedPack(name, choice, entries, sent_bytes)
