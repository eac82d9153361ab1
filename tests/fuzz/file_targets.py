# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets of signatures, deltas and patches of single files, and of what delta records have in front and inside.

Each takes bytes and raises only what would be a defect. Making a delta and patching go all the way that the commands go, from a
file of such bytes to a target, which is memory and does not grow large. Bodies stand under headers whose checksums are right.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import zstandard

from deltaimg.delta.deltaimg_delta import DeltaimgDelta
from deltaimg.delta.xdelta import XdeltaDelta
from deltaimg.delta.zstd_delta import ZstdDelta
from deltaimg.engine.files.registry import DIRECT_FORMATS, FORMATS, SIGNATURE_FORMATS
from deltaimg.engine.files.streams import Input, Output
from deltaimg.engine.progress import NoProgress
from deltaimg.errors import DeltaimgError, NativeError, TargetTooSmall
from deltaimg.format.delta import HEAD, build_delta, parse_delta
from deltaimg.format.framing import HEADER_BYTES, Kind
from deltaimg.format.rdiff import Copy, parse_rdiff_delta, parse_rdiff_signature
from deltaimg.format.record import CutTable, RecordHeader, RecordTables, build_tables, parse_tables
from deltaimg.format.slot_runs import SLOT_RUN
from deltaimg.format.sources import SourceTable, build_sources, parse_sources
from deltaimg.format.sums import build_sums, parse_sums
from deltaimg.format.vcdiff import VCDIFF_HEAD, Window, build_window, parse_vcdiff
from deltaimg.image.open_source import open_source
from deltaimg.image.source import ImageSource
from deltaimg.image.stream_target import StreamTarget
from deltaimg.kernels import native, reference_delta, reference_vcdiff
from tests.fuzz.harness import fingerprint
from tests.golden import forge
from tests.golden.delta_bodies import DELTA_SAMPLES
from tests.golden.delta_bodies import encode as encode_delta_body
from tests.support.file_samples import DELTA, OLD, RDIFF_DELTA, RDIFF_SIGNATURE, SUMS, VCDIFF

MAX_MADE_BYTES = 1 << 20
"""A target grows no further: a delta may copy the old file any number of times."""
_MAX_BLOCK_BYTES = 1 << 16
"""Larger blocks are legal in rdiff's signatures, and take longer than a fuzzer should wait."""


class MemoryTarget(StreamTarget):
    """Keeps what is written; it does not grow large."""

    def __init__(self) -> None:
        self.path, self.content = "target", bytearray()
        self._is_owned = False

    def write(self, offset: int, data: memoryview) -> None:
        assert offset == len(self.content), "a stream is written front to back"
        if offset + len(data) > MAX_MADE_BYTES:
            raise TargetTooSmall(self.path, "is as large as it may get")
        self.content += data

    def clear(self, offset: int, length: int) -> None:
        self.write(offset, memoryview(bytes(min(length, MAX_MADE_BYTES + 1))))


def dress_delta(body: bytes) -> bytes:
    """Return the body of a delta whose columns, plain in `body`, are compressed."""
    if len(body) < HEAD.size:
        return body
    fields = list(HEAD.unpack_from(body))
    planes_bytes = 9 * fields[7] + 8 * fields[8]
    planes, literals = body[HEAD.size :][:planes_bytes], body[HEAD.size + planes_bytes :]
    packed = zstandard.compress(planes)
    fields[9] = len(packed)
    return HEAD.pack(*fields) + packed + literals


def undress_delta(data: bytes | bytearray) -> bytes:
    """Return the body of the delta object `data` as `dress_delta` takes it."""
    body = bytes(data[HEADER_BYTES:])
    packed_bytes = HEAD.unpack_from(body)[9]
    packed, literals = body[HEAD.size :][:packed_bytes], body[HEAD.size + packed_bytes :]
    return body[: HEAD.size] + zstandard.decompress(packed) + literals


def dress_own(kind: Kind, data: bytes) -> bytes:
    """Return an object of fuzzed bytes: the first says whether they come from nowhere, or get a header and are compressed."""
    how, body = data[:1], data[1:]
    if how == b"\0":
        return body
    return forge.forge_object(kind, dress_delta(body) if kind == Kind.DELTA and how == b"\1" else body)


def _exercise_object(kind: Kind, data: bytes) -> None:
    parse, build = (parse_sums, build_sums) if kind == Kind.SUMS else (parse_delta, build_delta)
    value = parse(dress_own(kind, data), "x")
    assert fingerprint(parse(build(value), "x")) == fingerprint(value), "it is not rebuilt as it was read"


def _exercise_rdiff_signature(data: bytes) -> None:
    found = parse_rdiff_signature(io.BytesIO(data).read, "x")
    assert len(found.weaks) == len(found.strongs)


def _exercise_rdiff_delta(data: bytes) -> None:
    for command in parse_rdiff_delta(io.BytesIO(data).read, "x"):
        assert command.length > 0 if isinstance(command, Copy) else 0 < len(command) <= 1 << 20


