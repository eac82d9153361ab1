# SPDX-License-Identifier: Apache-2.0
"""Clusters on which `verify`, `check`, `parity add` and `sync` run their jobs, a pack each: Dask, by address."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from deltaimg.engine.cluster import Cluster
from deltaimg.errors import ClusterFailed, UsageError, describe_installation

_TIMEOUT_S = 10
_JOBS_A_THREAD = 2
"""One that runs, and one that waits for it."""


@contextmanager
def open_cluster(address: str | None) -> Iterator[Cluster | None]:
    """Connect to the scheduler at `dask://HOST:PORT`; None where there is no address.

    Raises:
        UsageError: no address of a scheduler. ClusterFailed: it cannot be reached, has no workers, or Dask is not installed.
    """
    if address is None:
        yield None
        return
    host, port = _parse(address)
    try:
        make_client: Any = import_module("distributed").Client
    except ImportError as error:
        problem = "needs distributed, which is not installed"
        raise ClusterFailed(address, problem, hint=describe_installation("deltaimg[dask]")) from error
    try:
        client = make_client(f"tcp://{host}:{port}", timeout=_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterFailed(address, "no scheduler answers there", hint="'dask scheduler' starts one") from error
    try:
        threads = sum(client.ncores().values())
        if not threads:
            raise ClusterFailed(address, "the scheduler has no workers", hint="'dask worker' starts one")
        yield Cluster(client.get_executor(pure=False), _JOBS_A_THREAD * threads, address)
    finally:
        client.close()


def wrap_executor(executor: Executor | Cluster | None, in_flight: int = 8) -> Cluster | None:
    """Return the cluster that an executor makes; None without one."""
    return Cluster(executor, in_flight) if isinstance(executor, Executor) else executor


def _parse(address: str) -> tuple[str, int]:
    url = urlsplit(address)
    try:
        port = url.port
    except ValueError:
        port = None
    if url.scheme != "dask" or not url.hostname or port is None or url.path not in ("", "/"):
        raise UsageError(
            f"{address[:80]}: is no cluster", hint="write dask://HOST:PORT, with the port of the scheduler"
        )
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return host, port
