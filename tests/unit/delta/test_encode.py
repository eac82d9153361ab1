# SPDX-License-Identifier: Apache-2.0
"""Which delta a record gets: rounds of codecs, and when another one is tried."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
import pytest

from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.codec.zstd import ZstdCodec
from deltaimg.delta.deltaimg_delta import DeltaimgDelta
from deltaimg.delta.encode import EncodedRecord, Encoder, Sources
from deltaimg.delta.interface import DeltaCodecs
from deltaimg.delta.zstd_delta import ZstdDelta
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.format.sources import SourceTable
from deltaimg.kernels import digest_blocks

KEY = bytes(32)
BLOCK_BYTES = 4096
NOISE = random.Random(51).randbytes(16 * BLOCK_BYTES)
SAME = NOISE[: 8 * BLOCK_BYTES]
HALF_NEW = NOISE[: 4 * BLOCK_BYTES] + random.Random(52).randbytes(4 * BLOCK_BYTES)
WORDS = random.Random(53)
WORD_LIST = [WORDS.randbytes(6) for _ in range(3000)]
WORDS_NEW = b"".join(WORDS.choices(WORD_LIST, k=8 * BLOCK_BYTES // 6 + 1))[: 8 * BLOCK_BYTES]
"""Pieces of 6 bytes, which zstd finds in the sources and our search does not look for."""
_ROW = struct.Struct("<IIQ48s")
PAGES = b"".join(_ROW.pack(row, 77, row * 1000, NOISE[row % 40 * 5 :][:48]) for row in range(16 * BLOCK_BYTES // 64))
"""Rows of a table, each with counters: what regular data is."""
TEXT = b" ".join(WORDS.choices([word.hex().encode()[: 3 + n % 8] for n, word in enumerate(WORD_LIST)], k=12_000))[
    : 16 * BLOCK_BYTES
]


class Recorder:
    """A codec that notes what it was called for."""

    def __init__(self, codec: Any) -> None:
        self.encoding_id, self.name, self.decode = codec.encoding_id, codec.name, codec.decode
        self._codec, self.lengths = codec, list[int]()

    @property
    def calls(self) -> int:
        return len(self.lengths)

    def encode(self, *parts: memoryview) -> Any:
        self.lengths.append(len(parts[0]))
        return self._codec.encode(*parts)


def encode_literal(content: bytes, second: Recorder | DeltaimgCodec | None) -> EncodedRecord:
    encoder = Encoder(ZstdCodec(), (), record_key=KEY, block_bytes=BLOCK_BYTES, second_codec=second)
    scratch = memoryview(bytearray(len(content)))
    return encoder.encode(memoryview(content), digest_blocks(KEY, content, BLOCK_BYTES), None, scratch)


def encode(content: bytes, sources: bytes, codecs: DeltaCodecs) -> EncodedRecord:
    blocks = len(sources) // BLOCK_BYTES
    runs = np.array([(0, blocks)], SLOT_RUN)
    table = SourceTable(np.ones((1, 16), np.uint8), np.array([1], np.uint16), runs)
    encoder = Encoder(ZstdCodec(), codecs, record_key=KEY, block_bytes=BLOCK_BYTES)
    digests = digest_blocks(KEY, content, BLOCK_BYTES)
    scratch = memoryview(bytearray(len(content)))
    return encoder.encode(memoryview(content), digests, Sources(table, memoryview(sources)), scratch)


def test_a_second_round_is_tried_only_where_the_first_leaves_more_than_an_eighth() -> None:
    first, second = Recorder(DeltaimgDelta()), Recorder(ZstdDelta())
    assert encode(SAME, NOISE, ((first,), (second,))).header.encoding == DeltaimgDelta.encoding_id
    assert (first.calls, second.calls) == (1, 0)
    encode(HALF_NEW, NOISE, ((first,), (second,)))
    assert (first.calls, second.calls) == (2, 1)


@pytest.mark.parametrize("content", [HALF_NEW, WORDS_NEW], ids=["half new", "words"])
@pytest.mark.parametrize("codecs", [(DeltaimgDelta(), ZstdDelta()), (ZstdDelta(), DeltaimgDelta())])
def test_the_smallest_of_all_rounds_is_taken(
    content: bytes, codecs: tuple[DeltaimgDelta | ZstdDelta, DeltaimgDelta | ZstdDelta]
) -> None:
    sources = NOISE + b"".join(WORD_LIST)[: 4 * BLOCK_BYTES]
    sizes = {codec.encoding_id: len(codec.encode(memoryview(content), memoryview(sources))) for codec in codecs}
    made = encode(content, sources, ((codecs[0],), (codecs[1],)))
    assert made.header.encoding == min(sizes, key=lambda encoding: sizes[encoding])


def test_all_of_a_round_are_tried_however_small_the_first_delta_is() -> None:
    together = Recorder(DeltaimgDelta()), Recorder(ZstdDelta())
    encode(SAME, NOISE, (together,))
    assert [codec.calls for codec in together] == [1, 1]


def test_regular_content_becomes_smaller_by_a_second_codec() -> None:
    alone, with_second = encode_literal(PAGES, None), encode_literal(PAGES, DeltaimgCodec())
    assert alone.header.encoding == ZstdCodec.encoding_id
    assert with_second.header.encoding == DeltaimgCodec.encoding_id
    assert with_second.header.sources == 0
    assert len(with_second.payload) < 0.6 * len(alone.payload)
    assert DeltaimgCodec().decode(with_second.payload, len(PAGES)) == PAGES


def test_a_second_codec_is_tried_on_a_sample_first_and_not_on_what_does_not_compress() -> None:
    second = Recorder(DeltaimgCodec())
    encode_literal(PAGES, second)
    encode_literal(TEXT, second)
    encode_literal(NOISE, second)
    assert second.lengths == [32 << 10, len(PAGES), 32 << 10]
