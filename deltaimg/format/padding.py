# SPDX-License-Identifier: Apache-2.0
"""Padding, so that the length of what is sealed says little of how well it compressed.

    padded := content 0x80 zero*     of 1 + padme(length of content) bytes

The mark is that of ISO/IEC 7816-4. It comes on top of the length that Padmé gives, so that a record that does not compress,
whose length is a power of two, grows by one byte and not by a step.

Always  a length has one padded form: a reader refuses any other.
Source  Nikitin, Barman, Lueks, Underwood, Hubaux, Ford: Reducing Metadata Leakage from Encrypted Files and Communication with
        PURBs (PETS 2019), section 4.3.
"""

from __future__ import annotations

from typing import Final

from deltaimg.errors import Malformed

MARK: Final = b"\x80"
MARK_BYTES: Final = len(MARK)


def padme(size_bytes: int) -> int:
    """Return the length to which Padmé pads: at least `size_bytes`, and at most an eighth above it."""
    exponent = max(1, size_bytes).bit_length() - 1
    step = 1 << max(0, exponent - exponent.bit_length())
    return -(-size_bytes // step) * step


def padded_bytes(size_bytes: int, most_bytes: int | None = None) -> int:
    """Return the length that content of `size_bytes` has with padding.

    Args:
        most_bytes: no content of its kind is longer; None where there is no such bound.
    """
    return MARK_BYTES + (padme(size_bytes) if most_bytes is None else min(padme(size_bytes), most_bytes))


def find_content_bytes(name: str, offset: int, padded: bytes | memoryview, most_bytes: int | None = None) -> int:
    """Return how long the content is at the start of what is `padded`.

    Args:
        name, offset: where it is, for errors. most_bytes: as of `padded_bytes`.

    Raises:
        Malformed: it is padded otherwise than content of its length is.
    """
    # No more than an eighth of a length is ever added to it, so that the rest need not be searched.
    start = max(0, len(padded) - len(padded) // 8 - 2)
    tail = bytes(padded[start:]).rstrip(b"\0")
    size_bytes = start + len(tail) - MARK_BYTES
    if not tail.endswith(MARK) or padded_bytes(size_bytes, most_bytes) != len(padded):
        raise Malformed(name, offset, "its padding is not that of its length")
    return size_bytes
