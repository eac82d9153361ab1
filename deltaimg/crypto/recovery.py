# SPDX-License-Identifier: Apache-2.0
"""The secret of a repository as text on paper: eight numbered lines with a checksum each, so that a slip of the pen is found.

deltaimg-recovery-1 <32 hexadecimal digits: the id of the family>
<number> <16 hexadecimal digits> <4 hexadecimal digits, digest-2 of family id, number and bytes>
"""

from __future__ import annotations

import re
from typing import Final

from deltaimg.crypto.secret import SECRET_BYTES, Secret
from deltaimg.errors import UsageError
from deltaimg.format.framing import digest_bytes

_LINES: Final = 8
_LINE_BYTES: Final = SECRET_BYTES // _LINES
_HEAD: Final = "deltaimg-recovery-1"


def build_recovery_text(secret: Secret, family_id: str) -> str:
    """Return the text, without the end of its last line."""
    data = secret.build()
    pieces = [data[at : at + _LINE_BYTES] for at in range(0, SECRET_BYTES, _LINE_BYTES)]
    lines = [
        f"{number} {_space(piece.hex())}  {_check(family_id, number, piece)}" for number, piece in enumerate(pieces, 1)
    ]
    return "\n".join([f"{_HEAD} {family_id}", *lines])


def parse_recovery_text(text: str) -> tuple[str, Secret]:
    """Return the id of the family and the secret of a text; spaces, empty lines and capital letters do not matter.

    Raises:
        UsageError: it is no such text, or a line of it is not right, which is named.
    """
    lines = [re.sub(r"\s", "", line).lower() for line in text.splitlines() if line.strip()]
    if not lines or not re.fullmatch(_HEAD + "[0-9a-f]{32}", lines[0]):
        raise UsageError(f"this is no recovery text: its first line is not '{_HEAD}' and 32 digits")
    family_id = lines[0].removeprefix(_HEAD)
    if len(lines) != 1 + _LINES:
        raise UsageError(f"the recovery text has {len(lines) - 1} lines after the first, not {_LINES}")
    pieces = []
    for number, line in enumerate(lines[1:], 1):
        match = re.fullmatch(rf"{number}([0-9a-f]{{{2 * _LINE_BYTES}}})([0-9a-f]{{4}})", line)
        piece = bytes.fromhex(match[1]) if match else b""
        if match is None or match[2] != _check(family_id, number, piece):
            raise UsageError(f"line {number} of the recovery text is not right", hint="compare it with the original")
        pieces.append(piece)
    return family_id, Secret.parse(b"".join(pieces))


def _check(family_id: str, number: int, piece: bytes) -> str:
    return digest_bytes(bytes.fromhex(family_id), bytes([number]), piece, length=2).hex()


def _space(digits: str) -> str:
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))
