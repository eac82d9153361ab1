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
from deltaimg.delta.encode import EncodedRecord, Encoder
from deltaimg.delta.interface import DeltaCodec, DeltaCodecs
from deltaimg.delta.sources import Sources
from deltaimg.delta.zstd_delta import ZstdDelta
from deltaimg.format.sources import SourceTable, build_sources, describe_slots
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


class Recorder(DeltaCodec):
    """A codec that notes what it was called for."""

    def __init__(self, codec: Any) -> None:
        self.encoding_id, self.name, self.decode = codec.encoding_id, codec.name, codec.decode  # type: ignore[misc, method-assign]
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


def name_blocks(blocks: int, of_record: int) -> SourceTable:
    """A table of so many blocks, `of_record` in each record."""
    records = np.arange(blocks) // of_record
    return describe_slots(records, np.arange(blocks) % of_record, lambda named: np.repeat(named.astype(np.uint8), 16))


def encode(content: bytes, sources: bytes, codecs: DeltaCodecs, of_record: int = 128) -> EncodedRecord:
    table = name_blocks(len(sources) // BLOCK_BYTES, of_record)
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


def test_blocks_that_a_delta_needs_little_of_are_no_sources() -> None:
    content = (
        NOISE[3 * BLOCK_BYTES : 5 * BLOCK_BYTES] + NOISE[9 * BLOCK_BYTES : 11 * BLOCK_BYTES] + NOISE[:100] + bytes(3996)
    )
    made = encode(content, NOISE, ((DeltaimgDelta(),),), of_record=4)
    assert made.tables.sources is not None
    records, slots = made.tables.sources.list_slots()
    named = made.tables.sources.ids[records, 0]
    assert list(zip(named.tolist(), slots.tolist(), strict=True)) == [(0, 3), (1, 0), (2, 1), (2, 2)]
    kept = b"".join(NOISE[block * BLOCK_BYTES :][:BLOCK_BYTES] for block in (3, 4, 9, 10))
    payload = memoryview(made.payload)[len(build_sources(made.tables.sources)) :]
    assert DeltaimgDelta().decode(payload, memoryview(kept), len(content)) == content


def test_a_record_that_a_delta_needs_little_of_is_no_source() -> None:
    little = b"".join(NOISE[block * BLOCK_BYTES :][:160] for block in range(4, 7))
    content = NOISE[: 4 * BLOCK_BYTES] + little + bytes(BLOCK_BYTES - len(little))
    made = encode(content, NOISE, ((DeltaimgDelta(),),), of_record=4)
    assert made.tables.sources is not None
    assert made.tables.sources.ids[:, 0].tolist() == [0]


def test_content_that_needs_little_of_its_sources_is_a_literal() -> None:
    content = NOISE[:400] + bytes(4 * BLOCK_BYTES - 400)
    made = encode(content, NOISE, ((DeltaimgDelta(),),))
    assert made.header.encoding == ZstdCodec.encoding_id
    assert made.gain == 0


def test_all_sources_stay_where_few_are_of_no_use() -> None:
    made = encode(NOISE[: 15 * BLOCK_BYTES] + bytes(BLOCK_BYTES), NOISE * 2, ((DeltaimgDelta(),),), of_record=32)
    assert made.tables.sources is not None
    assert made.tables.sources.slot_count == 15
    made = encode(NOISE * 2, NOISE * 2 + bytes(BLOCK_BYTES), ((DeltaimgDelta(),),), of_record=64)
    assert made.tables.sources is not None
    assert made.tables.sources.slot_count in (16, 33)


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
