# SPDX-License-Identifier: Apache-2.0
"""One cluster for all tests, and an image in it for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.ceph import Cluster, ceph_cluster
from tests.support.rbd import POOL, Disk, run

_numbers = count()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ceph_cluster(tmp_path_factory.mktemp("ceph")) as made:
        os.environ["CEPH_CONF"] = made.settings
        try:
            run("ceph", "osd", "pool", "create", POOL, 8)
            run("rbd", "pool", "init", POOL)
            run("rbd", "namespace", "create", f"{POOL}/customer7")
            yield made
        finally:
            del os.environ["CEPH_CONF"]


@pytest.fixture
def disk(cluster: Cluster, tmp_path: Path) -> Disk:
    return Disk(f"vm{next(_numbers)}", tmp_path)
