# SPDX-License-Identifier: Apache-2.0
"""Functions over arrays, beside a plain way to say the same."""

from __future__ import annotations

import numpy as np
import pytest

from deltaimg.arrays import DIGEST_BYTES, mark_data


@pytest.mark.parametrize("position", range(DIGEST_BYTES))
def test_a_digest_is_of_data_if_any_byte_of_it_is_set(position: int) -> None:
    digests = np.zeros((5, DIGEST_BYTES), np.uint8)
    assert mark_data(digests).tolist() == [False] * 5
    digests[1, position] = digests[4, -1 - position] = 1
    assert mark_data(digests).tolist() == [False, True, False, False, True]
    assert mark_data(digests[1:2]).tolist() == [True]
    assert mark_data(digests[:0]).tolist() == []


def test_digests_need_not_be_aligned() -> None:
    digests = np.frombuffer(bytes(3) + bytes(DIGEST_BYTES) + b"\x01" * DIGEST_BYTES, np.uint8, offset=3)
    assert mark_data(digests.reshape(-1, DIGEST_BYTES)).tolist() == [False, True]
