# SPDX-License-Identifier: Apache-2.0
"""Everything that docs/format.md, "Delta body", has a reader refuse: a body for each rule, to the C core and to its twin."""

from __future__ import annotations

import pytest

from deltaimg.errors import NativeError
from deltaimg.kernels import native, reference_delta

SOURCES = b"abcd"
CONTENT_BYTES = 6
LATEST, WITHIN, SOURCE = 0, 3, 4
MANY = b"\xff\xff\xff\x7f"
"""The largest varint."""


def body(flags=0, operations=b"", places=(), singles=b"", shorts=b"", longs=b""):
    """Return a body whose head is right."""
    planes = b"".join(bytes(place >> 8 * plane & 255 for place in places) for plane in range(3))
    head = bytes([flags, len(operations), len(places), len(singles), len(shorts)])
    return head + bytes(operations) + planes + singles + shorts + longs


def copy(kind, length, added=0):
    return bytes([added << 3 | kind, length])


ALL = copy(SOURCE, 4)
REFUSALS = {
    "nothing": (b"", "DELTA_ENDS"),
    "a head that ends": (b"\0\0\0", "DELTA_ENDS"),
    "a flag that is not defined": (body(flags=4, longs=bytes(6)), "DELTA_BAD_OPERATION"),
    "a long varint in the head": (b"\0\x80\x80\x80\x80\0\0\0\0", "DELTA_BAD_LENGTH"),
    "more operations than bytes": (b"\0" + MANY + b"\0\0\0", "DELTA_ENDS"),
    "more places than bytes": (b"\0\0" + MANY + b"\0\0", "DELTA_ENDS"),
    "more singles than bytes": (b"\0\0\0" + MANY + b"\0", "DELTA_ENDS"),
    "more shorts than bytes": (b"\0\0\0\0" + MANY, "DELTA_ENDS"),
    "a kind that is not defined": (body(operations=copy(5, 1), longs=bytes(5)), "DELTA_BAD_OPERATION"),
    "an empty copy": (body(operations=copy(LATEST, 0), longs=bytes(6)), "DELTA_BAD_LENGTH"),
    "an operation without a length": (body(operations=b"\4", places=(0,), longs=bytes(6)), "DELTA_ENDS"),
    "an operation without its number": (body(operations=bytes([31 << 3]), longs=bytes(6)), "DELTA_ENDS"),
    "a long varint in an operation": (body(operations=b"\0\x80\x80\x80\x80\0"), "DELTA_BAD_LENGTH"),
    "more added than is left": (body(operations=copy(LATEST, 1, 7), shorts=bytes(7)), "DELTA_BAD_LENGTH"),
    "far more added than is left": (body(operations=bytes([31 << 3]) + MANY + b"\1"), "DELTA_BAD_LENGTH"),
    "more copied than is left": (body(operations=copy(LATEST, 5, 2), shorts=b"12"), "DELTA_BAD_LENGTH"),
    "a distance of zero": (body(operations=copy(WITHIN, 2, 2), places=(0,), longs=b"12ab"), "DELTA_BAD_COPY"),
    "a distance before everything": (
        body(operations=copy(WITHIN, 2, 2), places=(7,), longs=b"12ab"), "DELTA_BAD_COPY"
    ),
    "a copy within from the sources": (body(operations=copy(WITHIN, 2), places=(4,), longs=b"1234"), "DELTA_BAD_COPY"),
    "a copy of the sources from the content": (
        body(operations=ALL + copy(SOURCE, 2), places=(0, 0)), "DELTA_BAD_COPY"
    ),
    "a copy from before the sources": (body(operations=copy(SOURCE, 2), places=(1,), longs=b"1234"), "DELTA_BAD_COPY"),
    "a copy that passes the end of the sources": (body(operations=copy(SOURCE, 5), places=(0,), longs=b"1"), "DELTA_BAD_COPY"),
    "a copy at a latest distance that does": (
        body(operations=copy(SOURCE, 3) + copy(LATEST, 2), places=(0,), longs=b"1"), "DELTA_BAD_COPY"
    ),
    "a place too few": (body(operations=ALL, longs=b"12"), "DELTA_ENDS"),
    "a place too many": (body(operations=ALL, places=(0, 0), longs=b"12"), "DELTA_ENDS"),
    "a single too few": (body(operations=copy(LATEST, 1, 1), longs=b"1234"), "DELTA_ENDS"),
    "a single too many": (body(operations=ALL, places=(0,), singles=b"1", longs=b"12"), "DELTA_ENDS"),
    "a short too few": (body(operations=copy(LATEST, 1, 2), shorts=b"1", longs=b"123"), "DELTA_ENDS"),
    "a short too many": (body(operations=ALL, places=(0,), shorts=b"1", longs=b"12"), "DELTA_ENDS"),
    "a long too few": (body(operations=ALL, places=(0,), longs=b"1"), "DELTA_BAD_LENGTH"),
    "a long too many": (body(operations=ALL, places=(0,), longs=b"123"), "DELTA_BAD_LENGTH"),
    "a long too few for an operation": (body(operations=copy(WITHIN, 1, 5), places=(5,), longs=b"1234"), "DELTA_ENDS"),
}  # fmt: skip


@pytest.fixture(params=[native, reference_delta], ids=["native", "reference"])
def kernels(request):
    return request.param


def test_the_body_that_the_others_are_made_from_is_read(kernels):
    out = bytearray(CONTENT_BYTES)
    kernels.decode_delta(body(operations=ALL, places=(0,), longs=b"12"), SOURCES, memoryview(out))
    assert out == b"abcd12"


@pytest.mark.parametrize("name", REFUSALS)
def test_what_breaks_a_rule_is_refused_for_that(kernels, name):
    data, status = REFUSALS[name]
    with pytest.raises(NativeError) as caught:
        kernels.decode_delta(data, SOURCES, memoryview(bytearray(CONTENT_BYTES)))
    assert caught.value.status == status


def test_the_first_distances_reach_back_to_something(kernels):
    for kind in range(3):
        with pytest.raises(NativeError, match="BAD_COPY"):
            kernels.decode_delta(body(operations=copy(kind, 1)), b"", memoryview(bytearray(1)))
