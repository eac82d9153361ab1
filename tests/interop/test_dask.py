# SPDX-License-Identifier: Apache-2.0
"""Jobs on the workers of a real Dask cluster: the same results as here, also where a worker is killed in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from deltaimg.api.clusters import open_cluster
from deltaimg.engine.check.run import CheckReport, check
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.parity.add import add_parity
from deltaimg.engine.parity.protection import survey_parity
from deltaimg.engine.restore.verify import VerifyResult, verify
from deltaimg.engine.sync.request import SyncRequest
from deltaimg.engine.sync.run import sync
from deltaimg.errors import DigestMismatch, UsageError
from deltaimg.repo.repository import Repository
from deltaimg.store.local import LocalStore
from tests.support.clock import FixedClock
from tests.support.dask_cluster import DaskCluster, dask_cluster
from tests.support.flips import flip_file
from tests.support.images import edit_at_random, make_database_image
from tests.support.program import fail, succeed
from tests.support.repositories import KEY, make_repository
from tests.support.sync import Family, make_like


@pytest.fixture(scope="module")
def dask() -> Iterator[DaskCluster]:
    with dask_cluster() as made:
        yield made


@pytest.fixture
def cluster(dask: DaskCluster) -> Iterator[Cluster]:
    with open_cluster(dask.address) as made:
        assert made is not None
        yield made


def make_source(folder: Path) -> Family:
    """A repository in a folder, with several packs, deltas on deltas, and two images."""
    family = Family(make_repository(LocalStore(str(folder))))
    for seed, name in enumerate(("vm1", "vm2")):
        image = make_database_image(400_000, seed)
        for _ in range(4):
            family.back_up(image, name)
            edit_at_random(image)
    return family


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return make_source(tmp_path / "repo")


def damage(family: Family, tmp_path: Path, number: int = 0) -> None:
    """Change a byte in the middle of a pack."""
    pack = sorted((tmp_path / "repo" / "packs").glob("*/*"), key=lambda path: path.stat().st_size)[-1 - number]
    flip_file(pack)


def strip(result: VerifyResult) -> VerifyResult:
    return replace(result, duration_s=0.0)


def run_verify(repository: Repository, cluster: Cluster | None) -> list[VerifyResult]:
    found = verify(repository, repository.list_snapshots(), clock=FixedClock(), cluster=cluster)
    return [strip(each) for each in found]


def run_check(repository: Repository, cluster: Cluster | None) -> CheckReport:
    return replace(check(repository, read_packs=True, cluster=cluster), duration_s=0.0)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_verify_and_check_find_what_they_find_here(
    family: Family, cluster: Cluster, tmp_path: Path, is_damaged: bool
) -> None:
    if is_damaged:
        damage(family, tmp_path)
        damage(family, tmp_path, 3)
    results = run_verify(family.source, None)
    assert run_verify(family.source, cluster) == results
    assert any(each.damage for each in results) == is_damaged
    report = run_check(family.source, None)
    assert run_check(family.source, cluster) == report
    assert bool(report.findings) == is_damaged


def test_parity_protects_what_it_protects_here(family: Family, cluster: Cluster, tmp_path: Path) -> None:
    pytest.importorskip("pyeclib")
    other = make_source(tmp_path / "other")
    done = [
        add_parity(family.source, 10, clock=FixedClock(), cluster=cluster),
        add_parity(other.source, 10, clock=FixedClock()),
    ]
    assert done[0].packs == done[1].packs > 5
    survey = survey_parity(family.source, is_thorough=True)
    assert survey.unprotected_packs == 0
    assert not survey.damage
    assert add_parity(family.source, 10, clock=FixedClock(), cluster=cluster).groups == 0


def test_sync_copies_what_it_copies_here(family: Family, cluster: Cluster, tmp_path: Path) -> None:
    ends = [make_like(family.source, LocalStore(str(tmp_path / name))) for name in ("there", "here")]
    results = [
        sync(SyncRequest(family.source, end, clock=FixedClock(), cluster=where))
        for end, where in zip(ends, (cluster, None), strict=True)
    ]
    assert results[0].copied == results[1].copied
    assert results[0].stored_bytes == pytest.approx(results[1].stored_bytes, rel=0.01)
    listed = [{found.name for found in end.objects.list("packs/")} for end in ends]
    assert listed[0] == listed[1]
    for end in ends:
        family.assert_whole(end, 8)


def test_a_damaged_pack_costs_a_sync_what_it_costs_here(family: Family, cluster: Cluster, tmp_path: Path) -> None:
    damage(family, tmp_path)
    end = make_like(family.source, LocalStore(str(tmp_path / "there")))
    here = make_like(family.source, LocalStore(str(tmp_path / "here")))
    failed = [
        sync(SyncRequest(family.source, each, clock=FixedClock(), cluster=where)).failed
        for each, where in ((end, cluster), (here, None))
    ]
    assert [each.ref for each in failed[0]] == [each.ref for each in failed[1]]
    assert failed[0]
    family.assert_whole(end)


def test_of_an_encrypted_repository_workers_read_packs_and_get_no_key(
    family: Family, cluster: Cluster, tmp_path: Path
) -> None:
    sealed = Family(make_repository(LocalStore(str(tmp_path / "sealed")), key=KEY))
    sealed.back_up(make_database_image(400_000, 3))
    assert run_check(sealed.source, cluster) == run_check(sealed.source, None)
    with pytest.raises(UsageError, match="is encrypted"):
        run_verify(sealed.source, cluster)


class _Killer:
    """An executor that kills a worker of the cluster once some jobs are under way, and counts jobs."""

    def __init__(self, inner: Executor, pids: list[int]) -> None:
        self._inner, self._pids = inner, pids
        self.submitted = 0

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        self.submitted += 1
        future = self._inner.submit(_slowly, function, *arguments)
        if self.submitted == 3 and self._pids:
            pid = self._pids.pop()
            threading.Timer(0.05, os.kill, (pid, signal.SIGKILL)).start()
        return future


def _slowly(function: Any, *arguments: Any) -> Any:
    time.sleep(0.1)
    return function(*arguments)


def test_a_worker_that_is_killed_costs_its_jobs_again_and_nothing_more(tmp_path: Path) -> None:
    family = make_source(tmp_path / "repo")
    results, report = run_verify(family.source, None), run_check(family.source, None)
    with dask_cluster() as made, open_cluster(made.address) as whole:
        assert whole is not None
        killer = _Killer(whole.executor, made.list_pids()[:1])
        killing = Cluster(killer, 2)  # type: ignore[arg-type]
        assert run_check(family.source, killing) == report
        assert not killer._pids
        end = make_like(family.source, LocalStore(str(tmp_path / "there")))
        killer._pids, killer.submitted = made.list_pids()[-1:], 0
        sync(SyncRequest(family.source, end, clock=FixedClock(), cluster=killing))
        assert not killer._pids
        family.assert_whole(end, 8)
        killer._pids, killer.submitted = made.list_pids()[-1:], 0
        assert run_verify(family.source, killing) == results


def test_any_executor_will_do(family: Family) -> None:
    results = run_verify(family.source, None)
    with ProcessPoolExecutor(2) as pool:
        assert run_verify(family.source, Cluster(pool, 4)) == results


def test_errors_come_back_as_they_are() -> None:
    error = DigestMismatch("packs/x", 7, "the record here", b"a" * 16, b"b" * 16)
    error.locate("there")
    with ProcessPoolExecutor(1) as pool, pytest.raises(DigestMismatch) as caught:
        list(Cluster(pool).map(_raise, [error]))
    assert str(caught.value) == str(error)
    assert (caught.value.offset, caught.value.expected, caught.value.hint) == (7, b"a" * 16, error.hint)


def _raise(error: BaseException) -> None:
    raise error


def test_what_is_no_cluster_is_one_clear_error(dask: DaskCluster, tmp_path: Path) -> None:
    make_source(tmp_path / "repo")
    for address in ("dask://", "dask://host", "tcp://host:1", "host:8786", "dask://host:port"):
        with pytest.raises(UsageError, match="is no cluster"), open_cluster(address):
            pass
    assert "no scheduler answers" in fail(79, "verify", "--executor", "dask://127.0.0.1:1", repo=tmp_path / "repo")
    succeed("verify", "--executor", dask.address, repo=tmp_path / "repo")
    succeed("check", "--read-packs", "--executor", dask.address, repo=tmp_path / "repo")
