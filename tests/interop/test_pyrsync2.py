# SPDX-License-Identifier: Apache-2.0
"""`deltaimg.rsync` and pyrsync2 at either side of each step, and element by element where pyrsync2 is right."""

from __future__ import annotations

import io
import itertools
import random

import pytest
from hypothesis import HealthCheck, given, settings

from deltaimg import rsync
from tests.support.components import skip_without
from tests.support.pyrsync2 import CannotInstall, load_pyrsync2
from tests.unit.test_rsync import colliding_blocks, edited


@pytest.fixture(scope="session")
def pyrsync2(request):
    try:
        return load_pyrsync2(request.config.cache.mkdir("pyrsync2"))
    except CannotInstall as problem:
        skip_without("pyrsync2", str(problem))


def sums_of(module, data, size):
    return list(module.blockchecksums(io.BytesIO(data), size))


def delta_of(module, sums, new, size, max_buffer=4096):
    return list(module.rsyncdelta(io.BytesIO(new), sums, size, max_buffer))


def patch(module, old, delta, size):
    target = io.BytesIO()
    module.patchstream(io.BytesIO(old), target, delta, size)
    return target.getvalue()


def is_right(sums):
    """Whether pyrsync2 can find all of these blocks: of those that share a weak sum it forgets all but the last."""
    return len({weak for weak, _ in sums}) == len(set(sums))


SHAPES = {
    "equal": lambda old, rng: old,
    "empty": lambda old, rng: b"",
    "from a change at the start": lambda old, rng: b"#" + old[1:],
    "from a change in the middle": lambda old, rng: old[: len(old) // 2] + b"#" + old[len(old) // 2 + 1 :],
    "from a change at the end": lambda old, rng: old[:-1] + b"#",
    "inserted": lambda old, rng: old[:999] + b"inserted" + old[999:],
    "cut": lambda old, rng: old[777:-333],
    "appended": lambda old, rng: old + rng.randbytes(2500),
    "in another order": lambda old, rng: b"".join(rng.sample([old[i : i + 900] for i in range(0, len(old), 900)], k=7)),
    "all new": lambda old, rng: rng.randbytes(9999),
}


@pytest.mark.parametrize("old_bytes", [6144, 6145, 6500, 0])
@pytest.mark.parametrize("size", [1, 7, 512, 4096, 10_000])
@pytest.mark.parametrize("shape", SHAPES)
def test_either_side_of_each_step_may_be_pyrsync2(pyrsync2, shape, size, old_bytes):
    rng = random.Random(f"{shape} {size} {old_bytes}")
    old = rng.randbytes(old_bytes)
    new = SHAPES[shape](old, rng) if old else rng.randbytes(5000)
    sums = sums_of(pyrsync2, old, size)
    assert sums_of(rsync, old, size) == sums
    for max_buffer in (1, 100, 4096):
        deltas = [delta_of(module, sums, new, size, max_buffer) for module in (pyrsync2, rsync)]
        assert deltas[0] == deltas[1] or not is_right(sums)
    for delta, module in itertools.product(deltas, (pyrsync2, rsync)):
        assert patch(module, old, delta, size) == new


@given(pair=edited())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("size", [1, 5, 32])
def test_where_pyrsync2_is_right_elements_are_the_same(pyrsync2, size, pair):
    old, new = pair
    sums = sums_of(pyrsync2, old, size)
    assert sums_of(rsync, old, size) == sums
    ours = delta_of(rsync, sums, new, size, 50)
    assert patch(rsync, old, ours, size) == patch(pyrsync2, old, ours, size) == new
    try:
        theirs = delta_of(pyrsync2, sums, new, size, 50)
    except AttributeError:
        # It finds a block of zeros while the last window shrinks, and asks for more of a stream that it let go.
        return
    if is_right(sums):
        assert ours == theirs


def test_of_blocks_with_one_weak_sum_pyrsync2_finds_the_last_only(pyrsync2):
    old = b"".join(colliding_blocks(20))
    sums = sums_of(pyrsync2, old, 256)
    assert delta_of(rsync, sums, old, 256) == list(range(20))
    theirs = delta_of(pyrsync2, sums, old, 256)
    assert [each for each in theirs if isinstance(each, int)] == [19]
    assert patch(rsync, old, theirs, 256) == old


def test_pyrsync2_reads_signatures_of_large_blocks(pyrsync2):
    old = random.Random(1).randbytes(4_500_000)
    for size in (1_500_000, 3_000_000):
        sums = sums_of(rsync, old, size)
        assert sums == sums_of(pyrsync2, old, size)
        assert delta_of(pyrsync2, sums, old, size) == delta_of(rsync, sums, old, size) == list(range(len(sums)))
