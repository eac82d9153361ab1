# SPDX-License-Identifier: Apache-2.0
"""A program that writes to an image while it is backed up, in an order that a point in time must show."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = 4096
FIRST, SECOND = 0, 3 << 20
"""Where the writer writes: the same number to the first place, then to the second."""

_WRITER = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR)
number = 0
os.write(1, b"ready")
while True:
    number += 1
    block = number.to_bytes(8, "little") * 512
    os.pwrite(file, block, int(sys.argv[2]))
    os.pwrite(file, block, int(sys.argv[3]))
"""


@contextmanager
def writing_to(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Write to an image of more than 4 MiB, without a pause, for the time of the context."""
    arguments = [sys.executable, "-c", _WRITER, str(path), str(FIRST), str(SECOND)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        try:
            yield process
        finally:
            process.kill()


def assert_one_moment(content: bytes) -> int:
    """Assert that an image is as it was at one moment, and return the number that had been written by then."""
    blocks = content[FIRST : FIRST + BLOCK], content[SECOND : SECOND + BLOCK]
    first, second = (int.from_bytes(block[:8], "little") for block in blocks)
    assert blocks == (first.to_bytes(8, "little") * 512, second.to_bytes(8, "little") * 512)
    assert first - 1 <= second <= first
    return first
