# SPDX-License-Identifier: Apache-2.0
"""The digests of records, taken from a signature and verified: the keyed digest of a record's list of digests is its id.

Memory  the digests that are taken, those of records of one size at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests, group_by
from deltaimg.errors import DigestMismatch, IntegrityError
from deltaimg.format.signature import SignatureObject
from deltaimg.kernels import digest_blocks, digest_buffer


def take_digests(
    key: bytes, rows: npt.NDArray[Any], name: str, content: SignatureObject
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
    """Yield the digests of records that have as many slots as each other: which of `rows` they are, and (records, slots, 16).

    Args:
        key: for ids of records. rows: an index entry of each record, of `ENTRY`. name: of the signature, for errors.

    Raises:
        IntegrityError: the signature is shorter than the index says, or has other digests.
    """
    starts, counts = rows["first_digest"].astype(np.int64), rows["slots"].astype(np.int64)
    for count, of_size in group_by(counts):
        if int(starts[of_size].max()) + count > len(content.digests):
            raise IntegrityError(name, 0, "has fewer digests than the index says")
        digests = content.digests[starts[of_size, np.newaxis] + np.arange(count)]
        found, expected = _name_lists(key, digests), rows["id"][of_size]
        if not np.array_equal(found, expected):
            wrong = int(np.argmax((found != expected).any(axis=1)))
            raise DigestMismatch(
                name,
                int(starts[of_size[wrong]]) * DIGEST_BYTES,
                "the list of a record's digests",
                expected[wrong].tobytes(),
                found[wrong].tobytes(),
            )
        yield of_size, digests


def _name_lists(key: bytes, digests: npt.NDArray[np.uint8]) -> Digests:
    """Return the ids of records with these lists of digests, which are equally long."""
    list_bytes = digests.shape[1] * DIGEST_BYTES
    # As blocks many lists are digested side by side; a list of zeros would be a zero block, which has no digest of its own.
    if list_bytes % 1024 == 0 and digests.any(axis=(1, 2)).all():
        return digest_blocks(key, digests.data, list_bytes)
    ids = b"".join(digest_buffer(each.data, key, DIGEST_BYTES) for each in digests)
    return np.frombuffer(ids, np.uint8).reshape(-1, DIGEST_BYTES)
