# SPDX-License-Identifier: Apache-2.0
"""Read packs, and replace those that are damaged or missing by what parity recovers.

Reads   every pack that the index names; for a damaged one, all of its group.
Memory  a pack for each thread and two more, and what `repo/parity.py` says.
Always  a pack is replaced atomically, and only by bytes whose digest is its name.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from deltaimg.engine.parity.protection import list_needed
from deltaimg.engine.pipeline import OrderedPool
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.errors import IntegrityError, ObjectNotFound, ParityExhausted, StoreUnavailable
from deltaimg.format.framing import name_object
from deltaimg.format.pack import pack_name
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.parity import ParityGroups, load_parity, recover_pack
from deltaimg.repo.repository import Repository

_WORKERS = 2


class PacksRepaired(Struct, frozen=True):
    """What was read, and the packs that were repaired or could not be."""

    packs: int
    read_bytes: int
    repaired: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    """Packs that stay as they are, each with the reason."""


def repair_packs(
    repository: Repository, *, clock: Callable[[], datetime], progress: Progress | None = None
) -> PacksRepaired:
    """Verify every pack by its name, and repair those that are damaged or missing from parity.

    Raises:
        ParityUnusable: something is to be computed, and the library for it is not installed.
        RepositoryLocked: another run that moves or removes packs is at work.
    """
    progress = progress or NoProgress()
    with MaintenanceLock(repository, "parity repair", clock()) as lock:
        needed = list_needed(repository)
        parity = load_parity(repository)
        with stage(progress, "reading packs", sum(size or 0 for size in needed.values())):
            repaired: list[str] = []
            failed: list[tuple[str, str]] = []
            read_bytes = 0
            with OrderedPool(workers=_WORKERS, window=_WORKERS) as pool:
                good = pool.map(lambda pack: _is_good(repository, pack), needed)
                for (pack, size_bytes), is_good in zip(needed.items(), good, strict=True):
                    read_bytes += size_bytes or 0
                    progress.advance(size_bytes or 0)
                    if is_good:
                        continue
                    try:
                        is_repaired = put_back(repository, pack, parity, lock.check)
                    except ParityExhausted as error:
                        failed.append((pack, error.problem))
                        continue
                    if is_repaired:
                        repaired.append(pack)
                    else:
                        failed.append((pack, "is damaged or missing, and has no parity"))
    return PacksRepaired(len(needed), read_bytes, tuple(repaired), tuple(failed))


def put_back(repository: Repository, pack: str, parity: ParityGroups, check: Callable[[], None]) -> bool:
    """Recover a pack and store it; return whether there is parity for it.

    Args:
        check: called just before; raises if this run may no longer write.

    Raises:
        ParityExhausted: more is lost than its parity can recover.
    """
    content = recover_pack(repository, pack, parity)
    if content is None:
        return False
    check()
    repository.objects.replace_bytes(pack_name(pack), [content])
    return True


def _is_good(repository: Repository, pack: str) -> bool:
    try:
        return name_object([repository.objects.get_bytes(pack_name(pack))]) == pack
    except (IntegrityError, ObjectNotFound, StoreUnavailable):
        return False
