# SPDX-License-Identifier: Apache-2.0
"""Verify content, and check the structure of a repository."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime

from deltaimg.api.clusters import wrap_executor
from deltaimg.api.vanished import find_vanished, remember_snapshots
from deltaimg.engine.check.findings import FindingKind as FindingKind
from deltaimg.engine.check.findings import Severity as Severity
from deltaimg.engine.check.report import CheckReport
from deltaimg.engine.check.rosters import accept_state as accept_state_of
from deltaimg.engine.check.run import check as check_repository
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.progress import Progress
from deltaimg.engine.restore.verify import VerifyReport
from deltaimg.engine.restore.verify import verify as verify_snapshots
from deltaimg.errors import SnapshotNotFound
from deltaimg.options.definition import validate
from deltaimg.options.verify import VerifyOptions
from deltaimg.repo.groups import select_snapshots
from deltaimg.repo.host_arrivals import accept_arrivals
from deltaimg.repo.repository import Repository


def verify(
    repository: Repository,
    selectors: Sequence[str] = (),
    options: VerifyOptions | None = None,
    *,
    seed: int | None = None,
    executor: Executor | Cluster | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Verify that snapshots (all, if none are named) can be restored.

    The report's `verified_share` has since when all content was verified.

    Args:
        executor: where records are read and decoded: processes that see the repository. Threads of this process, if not given.
    """
    options = options or VerifyOptions()
    validate(options)
    refs = [ref for each in selectors for ref in select_snapshots(repository, each)]
    refs = refs or sorted({*repository.list_snapshots(), *repository.list_quarantined()})
    report = verify_snapshots(
        repository, refs, percent=options.percent, seed=seed, progress=progress, cluster=wrap_executor(executor)
    )
    if selectors:
        verified = {each.ref for each in report}
        for ref in refs:
            if ref not in verified:
                raise SnapshotNotFound(ref.label, hint="it was forgotten while others were verified")
    return report


def check(
    repository: Repository,
    *,
    read_packs: bool = False,
    executor: Executor | Cluster | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Check the structure of a repository: every object but parity, what it refers to, and what nothing refers to.

    Of one that is encrypted and was opened without a key: every object as far as names, headers and digests go.

    Args:
        read_packs: read packs whole, not only their headers and footers, and compare them with their names.
        executor: where packs are read whole: processes that see the repository. Threads of this process, if not given.
    """
    repository.objects.lists_foreign = True
    if repository.is_locked:
        return check_repository(repository, read_packs=read_packs, progress=progress)
    report = check_repository(
        repository,
        read_packs=read_packs,
        vanished=find_vanished(repository),
        progress=progress,
        cluster=wrap_executor(executor),
    )
    remember_snapshots(repository)
    return report


def accept_state(repository: Repository) -> list[str]:
    """Accept the snapshots that a repository has now, though others were recorded or seen by this host, and their dates.

    For what is right nevertheless: the repository was restored from a copy, say. Returns what `check` and `forget` would have
    said until then; nothing if all agrees.
    """
    doubted = accept_arrivals(repository.config.repository_id)
    texts = [f"snapshots/{image}/: {count} snapshots whose dates were doubtful" for image, count in doubted.items()]
    return [*accept_state_of(repository, datetime.now(UTC)), *texts]
