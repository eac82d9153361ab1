# SPDX-License-Identifier: Apache-2.0
"""The row of the offsite benchmark that is about a cluster: `verify` on Dask workers, beside as many threads of one process."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from synthetic import sparse_image

from measuring.files import remove
from measuring.offsite_rows import Bench
from measuring.process import Sample
from measuring.tables import markdown
from tests.support.dask_cluster import dask_cluster

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_WORKERS = (1, 2)
_DATA_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class _Run:
    """One verify: what it cost in its own process, what it cost the cluster, and what it found."""

    sample: Sample
    cluster_cpu_s: float
    found: object


def row_dask(bench: Bench) -> list[str]:
    """Verify 8 GiB of data, all in the page cache, by threads of one process and by workers of a cluster."""
    folder, image = bench.trial / "verified", bench.trial / "data.raw"
    bench.forget_host()
    sparse_image(image, apparent_bytes=_DATA_BYTES, data_bytes=_DATA_BYTES)
    bench.deltaimg("init", "-r", folder)
    bench.deltaimg("backup", image, "--image", "guest", "-r", folder)
    remove(image)
    _verify(bench, folder)
    rows = []
    for workers in _WORKERS:
        # One thread, or a process that is kept to one processor, is what one worker stands beside.
        local = [_verify(bench, folder, processors=workers) for _ in range(bench.runs)]
        with dask_cluster(workers) as cluster:
            pids = [*cluster.list_pids(), os.getpid()]  # the scheduler is a task of this process
            _verify(bench, folder, executor=cluster.address)
            remote = [_verify(bench, folder, executor=cluster.address, pids=pids) for _ in range(bench.runs)]
        is_equal = all(run.found == local[0].found for run in (*local, *remote))
        walls = _wall(local), _wall(remote)
        costs = _cpu(local), _cpu(remote)
        rows.append((f"{workers} of each", f"{walls[0]:.2f}", f"{walls[1]:.2f}", f"{walls[1] / walls[0]:.3f}",
                     f"{costs[0]:.2f}", f"{costs[1]:.2f}", "yes" if is_equal else "**no**"))  # fmt: skip
    remove(folder)
    rows.append(("must be", "", "", "1.05", "", "", ""))
    head = ("verify", "local: wall s", "workers: wall s", "of local", "local: CPU s", "workers: CPU s", "results equal")
    return markdown(head, rows)


def _verify(bench: Bench, folder: Path, *, executor: str = "", processors: int = 0, pids: Iterable[int] = ()) -> _Run:
    argv = ["verify", "--json", "-r", str(folder)]
    before = sum(map(_cpu_of, pids))
    where = ("--executor", executor) if executor else ()
    sample = bench.deltaimg(*argv, *where, processors=processors)
    found = json.loads(sample.output)
    for each in (found, *found["snapshots"]):
        each.pop("duration_s", None)
        each.pop("traffic", None)
    found.pop("verified_share", None)
    return _Run(sample, sum(map(_cpu_of, pids)) - before, found)


def _cpu_of(pid: int) -> float:
    """Return the processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _wall(runs: list[_Run]) -> float:
    return statistics.median(run.sample.wall_s for run in runs)


def _cpu(runs: list[_Run]) -> float:
    return statistics.median(run.sample.cpu_s + run.cluster_cpu_s for run in runs)
