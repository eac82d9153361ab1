# SPDX-License-Identifier: Apache-2.0
"""The frame around a delta body: exactly one, which says how long the body is, and no longer than the content may need."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import zstandard

from deltaimg.codec import libzstd
from deltaimg.codec.delta_body import decode_body, encode_body
from deltaimg.kernels import delta_bound
from deltaimg.model import MIB

CONTENT = b"content that is not in its sources"
SOURCES = b"sources"
BODY = b"\0\0\0\0\0" + CONTENT


@pytest.fixture(params=["module", "classes"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to libzstd refuse alike."""
    if request.param == "classes":
        monkeypatch.setattr(libzstd, "_contexts", lambda: None)


def frame(body: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(body)


def test_one_frame_is_read() -> None:
    assert decode_body(frame(BODY), SOURCES, len(CONTENT)) == CONTENT


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no frame",
        frame(BODY, write_content_size=False),
        frame(BODY)[:-1],
        frame(BODY) + b"x",
        frame(BODY) + frame(b""),
        frame(BODY) + frame(BODY),
        b"\x50\x2a\x4d\x18\0\0\0\0" + frame(BODY),
        frame(BODY) + b"\x50\x2a\x4d\x18\0\0\0\0",
        frame(BODY[:10]) + frame(BODY[10:]),
    ],
    ids=[
        "nothing", "no frame", "no content size", "cut", "more bytes", "an empty frame behind", "twice", "skippable before",
        "skippable behind", "in two frames",
    ],
)  # fmt: skip
def test_what_is_not_exactly_one_frame_with_its_content_size_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_body(payload, SOURCES, len(CONTENT))


def test_a_body_is_as_long_as_content_may_need_and_no_longer() -> None:
    bound = delta_bound(len(CONTENT))
    with pytest.raises(ValueError, match="holds no delta"):
        decode_body(frame(bytes(bound)), SOURCES, len(CONTENT))
    with pytest.raises(ValueError, match=f"holds {bound + 1} bytes of delta for {len(CONTENT)} bytes"):
        decode_body(frame(bytes(bound + 1)), SOURCES, len(CONTENT))


def test_a_body_that_is_too_long_is_refused_before_there_is_memory_for_it() -> None:
    payload = frame(bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="bytes of delta"):
            decode_body(payload, SOURCES, len(CONTENT))
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sources", [b"", CONTENT * 100])
def test_content_of_any_length_is_decoded_as_it_was_encoded(sources: bytes) -> None:
    chance = random.Random(71)
    for content_bytes in (0, 1, 7, 8, 9, 1000, 70_000):
        content = (CONTENT * 3000)[: content_bytes // 2] + chance.randbytes(content_bytes - content_bytes // 2)
        assert decode_body(encode_body(content, sources, 3), sources, content_bytes) == content