def make_window(kernel: object, window: Window) -> tuple[list[int], bytes] | str:
    """Return what a window makes of OLD, and the pages that it takes from; or the status of the failure."""
    out = bytearray(window.target_bytes)
    try:
        pages = kernel.survey_vcdiff(window.sections, window.segment_bytes, window.target_bytes)  # type: ignore[attr-defined]
        kernel.apply_vcdiff(window.sections, OLD[: window.segment_bytes], memoryview(out), window.segment_bytes)  # type: ignore[attr-defined]
    except NativeError as error:
        return error.status
    return pages.tolist(), bytes(out)


def _exercise_vcdiff(data: bytes) -> None:
    for window in parse_vcdiff(io.BytesIO(data).read, "x"):
        again = next(parse_vcdiff(io.BytesIO(VCDIFF_HEAD + build_window(window)).read, "x"))
        assert again.sections == window.sections
        if window.segment_bytes <= len(OLD) and window.target_bytes <= MAX_MADE_BYTES:
            assert make_window(native, window) == make_window(reference_vcdiff, window), "the kernels disagree"


def _exercise_sources(data: bytes) -> None:
    if len(data) < 3:
        return
    count, shift, payload = int.from_bytes(data[:2], "little"), 12 + data[2] % 9, memoryview(data)[3:]
    table, delta = parse_sources("x", 0, payload, count, 1 << shift)
    assert build_sources(table) + bytes(delta) == payload, "the sources are not rebuilt as they were read"


def _exercise_record_tables(data: bytes) -> None:
    """The first bytes: source records, slots that are there and slots that are not; then a payload."""
    if len(data) < 4:
        return
    sources, kept, absent, payload = data[0], 1 + data[1], data[2], memoryview(data)[4:]
    header = RecordHeader(bytes(16), 0, kept + absent, 12 + data[3] % 5, len(payload), bytes(16), sources, absent)
    tables, encoded = parse_tables("x", 0, header, payload)
    assert build_tables(tables) + bytes(encoded) == payload, "the tables are not rebuilt as they were read"
    assert tables.cut is None or len(tables.cut.kept) == kept


def _exercise_delta_record(data: bytes) -> None:
    """The first byte: which encoding, and whether a frame is to be put around the rest; then two of how long the content is."""
    if len(data) < 3:
        return
    how, raw_bytes, payload = data[0], int.from_bytes(data[1:3], "little"), data[3:]
    decoder = _DELTA_DECODERS[(how >> 1) % len(_DELTA_DECODERS)]
    try:
        content = decoder.decode(
            memoryview(zstandard.compress(payload) if how & 1 else payload), memoryview(OLD), raw_bytes
        )
    except ValueError:
        return
    assert len(content) == raw_bytes


def _exercise_delta_body(data: bytes) -> None:
    """The first two bytes: how long the content is; then two of how long the sources are, the beginning of OLD."""
    if len(data) < 4:
        return
    content_bytes, sources = int.from_bytes(data[:2], "little"), OLD[: int.from_bytes(data[2:4], "little")]
    made = []
    for kernels in (native, reference_delta):
        out = bytearray(content_bytes)
        try:
            kernels.decode_delta(data[4:], sources, memoryview(out))
            made.append(bytes(out))
        except NativeError as error:
            made.append(error.status.encode())
    assert made[0] == made[1], "the kernels disagree"


@contextmanager
def _file_of(content: bytes | bytearray) -> Iterator[str]:
    """Yield the path of a file that lies in memory and is gone afterwards."""
    descriptor = os.memfd_create("fuzzed")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextmanager
def _image_of(content: bytes) -> Iterator[ImageSource]:
    with _file_of(content) as path:
        source = open_source(path)
        try:
            yield source
        finally:
            source.close()


def _dress_chain(kind: Kind, format_name: str, data: bytes) -> bytes:
    return dress_own(kind, data) if format_name == "deltaimg" else data


def _exercise_patch(data: bytes) -> None:
    """The first byte chooses the format."""
    if not data:
        return
    name = list(FORMATS)[data[0] % len(FORMATS)]
    chosen, target = FORMATS[name], MemoryTarget()
    with _image_of(OLD) as old, _file_of(_dress_chain(Kind.DELTA, name, data[1:])) as path, Input(path) as delta:
        result = chosen.patch(old, delta, target, progress=NoProgress())
    assert result.image_bytes == len(target.content)
    assert result.image_bytes == result.copied_bytes + result.zero_bytes + result.literal_bytes


def _exercise_delta(data: bytes) -> None:
    """The first byte chooses the format. What is made is as long as NEW."""
    if not data:
        return
    name = list(SIGNATURE_FORMATS)[data[0] % len(SIGNATURE_FORMATS)]
    content = _dress_chain(Kind.SUMS, name, data[1:])
    if name == "rdiff" and int.from_bytes(content[4:8], "big") > _MAX_BLOCK_BYTES:
        return
    with _image_of(OLD) as new, _file_of(content) as path, Input(path) as signature:
        output = Output(MemoryTarget())
        result = SIGNATURE_FORMATS[name].make_delta(signature, new, output, progress=NoProgress())
    assert result.image_bytes == len(OLD) == result.copied_bytes + result.zero_bytes + result.literal_bytes


