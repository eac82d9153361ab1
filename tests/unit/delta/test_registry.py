# SPDX-License-Identifier: Apache-2.0
"""The delta codecs by name and number, and what is particular to each; what all promise is in tests/contract."""

from __future__ import annotations

import random

import pytest
import zstandard

from deltaimg.codec.delta_body import decode_body
from deltaimg.delta.deltaimg_delta import DeltaimgDelta
from deltaimg.delta.registry import (
    find_delta_decoder,
    make_delta_codecs,
    make_second_codec,
)
from deltaimg.delta.xdelta import XdeltaDelta, longest_delta
from deltaimg.delta.zstd_delta import ZstdDelta
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import DELTA_MODES, FORCED_DELTA_MODES

NOISE = random.Random(71).randbytes(2 * MIB)


@pytest.mark.parametrize("mode", DELTA_MODES)
def test_what_a_mode_encodes_can_be_decoded(mode: str) -> None:
    for codec in (each for codecs in make_delta_codecs(mode, 3) for each in codecs):
        decoder = find_delta_decoder(codec.encoding_id)
        assert decoder is not None
        assert decoder.name == codec.name
    assert bool(make_delta_codecs(mode, 3)) == (mode != "none")


def test_modes_of_one_codec_have_no_second_one_but_deltaimgs() -> None:
    assert set(FORCED_DELTA_MODES) <= set(DELTA_MODES)
    assert [mode for mode in DELTA_MODES if make_second_codec(mode, 3) is not None] == ["auto", "deltaimg", "best"]


def test_numbers_of_no_codec_have_no_decoder() -> None:
    for number in (0, 1, 99, 2**16):
        decoder = find_delta_decoder(number)
        assert decoder is None or decoder.encoding_id == number
    assert find_delta_decoder(200) is None


def test_the_zstd_program_could_read_a_zstd_delta() -> None:
    """The sources are a raw-content dictionary, as `zstd --patch-from` has it."""
    content = NOISE[1000:200_000] + b"new" + NOISE[:5000]
    payload = ZstdDelta(3).encode(memoryview(content), memoryview(NOISE))
    dictionary = zstandard.ZstdCompressionDict(NOISE, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << 27)
    assert decompressor.decompress(payload) == content


@pytest.mark.parametrize("level", [1, 3, 6, 9])
def test_zstd_finds_what_stands_at_the_start_of_long_sources(level: int) -> None:
    """With tables sized from the content alone it forgot most of its history."""
    assert len(ZstdDelta(level).encode(memoryview(NOISE[: 512 * KIB]), memoryview(NOISE))) < KIB


def test_deltaimgs_own_delta_is_a_delta_body() -> None:
    content = NOISE[77 : 77 + 100_000]
    payload = DeltaimgDelta(3).encode(memoryview(content), memoryview(NOISE))
    assert bytes(decode_body(memoryview(payload), memoryview(NOISE), len(content), None)) == content


@pytest.mark.parametrize("size", [0, 1, 4096, 512 * KIB])
def test_a_vcdiff_of_noise_is_no_longer_than_its_bound(size: int) -> None:
    content = random.Random(72).randbytes(size)
    payload = XdeltaDelta(3).encode(memoryview(content), memoryview(NOISE[:MIB]))
    assert len(zstandard.ZstdDecompressor().decompress(payload)) <= longest_delta(size)
