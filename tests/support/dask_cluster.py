# SPDX-License-Identifier: Apache-2.0
"""A Dask cluster of this machine: a scheduler and worker processes, on loopback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.components import skip_without


@dataclass(frozen=True, slots=True)
class DaskCluster:
    """What runs, and where its scheduler is."""

    cluster: Any

    @property
    def address(self) -> str:
        """As `--executor` takes it."""
        return str(self.cluster.scheduler_address).replace("tcp://", "dask://")

    def list_pids(self) -> list[int]:
        """Return the process numbers of the workers."""
        return [worker.pid for worker in self.cluster.workers.values()]


@contextmanager
def dask_cluster(workers: int = 2) -> Iterator[DaskCluster]:
    """Start a scheduler and workers of a thread each; skips where Dask is not installed."""
    try:
        from distributed import LocalCluster
    except ImportError as error:
        skip_without("dask", f"is not installed: {error}")
        raise
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as made:
        yield DaskCluster(made)
