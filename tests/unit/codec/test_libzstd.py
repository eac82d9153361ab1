# SPDX-License-Identifier: Apache-2.0
"""zstd through contexts that are kept, and through python-zstandard where these are unavailable: each reads the other."""

from __future__ import annotations

import itertools
import random
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from deltaimg.codec import libzstd
from deltaimg.codec.libzstd import Parameters, compress, compress_parts, expand

HISTORY = random.Random(1).randbytes(200_000)
CONTENT = HISTORY[50_000:120_000] + b"something else " * 1000
PARAMETERS = [Parameters(3), Parameters(6, window_log=19, table_log=18, min_match=6), Parameters(18, window_log=19)]


@pytest.fixture(params=["kept", "new"])
def _contexts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "new":
        monkeypatch.setattr(libzstd, "_contexts", lambda: None)


def _expand(payload: bytes, history: bytes | None = None, length: int = len(CONTENT)) -> bytes:
    content = bytearray(length)
    expand(payload, memoryview(content), None if history is None else memoryview(history))
    return bytes(content)


@pytest.mark.usefixtures("_contexts")
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_content_is_decoded_with_its_history_and_without(parameters: Parameters) -> None:
    payload = compress(CONTENT, parameters)
    delta = compress(CONTENT, parameters, memoryview(HISTORY))
    assert _expand(payload) == CONTENT
    assert _expand(delta, HISTORY) == CONTENT
    assert len(delta) < len(payload) / 50


def _count_blocks(frame: bytes) -> int:
    """A block has a header of 24 bits: whether it is the last, its type (1: a byte, repeated), its size (RFC 8878, 3.1.1.2)."""
    at, count, is_last = zstandard.frame_header_size(frame), 0, False
    while not is_last:
        header = int.from_bytes(frame[at : at + 3], "little")
        at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)
        count, is_last = count + 1, bool(header & 1)
    return count


@pytest.mark.usefixtures("_contexts")
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_parts_become_one_frame(parameters: Parameters) -> None:
    bounds = [0, 0, 5, 70_000, 70_000, len(CONTENT), len(CONTENT)]
    parts = [memoryview(CONTENT)[start:end] for start, end in itertools.pairwise(bounds)]
    frame = compress_parts(parts, parameters)
    assert _expand(frame) == CONTENT
    assert zstandard.get_frame_parameters(frame).content_size == len(CONTENT)
    assert _count_blocks(frame) >= 3 > 2 >= _count_blocks(compress_parts([memoryview(CONTENT)], parameters))
    noise = memoryview(HISTORY)
    thousands = compress_parts([noise[at : at + 40] for at in range(0, len(noise), 40)], parameters)
    assert _expand(thousands, length=len(noise)) == HISTORY


@pytest.mark.usefixtures("_contexts")
def test_parts_leave_no_trace_in_what_is_compressed_next() -> None:
    alone = compress(CONTENT, PARAMETERS[0])
    compress_parts([memoryview(CONTENT)], PARAMETERS[0])
    assert compress(CONTENT, PARAMETERS[0]) == alone


@pytest.mark.usefixtures("_contexts")
def test_a_history_is_forgotten_with_its_frame() -> None:
    delta = compress(CONTENT, PARAMETERS[1], memoryview(HISTORY))
    assert _expand(delta, HISTORY) == CONTENT
    assert _expand(compress(CONTENT, PARAMETERS[1])) == CONTENT
    with pytest.raises(ValueError, match="cannot be expanded"):
        _expand(delta)


@pytest.mark.usefixtures("_contexts")
def test_what_fails_leaves_no_trace() -> None:
    good = compress(CONTENT, PARAMETERS[0])
    for damaged in (b"", b"noise" * 20, good[:-1]):
        with pytest.raises(ValueError, match=r"."):
            _expand(damaged, HISTORY)
        assert _expand(good) == CONTENT
    with pytest.raises(ValueError, match="does not expand to 5 bytes"):
        _expand(good, length=5)


@pytest.mark.usefixtures("_contexts")
@pytest.mark.parametrize(
    "tail",
    [zstandard.compress(b""), struct.pack("<II4s", 0x184D2A50, 4, b"skip"), b"more"],
    ids=["empty frame", "skippable frame", "bytes"],
)
def test_a_payload_is_exactly_one_frame(tail: bytes) -> None:
    for history in (None, HISTORY):
        payload = compress(CONTENT, PARAMETERS[0], None if history is None else memoryview(history))
        for several in (payload + tail, tail + payload):
            with pytest.raises(ValueError, match=r"."):
                _expand(several, history)


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_either_way_reads_what_the_other_writes(parameters: Parameters, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = compress(CONTENT, parameters, memoryview(HISTORY))
    with monkeypatch.context() as patched:
        patched.setattr(libzstd, "_contexts", lambda: None)
        separate = compress(CONTENT, parameters, memoryview(HISTORY))
        assert _expand(kept, HISTORY) == CONTENT
    assert _expand(separate, HISTORY) == CONTENT


@pytest.mark.usefixtures("_contexts")
def test_many_threads_have_contexts_of_their_own() -> None:
    def round_trip(number: int) -> bool:
        content = CONTENT[: 1000 * number]
        history = HISTORY if number % 2 else None
        payload = compress(content, PARAMETERS[number % 3], None if history is None else memoryview(history))
        return _expand(payload, history, len(content)) == content

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(round_trip, range(1, 60)))
