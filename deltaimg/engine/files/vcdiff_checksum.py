# SPDX-License-Identifier: Apache-2.0
"""The Adler-32 that xdelta3 gives each VCDIFF window (RFC 1950), for windows that are nothing but zeros.

RFC 3284 has no checksum; bit 2 of a window's indicator, VCD_ADLER32, is an extension of xdelta3 and open-vcdiff.
"""

from __future__ import annotations

from deltaimg.format.vcdiff import Window

_ADLER_PRIME = 65521


def adler_of_zeros(length: int) -> int:
    """Return the Adler-32 of this many zeros."""
    return (length % _ADLER_PRIME) << 16 | 1


def with_adler(zeros: Window) -> Window:
    """Return a window that makes only zeros, with its checksum."""
    return Window(zeros.target_bytes, zeros.sections, adler=adler_of_zeros(zeros.target_bytes))
