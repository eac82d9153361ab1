# SPDX-License-Identifier: Apache-2.0
"""What every delta codec promises, and that the xdelta3 program agrees with ours on VCDIFF."""

from __future__ import annotations

import itertools
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from deltaimg.delta import xdelta
from deltaimg.delta.deltaimg_delta import DeltaimgDelta
from deltaimg.delta.interface import DeltaCodec
from deltaimg.delta.registry import find_delta_decoder, make_delta_codecs
from deltaimg.delta.xdelta import XdeltaDelta, load_xdelta
from deltaimg.delta.zstd_delta import ZstdDelta
from deltaimg.errors import XdeltaUnusable
from deltaimg.format.limits import MAX_RECORD_BYTES
from deltaimg.model import MIB
from deltaimg.options.backup import DELTA_MODES
from tests.support.components import requires_program

CODECS = [ZstdDelta(), ZstdDelta(9), XdeltaDelta(), XdeltaDelta(1), XdeltaDelta(9), DeltaimgDelta(), DeltaimgDelta(9)]
NOISE = random.Random(31).randbytes(MIB)
SOURCES = {"noise": NOISE, "nothing": b"", "one byte": b"x", "text": b"0123456789 and so on\n" * 9000}
CONTENTS = {
    "the source, moved and changed": NOISE[5000:200_000] + b"new" + NOISE[:4000],
    "nothing alike": random.Random(32).randbytes(300_001),
    "one byte": b"y",
    "zeros": bytes(MIB),
}


@pytest.fixture(params=CODECS, ids=lambda codec: f"{codec.name}-{codec.level}")
def codec(request: pytest.FixtureRequest) -> DeltaCodec:
    return request.param


@pytest.mark.parametrize("sources", SOURCES.values(), ids=SOURCES.keys())
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_content_is_decoded_as_it_was_encoded(codec: DeltaCodec, content: bytes, sources: bytes) -> None:
    payload = codec.encode(memoryview(content), memoryview(sources))
    scratch = memoryview(bytearray(2 * MIB))
    for memory in (None, scratch):
        decoded = codec.decode(memoryview(payload), memoryview(sources), len(content), memory)
        assert bytes(decoded) == content


def test_what_is_alike_costs_next_to_nothing(codec: DeltaCodec) -> None:
    assert len(codec.encode(memoryview(CONTENTS["the source, moved and changed"]), memoryview(NOISE))) < 600


def test_the_largest_record_is_decoded(codec: DeltaCodec) -> None:
    content = (NOISE[:-1] + b"!") * (MAX_RECORD_BYTES // MIB)
    payload = codec.encode(memoryview(content), memoryview(NOISE))
    assert codec.decode(memoryview(payload), memoryview(NOISE), len(content)) == content


@pytest.mark.parametrize("wrong", [-1, 1, 1000])
def test_another_length_is_refused(codec: DeltaCodec, wrong: int) -> None:
    content = CONTENTS["nothing alike"]
    payload = memoryview(codec.encode(memoryview(content), memoryview(NOISE)))
    with pytest.raises(ValueError, match=r"."):
        codec.decode(payload, memoryview(NOISE), len(content) + wrong)


def test_a_payload_that_goes_on_behind_its_frame_is_refused(codec: DeltaCodec) -> None:
    content = CONTENTS["nothing alike"]
    payload = codec.encode(memoryview(content), memoryview(NOISE))
    for tail in (zstandard.compress(b""), b"\x50\x2a\x4d\x18\0\0\0\0", b"more"):
        with pytest.raises(ValueError, match=r"."):
            codec.decode(memoryview(payload + tail), memoryview(NOISE), len(content))


def test_damage_never_brings_more_than_was_asked_for(codec: DeltaCodec) -> None:
    content, sources = NOISE[100:5100] + b"new" * 100, memoryview(NOISE[:8192])
    payload = codec.encode(memoryview(content), sources)
    chance = random.Random(33)
    for _ in range(300):
        damaged = bytearray(payload)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            decoded = codec.decode(memoryview(bytes(damaged)), sources, len(content))
        except ValueError:
            continue
        assert len(decoded) == len(content)


def test_vcdiff_that_is_damaged_inside_its_frame_is_refused_or_has_the_right_length() -> None:
    """zstd's own checks do not stand before xdelta3 here: what is damaged is what it reads."""
    content, sources = NOISE[100:5100] + b"new" * 100 + NOISE[6000:7000], memoryview(NOISE[:8192])
    delta = zstandard.decompress(XdeltaDelta().encode(memoryview(content), sources))
    chance = random.Random(34)
    refused = 0
    for _ in range(3000):
        damaged = bytearray(delta)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        del damaged[len(damaged) - chance.choice((0, 0, 0, 1, 50)) :]
        try:
            decoded = XdeltaDelta().decode(memoryview(zstandard.compress(damaged)), sources, len(content))
        except ValueError:
            refused += 1
            continue
        assert len(decoded) == len(content)
    assert refused > 300


@pytest.mark.parametrize("content", [b"", b"no frame", zstandard.compress(bytes(64 * MIB))])
def test_what_is_no_vcdiff_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        XdeltaDelta().decode(memoryview(content), memoryview(NOISE), 4096)


def test_threads_share_a_codec(codec: DeltaCodec) -> None:
    def round_trip(number: int) -> bool:
        content = NOISE[number * 1000 : number * 1000 + 50_000] + bytes([number])
        payload = codec.encode(memoryview(content), memoryview(NOISE))
        return codec.decode(memoryview(payload), memoryview(NOISE), len(content)) == content

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(round_trip, range(40)))