@dataclass(frozen=True, slots=True)
class Target:
    """What is done with fuzzed bytes, and what to begin with."""

    exercise: Callable[[bytes], None]
    make_seeds: Callable[[], tuple[bytes, ...]]


def _seed_files() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return signatures of OLD, and deltas from it to a file that is like it, as the targets that run all the way take them."""
    signatures, deltas = [], []
    for number, (name, chosen) in enumerate(SIGNATURE_FORMATS.items()):
        signature, delta = MemoryTarget(), MemoryTarget()
        with _image_of(OLD) as old, _image_of(_LIKE_OLD) as new:
            chosen.sign(old, Output(signature), block_bytes=4096, progress=NoProgress())
            with _file_of(signature.content) as path, Input(path) as read:
                chosen.make_delta(read, new, Output(delta), progress=NoProgress())
        is_own = name == "deltaimg"
        signatures.append(bytes([number]) + (b"\2" + signature.content[HEADER_BYTES:] if is_own else signature.content))
        deltas.append(bytes([number]) + (b"\1" + undress_delta(delta.content) if is_own else delta.content))
    vcdiff = MemoryTarget()
    with _image_of(OLD) as old, _image_of(_LIKE_OLD) as new:
        DIRECT_FORMATS["vcdiff"].compare(old, new, Output(vcdiff), progress=NoProgress())
    return tuple(signatures), (*deltas, bytes([len(deltas)]) + vcdiff.content)


def _seed_records() -> tuple[bytes, ...]:
    content, sources = memoryview(_LIKE_OLD[:6000]), memoryview(OLD)
    length = len(content).to_bytes(2, "little")
    frames = [decoder.encode(content, sources) for decoder in _DELTA_DECODERS]
    framed = [bytes([2 * number]) + length + frame for number, frame in enumerate(frames)]
    bare = [bytes([2 * number + 1]) + length + zstandard.decompress(frames[number]) for number in (1, 2)]
    return *framed, *bare


def _seed_bodies() -> tuple[bytes, ...]:
    lengths = len(_LIKE_OLD).to_bytes(2, "little") + len(OLD[:_MOST_SOURCES]).to_bytes(2, "little")
    made = lengths + encode_delta_body(_LIKE_OLD, OLD[:_MOST_SOURCES])
    by_hand = DELTA_SAMPLES["by-hand"]
    return made, len(by_hand.content).to_bytes(2, "little") + b"\x10\0" + by_hand.body


_DELTA_DECODERS = (ZstdDelta(), XdeltaDelta(), DeltaimgDelta())
_MOST_SOURCES = (1 << 16) - 1
_LIKE_OLD = OLD[:5000] + b"new" * 20 + bytes(9000) + OLD[12_000:40_000]
_CUT = CutTable(np.array([(0, 1), (3, 1)], SLOT_RUN), np.full((2, 16), 7, np.uint8))
_SOURCES = SourceTable(
    np.frombuffer(bytes(range(48)), np.uint8).reshape(3, 16), np.array([2, 1, 1], np.uint16),
    np.array([(0, 1), (5, 3), (7, 9), (0, 128)], SLOT_RUN),
)  # fmt: skip

TARGETS = {
    "sums": Target(lambda data: _exercise_object(Kind.SUMS, data), lambda: (b"\2" + build_sums(SUMS)[HEADER_BYTES:],)),
    "delta": Target(
        lambda data: _exercise_object(Kind.DELTA, data), lambda: (b"\1" + undress_delta(build_delta(DELTA)),)
    ),
    "rdiff-signature": Target(_exercise_rdiff_signature, lambda: (RDIFF_SIGNATURE,)),
    "rdiff-delta": Target(_exercise_rdiff_delta, lambda: (RDIFF_DELTA,)),
    "vcdiff": Target(_exercise_vcdiff, lambda: (VCDIFF,)),
    "record-tables": Target(
        _exercise_record_tables,
        lambda: (
            b"\0\1\2\0" + build_tables(RecordTables(_CUT)) + b"what follows",
            b"\3\1\2\0" + build_tables(RecordTables(_CUT, _SOURCES)) + b"what follows",
        ),
    ),
    "sources": Target(_exercise_sources, lambda: (b"\3\0\0" + build_sources(_SOURCES) + b"what follows",)),
    "delta-record": Target(_exercise_delta_record, _seed_records),
    "delta-body": Target(_exercise_delta_body, _seed_bodies),
    "making-a-delta": Target(_exercise_delta, lambda: _seed_files()[0]),
    "patching": Target(_exercise_patch, lambda: _seed_files()[1]),
}


def exercise_file(name: str, data: bytes) -> None:
    """Hand `data` to a target; raises what would be a defect."""
    try:
        TARGETS[name].exercise(data)
    except NativeError:
        raise
    except DeltaimgError as error:
        if "\n" in str(error):
            raise ValueError(f"a message of several lines: {error}") from error
