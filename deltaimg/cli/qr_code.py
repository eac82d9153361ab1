# SPDX-License-Identifier: Apache-2.0
"""The recovery text of a key as a QR code: a PNG, or half blocks for a terminal; and read again from a picture.

Drawn by `segno`; read by `zxing-cpp` from what `Pillow` opens. All three are of an extra.
"""

from __future__ import annotations

import io
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from deltaimg.errors import UsageError, describe_installation

if TYPE_CHECKING:
    from segno import QRCode

_BORDER: Final = 4
"""Modules of white around it, as readers need."""
_PIXELS: Final = 8
"""Of a module."""
_HALF_BLOCKS: Final = {(1, 1): " ", (1, 0): "▄", (0, 1): "▀", (0, 0): "█"}
"""For a module above another, 1 being black: terminals are dark, so white is what is drawn."""
_PICTURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""How PNG and JPEG begin."""
MAX_PICTURE_BYTES: Final = 64 << 20
_MAX_PIXELS: Final = 100_000_000
_WHITE_ON_BLACK, _RESET = "\x1b[97;40m", "\x1b[0m"


def draw_png(text: str) -> bytes:
    """Return a PNG of a text's QR code."""
    out = io.BytesIO()
    _make(text).save(out, kind="png", scale=_PIXELS, border=_BORDER)
    return out.getvalue()


def draw_lines(text: str, *, has_colours: bool) -> list[str]:
    """Return the lines of a text's QR code for a terminal; with colours it is right on a light one, too."""
    rows = [list(row) for row in _make(text).matrix_iter(border=_BORDER)]
    white = [0] * len(rows[0])
    pairs = zip_longest(rows[::2], rows[1::2], fillvalue=white)
    lines = ["".join(_HALF_BLOCKS[upper, lower] for upper, lower in zip(*pair, strict=True)) for pair in pairs]
    return [f"{_WHITE_ON_BLACK}{line}{_RESET}" for line in lines] if has_colours else lines


def is_picture(data: bytes) -> bool:
    """Return whether these are the first bytes of a PNG or a JPEG."""
    return data.startswith(_PICTURES)


def read_picture(data: bytes, name: str) -> str:
    """Return the text of the one QR code in a picture: a PNG, a scan or a photograph; raises UsageError."""
    try:
        import zxingcpp
        from PIL import Image
    except ImportError as error:
        raise UsageError(
            "pictures of QR codes are read by zxing-cpp and Pillow", hint=describe_installation("deltaimg[qr]")
        ) from error
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise UsageError(f"{name}: a picture of {picture.width} by {picture.height} pixels is too large")
            read = zxingcpp.read_barcodes(picture.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{name}: the picture cannot be read: {error}") from error
    found = [each for each in read if each.format == zxingcpp.BarcodeFormat.QRCode]
    if len(found) != 1:
        problem = "there is no QR code in it that can be read" if not found else "there is more than one QR code in it"
        raise UsageError(f"{name}: {problem}", hint="scan the code with a telephone, and import its text")
    text: str = found[0].text
    return text


def _make(text: str) -> QRCode:
    try:
        import segno
    except ImportError as error:
        raise UsageError("QR codes need segno", hint=describe_installation("segno>=1.6")) from error
    return segno.make(text, error="m", micro=False)