def test_every_mode_makes_what_can_be_decoded() -> None:
    for mode in DELTA_MODES:
        for made in itertools.chain.from_iterable(make_delta_codecs(mode, 3)):
            assert type(find_delta_decoder(made.encoding_id)) is type(made)


def test_auto_tries_zstd_only_where_its_own_delta_is_large() -> None:
    names = [[codec.name for codec in codecs] for codecs in make_delta_codecs("auto", 3)]
    assert names == [["deltaimg"], ["zstd"]]


def test_the_xdelta3_program_reads_ours(tmp_path: Path) -> None:
    program = requires_program("xdelta3")
    content = CONTENTS["the source, moved and changed"]
    (tmp_path / "source").write_bytes(NOISE)
    (tmp_path / "delta").write_bytes(zstandard.decompress(XdeltaDelta().encode(memoryview(content), memoryview(NOISE))))
    subprocess.run([program, "-d", "-s", "source", "delta", "out"], cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_bytes() == content


@pytest.mark.parametrize("options", [["-0"], ["-1"], ["-9", "-n", "-A"]])
def test_we_read_what_the_xdelta3_program_writes(tmp_path: Path, options: list[str]) -> None:
    program = requires_program("xdelta3")
    content = CONTENTS["the source, moved and changed"]
    (tmp_path / "source").write_bytes(NOISE)
    (tmp_path / "new").write_bytes(content)
    subprocess.run([program, "-e", "-S", "none", *options, "-s", "source", "new", "delta"], cwd=tmp_path, check=True)
    payload = zstandard.compress((tmp_path / "delta").read_bytes())
    assert XdeltaDelta().decode(memoryview(payload), memoryview(NOISE), len(content)) == content


class _Spec:
    def __init__(self, origin: str | None) -> None:
        self.origin = origin


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (None, "not installed"),
        (_Spec(None), "not installed"),
        (_Spec("/proc/version"), "cannot be used"),
        (_Spec("libc.so.6"), "cannot be used"),
    ],
)
def test_a_module_that_cannot_be_used_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, spec: object, says: str
) -> None:
    monkeypatch.setattr(xdelta, "find_spec", lambda _: spec)
    load_xdelta.cache_clear()
    try:
        with pytest.raises(XdeltaUnusable, match=says) as caught:
            load_xdelta()
        assert "pip install" in str(caught.value.hint)
    finally:
        load_xdelta.cache_clear()


@pytest.mark.parametrize("width", [4, 8])
def test_a_build_of_either_width_is_told_by_what_it_writes(width: int) -> None:
    """A library whose sizes are as wide as is claimed is used, any other refused."""
    library = load_xdelta()
    claimed = xdelta._Library(library.ffi, library.functions, width)
    assert xdelta._gives_back(claimed) == (width == library.width)
