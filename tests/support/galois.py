# SPDX-License-Identifier: Apache-2.0
"""Reed-Solomon parity as docs/format.md describes it, written down once more and slowly: the oracle for the library's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

POLYNOMIAL = 0x11D


def multiply(left: int, right: int) -> int:
    """Return the product of two elements of the field of 256."""
    product = 0
    while right:
        product ^= left if right & 1 else 0
        left = (left << 1) ^ (POLYNOMIAL if left & 0x80 else 0)
        right >>= 1
    return product


def invert(element: int) -> int:
    """Return what gives 1 when multiplied with `element`."""
    return next(other for other in range(1, 256) if multiply(element, other) == 1)


def parity_shard(shards: Sequence[bytes], number: int) -> bytes:
    """Return parity shard `number` of a stripe of data shards."""
    total = np.zeros(len(shards[0]), np.uint8)
    for column, shard in enumerate(shards):
        factor = invert((len(shards) + number) ^ column)
        products = np.array([multiply(factor, byte) for byte in range(256)], np.uint8)
        total ^= products[np.frombuffer(shard, np.uint8)]
    return total.tobytes()


def parity_planes(
    packs: Sequence[bytes], *, shard_bytes: int, stripes: int, columns: int, parity_columns: int
) -> bytes:
    """Return the planes for packs, one after another."""
    data = b"".join(pack + bytes(-len(pack) % shard_bytes) for pack in packs)
    data = data.ljust(stripes * columns * shard_bytes, b"\0")
    shards = [data[at : at + shard_bytes] for at in range(0, len(data), shard_bytes)]
    return b"".join(
        parity_shard(shards[stripe::stripes], number) for number in range(parity_columns) for stripe in range(stripes)
    )
