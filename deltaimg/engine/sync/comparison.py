# SPDX-License-Identifier: Apache-2.0
"""Is what was sent in the destination? All of it is listed, and the store's digests, a sample, or a read of all say more.

    sample    an object whose digest the store tells, which is that of what was sent, is verified. One with another digest is
              read whole. Of all others some are read, by chance.
    all       every object is read, whatever the store tells

What is read is compared with the digest that is its name, or, of manifests, with its checksum; so the source is not read again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from deltaimg.engine.progress import Progress, stage
from deltaimg.errors import IntegrityError, ObjectNotFound, RepositoryDamaged
from deltaimg.model import MIB
from deltaimg.repo.keys import check_size, digest_of, expect_kind, is_named_by_digest
from deltaimg.repo.objects import Objects
from deltaimg.repo.pack_reader import digest_object
from deltaimg.repo.repository import Repository

_SAMPLE_SHARE = 0.05
_LEAST_BYTES = 16 * MIB
"""Read back in any case, as far as there is so much that the store does not vouch for."""
_DAMAGED_SHARE = 0.01


class Compared(Struct, frozen=True):
    """How what was sent was verified, in objects."""

    objects: int = 0
    """All that were sent, and found under their names. Not counted between families, where bytes are."""
    digest_objects: int = 0
    """Verified by the digest that the store has of what it received."""
    read_objects: int = 0
    """Read back and verified because all were to be, or because the store has another digest of them."""
    sampled_objects: int = 0
    """Read back and verified by chance."""
    listed_objects: int = 0
    """Those of which it is only known that they are there."""
    read_bytes: int = 0

    def detects(self, damaged_share: float = _DAMAGED_SHARE) -> float:
        """Return how likely it was that damage would be found, of this share of the objects that were not verified otherwise.

        At least one of them counts as damaged.
        """
        count = self.sampled_objects + self.listed_objects
        damaged = max(1, round(count * damaged_share))
        if not self.listed_objects or damaged > self.listed_objects:
            return 1.0
        missed = 1.0
        for place in range(damaged):
            missed *= (self.listed_objects - place) / (count - place)
        return 1.0 - missed


class _Found(Struct):
    """What a listing says of what was sent."""

    sizes: dict[str, int] = field(default_factory=dict)
    verified: list[str] = field(default_factory=list)
    suspect: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def compare(
    repository: Repository, sent: Sequence[str], *, reads_all: bool, progress: Progress, chance: random.Random
) -> Compared:
    """Compare what a run has sent with what is there.

    Args:
        sent: names of objects, put after `Objects.note_digests`. reads_all: read all of them back, not a sample.

    Raises:
        RepositoryDamaged: something is missing or has other bytes.
    """
    found = _look_up(repository, sent)
    if reads_all:
        whole, sampled = found.verified + found.suspect + found.unknown, list[str]()
    else:
        whole, sampled = found.suspect, _choose_sample(found.unknown, found.sizes, chance)
    read = whole + sampled
    read_bytes = sum(found.sizes[name] for name in read)
    bad = [name for name in sent if name not in found.sizes]
    with stage(progress, "reading back", read_bytes):
        for name in read:
            if not _is_whole(repository.objects, name, found.sizes[name]):
                bad.append(name)
            progress.advance(found.sizes[name])
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        problem = f"{bad[0]}{more} did not arrive as it was sent"
        raise RepositoryDamaged(
            repository.objects.location, problem, hint="'deltaimg repair --from' the source recovers it"
        )
    return Compared(
        objects=len(sent),
        digest_objects=0 if reads_all else len(found.verified),
        read_objects=len(whole),
        sampled_objects=len(sampled),
        listed_objects=0 if reads_all else len(found.unknown) - len(sampled),
        read_bytes=read_bytes,
    )


def _look_up(repository: Repository, sent: Sequence[str]) -> _Found:
    wanted, found = frozenset(sent), _Found()
    by_answer = {True: found.verified, False: found.suspect, None: found.unknown}
    for folder in sorted({name.partition("/")[0] + "/" for name in sent}):
        for each in repository.objects.list(folder):
            if each.name in wanted:
                found.sizes[each.name] = each.size_bytes
                by_answer[each.is_as_sent].append(each.name)
    return found


def _is_whole(objects: Objects, name: str, size_bytes: int) -> bool:
    try:
        check_size(name, size_bytes)
        if is_named_by_digest(name):
            return digest_object(objects, name, size_bytes) == digest_of(name)
        objects.get(expect_kind(name), name)
    except (IntegrityError, ObjectNotFound):
        return False
    return True


def _choose_sample(names: list[str], sizes: Mapping[str, int], chance: random.Random) -> list[str]:
    """Return some objects by chance, of at least a share of the bytes; the small ones are in it as often as the large."""
    wanted_bytes = max(_LEAST_BYTES, _SAMPLE_SHARE * sum(sizes[name] for name in names))
    chosen, chosen_bytes = [], 0
    for name in chance.sample(names, len(names)):
        if chosen_bytes >= wanted_bytes:
            break
        chosen.append(name)
        chosen_bytes += sizes[name]
    return chosen
