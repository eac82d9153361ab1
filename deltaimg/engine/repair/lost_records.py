# SPDX-License-Identifier: Apache-2.0
"""Lost records, encoded again from their content in the live image or in another copy of the repository.

All blocks of a record must be in the image, at any offset: the record's id depends on the digests of all
its blocks, and maps that refer to it are not rewritten.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests, distinct, empty_runs
from deltaimg.codec.zstd import ZstdCodec
from deltaimg.delta.encode import EncodedRecord, Encoder
from deltaimg.engine.content.spool import KeptSlots, Spool
from deltaimg.engine.progress import Progress, stage
from deltaimg.engine.repair.record_verifier import RecordVerifier
from deltaimg.engine.scan import Scanner, count_span_bytes
from deltaimg.errors import IntegrityError, StoreError, UnsupportedFormat
from deltaimg.format.limits import MAX_RECORD_BYTES
from deltaimg.ids import SlotNumbers
from deltaimg.image.extents import NOT_EMPTY
from deltaimg.image.source import ImageSource
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository


class RecordMaker:
    """Encodes content whose digests are known as literal records."""

    def __init__(self, repository: Repository, level: int = 3) -> None:
        self._repository, self._level = repository, level
        self._scratch = memoryview(bytearray(MAX_RECORD_BYTES))

    def make(
        self, content: memoryview, digests: Digests, block_bytes: int, kept: npt.NDArray[np.int64] | None = None
    ) -> EncodedRecord:
        """Return a record, encoded, decoded again and compared; a cut one of the slots `kept` if these are given."""
        key = self._repository.keys.record
        encoder = Encoder(ZstdCodec(self._level), (), record_key=key, block_bytes=block_bytes)
        if kept is not None:
            content = np.frombuffer(content, np.uint8).reshape(-1, block_bytes)[kept].reshape(-1).data
        return encoder.encode(content, digests, None, self._scratch, kept)


def make_from_copy(copy: Repository, wanted: dict[bytes, int], maker: RecordMaker) -> Iterator[EncodedRecord]:
    """Yield those of the lost records that another copy of the repository has undamaged.

    Args:
        wanted: the size of the blocks of each lost record, by its id.
    """
    verifier = RecordVerifier(copy, load_index(copy))
    for record_id, block_bytes in wanted.items():
        try:
            found = verifier.expand(record_id)
        except (IntegrityError, StoreError, UnsupportedFormat):
            continue
        yield maker.make(found.content, found.digests, block_bytes, found.kept)


def make_from_image(
    repository: Repository,
    source: ImageSource,
    wanted: dict[bytes, Digests],
    block_bytes: int,
    maker: RecordMaker,
    progress: Progress,
) -> Iterator[EncodedRecord]:
    """Yield those of the lost records all of whose blocks an image holds.

    Args:
        wanted: the digests of lost records whose blocks have `block_bytes`, by id.
    """
    if not wanted:
        return
    keys = distinct(*(_as_keys(digests) for digests in wanted.values()))
    spool = Spool(KeptSlots.apart(SlotNumbers(np.arange(len(keys), dtype=np.int64))), block_bytes)
    try:
        is_found = _collect(repository, source, keys, spool, block_bytes, progress)
        for digests in wanted.values():
            places = np.searchsorted(keys, _as_keys(digests))
            if is_found[places].all():
                content = memoryview(bytearray(len(places) * block_bytes))
                spool.get(SlotNumbers(places.astype(np.int64)), content)
                yield maker.make(content, digests, block_bytes)
    finally:
        spool.close()


def _collect(
    repository: Repository,
    source: ImageSource,
    keys: npt.NDArray[np.bytes_],
    spool: Spool,
    block_bytes: int,
    progress: Progress,
) -> npt.NDArray[np.bool_]:
    """Read an image, keep its blocks that have one of the digests `keys`, and return which were found."""
    is_found = np.zeros(len(keys), np.bool_)
    scanner = Scanner(
        source,
        block_key=repository.keys.block,
        block_bytes=block_bytes,
        base_runs=empty_runs(),
        base_digests=np.zeros((2, DIGEST_BYTES), np.uint8),
    )
    to_read = source.extents().align(block_bytes).find(*NOT_EMPTY)
    total = None if source.is_sequential else count_span_bytes(to_read)
    with stage(progress, "searching the image", total):
        for span in scanner.scan(to_read):
            if span.content is not None:
                found = _as_keys(span.digests)
                places = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
                for block in np.flatnonzero((keys[places] == found) & ~is_found[places]).tolist():
                    spool.put(int(places[block]), span.content[block * block_bytes : (block + 1) * block_bytes])
                    is_found[places[block]] = True
            scanner.release(span)
            progress.advance(span.read_bytes)
    return is_found


def _as_keys(digests: Digests) -> npt.NDArray[np.bytes_]:
    return np.ascontiguousarray(digests).view("S16").reshape(len(digests))
