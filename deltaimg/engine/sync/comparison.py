# SPDX-License-Identifier: Apache-2.0
"""Is what was sent in the destination? All of it is listed with its size, and a sample, or all, is read back.

Objects that are named by the digest of their bytes are compared with their names; so the source is not read again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deltaimg.engine.progress import Progress, stage
from deltaimg.errors import IntegrityError, ObjectNotFound, RepositoryDamaged
from deltaimg.model import MIB
from deltaimg.repo.keys import check_size, digest_of, is_named_by_digest
from deltaimg.repo.pack_reader import digest_object
from deltaimg.repo.repository import Repository

_SAMPLE_SHARE = 0.05
_LEAST_BYTES = 16 * MIB
"""Read back in any case, as far as there is so much."""


@dataclass(frozen=True, slots=True)
class Compared:
    """How many objects were found, and how many bytes of them were read back."""

    objects: int = 0
    read_bytes: int = 0


def compare(
    repository: Repository, sent: Sequence[str], *, reads_all: bool, progress: Progress, chance: random.Random
) -> Compared:
    """Compare what a run has sent with what is there.

    Args:
        sent: names of objects. reads_all: read all of them back, not a sample.

    Raises:
        RepositoryDamaged: something is missing or has other bytes.
    """
    sizes = _list_sizes(repository, sent)
    bad = [name for name in sent if name not in sizes]
    chosen = [name for name in sent if name in sizes and is_named_by_digest(name)]
    if not reads_all:
        chosen = _choose_sample(chosen, sizes, chance)
    with stage(progress, "reading back", sum(sizes[name] for name in chosen)):
        for name in chosen:
            try:
                check_size(name, sizes[name])
                if digest_object(repository.objects, name, sizes[name]) != digest_of(name):
                    bad.append(name)
            except (IntegrityError, ObjectNotFound):
                bad.append(name)
            progress.advance(sizes[name])
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        problem = f"{bad[0]}{more} did not arrive as it was sent"
        raise RepositoryDamaged(
            repository.objects.location, problem, hint="'deltaimg repair --from' the source recovers it"
        )
    return Compared(len(sent), sum(sizes[name] for name in chosen))


def _list_sizes(repository: Repository, sent: Sequence[str]) -> Mapping[str, int]:
    """Return the size of each object that was sent and is listed."""
    wanted = frozenset(sent)
    folders = sorted({name.partition("/")[0] + "/" for name in sent})
    return {
        found.name: found.size_bytes
        for folder in folders
        for found in repository.objects.list(folder)
        if found.name in wanted
    }


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
