# SPDX-License-Identifier: Apache-2.0
"""Signatures and deltas of files are read as they were written, and no damage ends in anything but a clear error."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from deltaimg.delta.xdelta import load_xdelta, longest_delta
from deltaimg.errors import DeltaimgError
from deltaimg.format.delta import build_delta, parse_delta
from deltaimg.format.framing import HEADER_BYTES, Kind, frame
from deltaimg.format.rdiff import Copy, parse_rdiff_delta, parse_rdiff_signature
from deltaimg.format.sums import build_sums, parse_sums
from deltaimg.format.vcdiff import VCDIFF_HEAD, Window, build_window, parse_vcdiff
from deltaimg.kernels import native, reference_vcdiff
from deltaimg.model import VcdiffSections
from tests.fuzz.file_targets import make_window
from tests.fuzz.harness import fingerprint
from tests.support.file_samples import DELTA, OLD, RDIFF_DELTA, RDIFF_SIGNATURE, SUMS, VCDIFF

DAMAGE = st.tuples(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.integers(0, 400))


def damaged(data: bytes, damage: tuple[list[tuple[int, int]], int]) -> bytes:
    changes, cut = damage
    body = bytearray(data)
    for place, value in changes:
        body[place % len(body)] = value
    return bytes(body[: len(body) - cut % len(body)] if cut % 3 == 0 else body)


def test_they_are_read_as_written():
    assert fingerprint(parse_sums(build_sums(SUMS), "x")) == fingerprint(SUMS)
    assert fingerprint(parse_delta(build_delta(DELTA), "x")) == fingerprint(DELTA)
    assert len(parse_rdiff_signature(io.BytesIO(RDIFF_SIGNATURE).read, "x").weaks) == 2
    commands = list(parse_rdiff_delta(io.BytesIO(RDIFF_DELTA).read, "x"))
    assert commands == [Copy(70_000, 300), b"x" * 300, Copy(0, 5)]


@settings(max_examples=400, deadline=None)
@given(DAMAGE)
def test_damaged_objects_are_refused_or_mean_what_they_say(damage):
    for kind, build, parse, content in (
        (Kind.SUMS, build_sums, parse_sums, SUMS),
        (Kind.DELTA, build_delta, parse_delta, DELTA),
    ):
        data = frame(kind, damaged(build(content)[HEADER_BYTES:], damage))
        try:
            value = parse(data, "x")
        except DeltaimgError:
            continue
        assert fingerprint(parse(build(value), "x")) == fingerprint(value)


@settings(max_examples=400, deadline=None)
@given(DAMAGE)
def test_damaged_rdiff_files_are_refused_or_read(damage):
    try:
        found = parse_rdiff_signature(io.BytesIO(damaged(RDIFF_SIGNATURE, damage)).read, "x")
        assert len(found.weaks) == len(found.strongs)
    except DeltaimgError:
        pass
    try:
        for command in parse_rdiff_delta(io.BytesIO(damaged(RDIFF_DELTA, damage)).read, "x"):
            assert command.length > 0 if isinstance(command, Copy) else 0 < len(command) <= 1 << 20
    except DeltaimgError:
        pass


@settings(max_examples=600, deadline=None)
@given(DAMAGE)
def test_damaged_vcdiff_is_refused_or_read_and_both_kernels_agree(damage):
    try:
        for window in parse_vcdiff(io.BytesIO(damaged(VCDIFF, damage)).read, "x"):
            assert (
                next(parse_vcdiff(io.BytesIO(VCDIFF_HEAD + build_window(window)).read, "x")).sections == window.sections
            )
            if window.segment_bytes <= len(OLD) and window.target_bytes <= 1 << 20:
                assert make_window(native, window) == make_window(reference_vcdiff, window)
    except DeltaimgError:
        pass


@settings(max_examples=600, deadline=None)
@given(
    data=st.binary(max_size=40),
    instructions=st.binary(max_size=12),
    addresses=st.binary(max_size=12),
    segment_bytes=st.sampled_from([0, 1, 5000, 90_000]),
    target_bytes=st.integers(0, 80),
)
def test_both_kernels_agree_on_any_window(data, instructions, addresses, segment_bytes, target_bytes):
    window = Window(target_bytes, VcdiffSections(data, instructions, addresses), 0, segment_bytes)
    assert make_window(native, window) == make_window(reference_vcdiff, window)


def test_vcdiff_of_xdelta3_is_made_by_both_kernels():
    new = OLD[5000:60_000] + b"new" * 50 + OLD[:4000] + bytes(3000)
    made = load_xdelta().encode(memoryview(new), memoryview(OLD), longest_delta(len(new)), 3)
    for kernel in (native, reference_vcdiff):
        assert b"".join(make_window(kernel, window)[1] for window in parse_vcdiff(io.BytesIO(made).read, "x")) == new
