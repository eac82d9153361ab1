# SPDX-License-Identifier: Apache-2.0
"""Parity is what the document says it is, and any columns of a stripe give the others."""

from __future__ import annotations

import random
from importlib.machinery import ModuleSpec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.codec import reed_solomon
from deltaimg.codec.reed_solomon import ReedSolomon, load_reed_solomon
from deltaimg.errors import ParityUnusable
from tests.support.galois import parity_shard


def make_stripe(
    code: ReedSolomon, columns: int, parity_columns: int, length: int, chance: random.Random
) -> list[bytes]:
    """Return the shards of a stripe, data first, then parity."""
    data = [chance.randbytes(length) for _ in range(columns)]
    planes = [memoryview(bytearray(length)) for _ in range(parity_columns)]
    for column, shard in enumerate(data):
        code.accumulate(column, memoryview(shard), planes)
    return data + [bytes(plane) for plane in planes]


@pytest.mark.parametrize(("columns", "parity_columns"), [(1, 1), (2, 1), (60, 3), (17, 17), (200, 1), (253, 3)])
def test_parity_is_that_of_the_oracle(columns: int, parity_columns: int, seed: int) -> None:
    code = ReedSolomon(columns, parity_columns)
    shards = make_stripe(code, columns, parity_columns, 4096, random.Random(seed))
    for number in range(parity_columns):
        assert shards[columns + number] == parity_shard(shards[:columns], number)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), columns=st.integers(1, 40), parity_columns=st.integers(1, 8), length=st.integers(1, 300))
def test_any_columns_of_a_stripe_give_the_others(
    data: st.DataObject, columns: int, parity_columns: int, length: int
) -> None:
    code = ReedSolomon(columns, parity_columns)
    shards = make_stripe(code, columns, parity_columns, length, random.Random(columns))
    kept = data.draw(st.permutations(range(columns + parity_columns)))[:columns]
    wanted = [number for number in range(columns) if number not in kept]
    if wanted:
        recovered = code.recover(wanted, {number: shards[number] for number in kept})
        assert recovered == [shards[number] for number in wanted]


def test_long_data_is_worked_on_in_pieces_with_the_same_result(seed: int) -> None:
    chance = random.Random(seed)
    length = 2 * reed_solomon._PIECE_BYTES + 4097
    code = ReedSolomon(2, 2)
    shards = make_stripe(code, 2, 2, length, chance)
    assert shards[3] == parity_shard(shards[:2], 1)


def test_too_few_shards_are_refused() -> None:
    with pytest.raises(ValueError, match="1 shards, where it takes 2"):
        ReedSolomon(2, 1).recover([0], {1: bytes(16)})


@pytest.fixture
def forget_library() -> None:
    load_reed_solomon.cache_clear()
    yield
    load_reed_solomon.cache_clear()


@pytest.mark.usefixtures("forget_library")
def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reed_solomon, "find_spec", lambda _: None)
    with pytest.raises(ParityUnusable) as caught:
        ReedSolomon(2, 1)
    assert caught.value.hint is not None
    assert "-m pip install 'pyeclib" in caught.value.hint


@pytest.mark.usefixtures("forget_library")
def test_a_library_that_cannot_be_opened_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    package = tmp_path / "pyeclib"
    package.mkdir()
    (tmp_path / "pyeclib.libs").mkdir()
    broken = tmp_path / "pyeclib.libs" / "libisal-x.so.2"
    broken.write_bytes(b"no library")
    spec = ModuleSpec("pyeclib", None, origin=str(package / "__init__.py"))
    monkeypatch.setattr(reed_solomon, "find_spec", lambda _: spec)
    with pytest.raises(ParityUnusable, match=r"libisal-x\.so\.2 cannot be used"):
        ReedSolomon(2, 1)


@pytest.mark.usefixtures("forget_library")
def test_a_library_that_computes_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reed_solomon, "_multiply", lambda left, right: left)
    with pytest.raises(ParityUnusable, match="does not compute"):
        ReedSolomon(2, 1)
