# SPDX-License-Identifier: Apache-2.0
"""The header of every object, and the reader that takes fields off a body."""

from __future__ import annotations

import pytest

from deltaimg.errors import DeltaimgError, DigestMismatch, Malformed, Truncated, UnsupportedFormat
from deltaimg.format.framing import (
    HEADER_BYTES,
    SALT_BYTES,
    BodyReader,
    Kind,
    digest_bytes,
    frame,
    name_object,
    parse_header,
    salt_object,
    unframe,
)
from tests.golden import forge

DATA = frame(Kind.MAP, b"a body")


def test_a_body_is_read_as_it_was_framed():
    assert bytes(unframe(Kind.MAP, "maps/x", DATA)) == b"a body"


@pytest.mark.parametrize("length", range(len(DATA)))
def test_an_object_cut_anywhere_is_truncated(length):
    with pytest.raises(Truncated) as caught:
        unframe(Kind.MAP, "maps/x", DATA[:length])
    assert caught.value.object_name == "maps/x"
    assert caught.value.found_bytes == length
    assert caught.value.needed_bytes == (HEADER_BYTES if length < HEADER_BYTES else len(DATA))


@pytest.mark.parametrize("bit", range(8 * len(DATA)))
def test_no_single_flipped_bit_goes_unseen(bit):
    damaged = bytearray(DATA)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Malformed if bit < 8 * HEADER_BYTES else DigestMismatch):
        unframe(Kind.MAP, "maps/x", bytes(damaged))


@pytest.mark.parametrize("wanted", Kind)
@pytest.mark.parametrize("given", Kind)
def test_an_object_of_one_kind_never_passes_for_another(wanted, given):
    data = frame(given, b"")
    if wanted is given:
        assert parse_header(wanted, "x", data).body_bytes == 0
    else:
        with pytest.raises(Malformed, match=f"is no {wanted.name.lower()}"):
            parse_header(wanted, "x", data)


def test_a_damaged_header_is_not_taken_for_a_newer_version():
    damaged = bytearray(DATA)
    damaged[8] = 2
    with pytest.raises(Malformed, match="the header is damaged"):
        parse_header(Kind.MAP, "maps/x", bytes(damaged))


def test_compatible_features_that_are_not_known_are_ignored():
    assert unframe(Kind.MAP, "maps/x", forge.forge_from(DATA, compatible=0xFFFF)) == b"a body"


def test_salt_gives_equal_content_another_name_and_changes_nothing_else():
    front = memoryview(DATA)[:HEADER_BYTES]
    for parts in ([DATA], [front, DATA[HEADER_BYTES:]]):
        salted = [b"".join(salt_object(parts, bytes([number]) * SALT_BYTES)) for number in (1, 2)]
        assert name_object([salted[0]]) != name_object([salted[1]]) != name_object([DATA])
        assert [bytes(unframe(Kind.MAP, "maps/x", each)) for each in salted] == [b"a body"] * 2
        assert salted[0] == b"".join(salt_object(parts, bytes([1]) * SALT_BYTES)), "the same salt, the same bytes"


def test_a_part_that_repeats_the_header_gets_the_same_salt():
    front = DATA[:HEADER_BYTES]
    first, middle, twin = salt_object([front, b"planes", front], bytes(range(SALT_BYTES)))
    assert first == twin != front
    assert middle == b"planes"


def test_a_newer_version_asks_for_a_newer_program():
    with pytest.raises(UnsupportedFormat, match="version 9") as caught:
        unframe(Kind.MAP, "maps/x", forge.forge_from(DATA, version=9))
    assert "newer version of deltaimg" in caught.value.hint


def test_the_name_of_an_object_does_not_depend_on_how_it_is_cut_into_parts():
    assert name_object([b"ab", memoryview(b"c")]) == name_object([b"abc"]) == digest_bytes(b"abc", length=32).hex()


def test_a_reader_of_fields_stops_at_the_end_and_counts_offsets_from_the_start_of_the_object():
    reader = BodyReader("maps/x", memoryview(b"12345"))
    assert bytes(reader.take(3)) == b"123"
    with pytest.raises(Truncated) as caught:
        reader.take(3)
    assert (caught.value.offset, caught.value.needed_bytes, caught.value.found_bytes) == (67, 70, 69)
    with pytest.raises(Malformed, match="2 bytes that nothing claims"):
        reader.expect_end()


def test_an_absurd_length_allocates_nothing():
    with pytest.raises(DeltaimgError):
        BodyReader("maps/x", memoryview(b"")).take(2**80)
