# SPDX-License-Identifier: Apache-2.0
"""What a snapshot consists of."""

from __future__ import annotations

from deltaimg.engine.inspect.run import inspect_snapshot
from deltaimg.repo.index import load_index
from tests.support.history import forget_ids
from tests.support.images import PAGE, make_database_image
from tests.support.repositories import back_up_image, make_repository
from tests.support.retention import list_manifests


def test_sources_count_though_their_own_snapshot_is_forgotten() -> None:
    repository, image = make_repository(), make_database_image(1 << 20)
    first = back_up_image(repository, image)
    for page in range(0, image.size_bytes, PAGE):
        image.write(page, bytes(8))
    second = back_up_image(repository, image, max_read_amplification=2.0)
    before = inspect_snapshot(repository, second, load_index(repository))
    forget_ids(repository, [first.id])
    layout = inspect_snapshot(repository, list_manifests(repository)[0], load_index(repository))
    assert layout == before
    assert layout.depth == 1
    assert layout.record_bytes == 2 * layout.data_bytes
    assert layout.read_amplification == 2
