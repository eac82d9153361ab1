# SPDX-License-Identifier: Apache-2.0
"""What every codec promises."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.codec.interface import Codec
from deltaimg.codec.none import NoneCodec
from deltaimg.codec.registry import find_decoder
from deltaimg.codec.zstd import ZstdCodec
from deltaimg.errors import UsageError
from deltaimg.model import MIB
from deltaimg.options.backup import LEVELS, MAX_LEVEL, MIN_LEVEL, parse_level

CODECS = [
    NoneCodec(),
    ZstdCodec(),
    ZstdCodec(MIN_LEVEL),
    ZstdCodec(MAX_LEVEL),
    DeltaimgCodec(),
    DeltaimgCodec(MAX_LEVEL),
]
CONTENTS = {
    "nothing": b"",
    "one byte": b"x",
    "zeros": bytes(MIB),
    "text": b"all work and no play makes a dull boy\n" * 20_000,
    "noise": random.Random(21).randbytes(300_001),
}


@pytest.fixture(params=CODECS, ids=lambda codec: f"{codec.name}-{getattr(codec, 'level', '')}")
def codec(request: pytest.FixtureRequest) -> Codec:
    return request.param


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_content_is_decoded_as_it_was_encoded(codec: Codec, content: bytes) -> None:
    payload = codec.encode(memoryview(content))
    assert bytes(codec.decode(memoryview(payload), len(content))) == content


@pytest.mark.parametrize("wrong", [-1, 1, 1000])
def test_another_length_is_refused(codec: Codec, wrong: int) -> None:
    content = CONTENTS["text"]
    with pytest.raises(ValueError, match=r"."):
        codec.decode(codec.encode(content), len(content) + wrong)


def test_damage_never_brings_more_than_was_asked_for(codec: Codec) -> None:
    content = CONTENTS["text"][:5000]
    payload = codec.encode(content)
    chance = random.Random(22)
    for _ in range(300):
        damaged = bytearray(payload)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            decoded = codec.decode(bytes(damaged), len(content))
        except ValueError:
            continue
        assert len(decoded) == len(content)


@pytest.mark.parametrize("cut", [0, 1, 4, 10, -1])
def test_a_truncated_payload_is_refused(codec: Codec, cut: int) -> None:
    content = CONTENTS["text"][:5000]
    with pytest.raises(ValueError, match=r"."):
        codec.decode(codec.encode(content)[:cut], len(content))


def test_a_longer_payload_is_refused_or_changes_nothing(codec: Codec) -> None:
    content = CONTENTS["text"][:5000]
    try:
        decoded = codec.decode(codec.encode(content) + b"x", len(content))
    except ValueError:
        return
    assert bytes(decoded) == content


def test_many_threads_share_one(codec: Codec) -> None:
    def round_trip(number: int) -> bool:
        content = CONTENTS["noise"][: 1000 * number] + CONTENTS["text"][:9000]
        return bytes(codec.decode(codec.encode(content), len(content))) == content

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(round_trip, range(60)))


def test_the_registry_decodes_what_each_encodes(codec: Codec) -> None:
    decoder = find_decoder(codec.encoding_id)
    assert decoder is not None
    assert decoder.name == codec.name
    assert bytes(decoder.decode(codec.encode(b"abc" * 99), 297)) == b"abc" * 99


def test_unknown_encodings_have_no_decoder() -> None:
    assert [number for number in range(256) if find_decoder(number)] == [0, 1, 4]


def test_a_bomb_is_refused_before_it_expands() -> None:
    """A frame that claims a little and holds a lot, and one that claims a lot."""
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * MIB))
    sized = zstandard.ZstdCompressor().compress(bytes(64 * MIB))
    for bomb in (unsized, sized):
        with pytest.raises(ValueError, match=r"does not expand"):
            ZstdCodec().decode(bomb, 4096)


@pytest.mark.parametrize(("text", "level"), [*LEVELS.items(), ("7", 7), (19, 19), ("1", 1)])
def test_levels_have_names_and_numbers(text: str | int, level: int) -> None:
    assert parse_level(text) == level


@pytest.mark.parametrize("text", ["", "0", "20", "-3", "fastest", "3.5", 0, 99])
def test_other_levels_are_refused(text: str | int) -> None:
    with pytest.raises(UsageError, match=r"is neither fast, default, best nor a level from 1 to 19"):
        parse_level(text)
