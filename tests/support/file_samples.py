# SPDX-License-Identifier: Apache-2.0
"""Small signatures and deltas of every format of single files, legal as they stand: what damage and fuzzing begin with."""

from __future__ import annotations

import random

import numpy as np

from deltaimg.format.delta import COPY, LITERAL, OP, ZERO, DeltaObject
from deltaimg.format.rdiff import (
    DELTA_END,
    DELTA_HEAD,
    build_copy,
    build_literal_head,
    build_rdiff_blocks,
    build_rdiff_head,
)
from deltaimg.format.sums import SumsObject
from deltaimg.format.vcdiff import VCDIFF_HEAD, Window, build_window, copy_of, run_of_zeros
from deltaimg.model import VcdiffSections

OLD = random.Random(5).randbytes(90_000)
"""The old file that the deltas below copy from."""
SUMS = SumsObject(
    bytes(range(32)), 4096, 8, np.array([True, False, True]), np.array([5, 2**40 - 1], np.uint64),
    np.arange(16, dtype=np.uint8).reshape(2, 8), 11 * 4096 - 5,
)  # fmt: skip
DELTA = DeltaObject(
    bytes(range(32)), 4096, 50_000, 4096,
    np.array([(COPY, 9000, 70), (ZERO, 4096, 0), (LITERAL, 11, 0), (COPY, 1, 49_999)], OP), 0, b"hello world", b"r" * 16,
)  # fmt: skip
RDIFF_SIGNATURE = build_rdiff_head(2048, 8) + build_rdiff_blocks(
    np.array([1, 2], np.uint64), np.arange(16, dtype=np.uint8).reshape(2, 8)
)
RDIFF_DELTA = DELTA_HEAD + build_copy(70_000, 300) + build_literal_head(300) + b"x" * 300 + build_copy(0, 5) + DELTA_END
WINDOWS = [
    copy_of(70_000, 300, 5), run_of_zeros(9000),
    Window(23, VcdiffSections(b"hello", bytes([6, 19 + 4, 19 + 16 + 9, 0, 6]), bytes([0, 9])), 100, 64), run_of_zeros(0),
]  # fmt: skip
VCDIFF = VCDIFF_HEAD + b"".join(map(build_window, WINDOWS))
