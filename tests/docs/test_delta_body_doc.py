# SPDX-License-Identifier: Apache-2.0
"""docs/format.md, "Delta body": a reader made from its text alone reads what deltaimg writes, and refuses what it refuses."""

from __future__ import annotations

import random

import pytest

from deltaimg.delta.deltaimg_delta import DeltaimgDelta
from deltaimg.errors import NativeError
from deltaimg.format.limits import MAX_RECORD_BYTES, MAX_SOURCE_BYTES
from deltaimg.kernels import decode_delta, delta_bound
from deltaimg.kernels.layout import MAX_DELTA_BYTES
from tests.docs.delta_reader import read_delta_body
from tests.docs.doc_tables import section, table
from tests.golden.delta_bodies import DELTA_SAMPLES, encode, read_delta_sample

RULES = {
    *(f"kind {kind}" for kind in range(5)), "repeats itself", "more", "longs", "few without a base", "singles", "shorts",
    "singles differ", "shorts plain", "shorts differ",
}  # fmt: skip


def read(body: bytes, sources: bytes, content_bytes: int) -> bytes | None:
    try:
        return read_delta_body(body, sources, content_bytes)[0]
    except ValueError:
        return None


def decode(body: bytes, sources: bytes, content_bytes: int) -> bytes | None:
    out = bytearray(content_bytes)
    try:
        decode_delta(body, sources, memoryview(out))
    except NativeError:
        return None
    return bytes(out)


def test_a_reader_made_from_the_document_reads_the_golden_bodies_by_all_of_its_rules():
    followed = set()
    for name in DELTA_SAMPLES:
        sample = read_delta_sample(name)
        content, rules = read_delta_body(sample.body, sample.sources, len(sample.content))
        assert content == sample.content
        followed |= rules
    assert followed == RULES


def test_that_reader_refuses_what_deltaimg_refuses():
    chance, refused = random.Random(41), 0
    for sample in map(read_delta_sample, DELTA_SAMPLES):
        for _ in range(4000):
            body = bytearray(sample.body)
            for _ in range(chance.randrange(1, 4)):
                body[chance.randrange(len(body))] = chance.randrange(256)
            del body[len(body) - chance.choice((0, 0, 0, 1, 20)) :]
            content_bytes = len(sample.content) - chance.choice((0, 0, 0, 1, -1))
            made = read(bytes(body), sample.sources, content_bytes)
            assert made == decode(bytes(body), sample.sources, content_bytes)
            refused += made is None
    assert 1000 < refused < 7900


def test_that_reader_reads_what_deltaimg_writes():
    chance = random.Random(42)
    for _ in range(60):
        sources = b"".join(chance.randbytes(5) + bytes(range(chance.randrange(40))) for _ in range(50))
        content = b"".join(sources[at : at + 90] + b"!" for at in (chance.randrange(len(sources)) for _ in range(30)))
        assert read(encode(content, sources), sources, len(content)) == content


def test_the_table_of_kinds_and_the_limits_are_those_of_the_code():
    rows = table("Delta body", ["kind", "distance", "the three then"])
    assert [row["kind"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert delta_bound(1000) == 2 * 1000 + 1024
    assert "2 times the content and 1024 bytes" in section("Delta body").replace("\n", " ")
    assert MAX_DELTA_BYTES == 2**25 == MAX_RECORD_BYTES + MAX_SOURCE_BYTES


@pytest.mark.parametrize("name", DELTA_SAMPLES)
def test_the_frame_around_a_body_is_as_the_document_says(name):
    import zstandard

    sample = read_delta_sample(name)
    payload = zstandard.ZstdCompressor(write_checksum=True).compress(sample.body)
    made = DeltaimgDelta().decode(memoryview(payload), memoryview(sample.sources), len(sample.content))
    assert made == sample.content
    written = DeltaimgDelta().encode(memoryview(sample.content), memoryview(sample.sources))
    assert read(zstandard.decompress(written), sample.sources, len(sample.content)) == sample.content
