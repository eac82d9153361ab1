# SPDX-License-Identifier: Apache-2.0
"""A restore to a pipe over a network: several requests are under way, and each brings records that are near each other."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from msgspec.structs import replace

from deltaimg.engine.restore.run import restore
from deltaimg.model import MIB
from deltaimg.repo.record_reader import READ_BYTES
from deltaimg.store.interface import StoreProperties
from deltaimg.store.memory import MemoryStore
from deltaimg.store.wrapped import WrappedStore
from tests.support.images import make_incompressible_image
from tests.support.repositories import back_up_image, make_repository

PARALLEL, IMAGE_BYTES = 4, 32 * MIB


class FarStore(WrappedStore):
    """A store whose reads of packs wait until `PARALLEL` of them have been begun."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.reads: list[int] = []
        self.barrier: threading.Barrier | None = None

    @property
    def properties(self) -> StoreProperties:
        return replace(self.inner.properties, is_remote=True, parallel_requests=PARALLEL)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.reads.append(length)
        if self.barrier is not None:
            self.barrier.wait(20)
        return self.inner.get_range(name, offset, length)


def test_a_restore_to_a_pipe_has_several_requests_under_way(tmp_path: Path) -> None:
    far, image = FarStore(MemoryStore()), make_incompressible_image(IMAGE_BYTES, seed=11)
    repository = make_repository(far)
    manifest = back_up_image(repository, image)
    far.reads.clear()
    far.barrier = threading.Barrier(PARALLEL)  # never passed by fewer at once
    pipe, found = tmp_path / "pipe", bytearray()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.extend(pipe.read_bytes()))
    reader.start()
    restore(repository, manifest, str(pipe), is_forced=True, workers=1)
    reader.join()
    assert bytes(found) == bytes(image.content)
    assert max(far.reads) <= READ_BYTES
    assert sum(far.reads) / len(far.reads) > MIB
