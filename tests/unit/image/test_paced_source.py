# SPDX-License-Identifier: Apache-2.0
"""An image is read no faster than its limit, and as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deltaimg.arrays import RANGE
from deltaimg.image.open_source import open_source
from deltaimg.image.paced_source import PacedSource
from deltaimg.model import KIB, MIB
from deltaimg.options.bandwidth import parse_bandwidth


@pytest.mark.parametrize(("limit", "seconds"), [("10M", 0.3), ("1M", 3.0), ("off", 0.0), ("100B", 31457.28)])
def test_reads_take_as_long_as_the_limit_says(tmp_path: Path, limit: str, seconds: float) -> None:
    content = os.urandom(3 * MIB)
    (tmp_path / "image").write_bytes(content)
    waits: list[float] = []
    source = PacedSource(open_source(str(tmp_path / "image")), parse_bandwidth(limit), waits.append)
    buffer = memoryview(bytearray(4 * MIB))
    assert source.read_into(0, buffer) == 3 * MIB
    assert buffer[: 3 * MIB] == content
    # The clock of the meter stands nearly still here: what it told to wait, in all, is what the last wait says.
    assert max(waits, default=0.0) == pytest.approx(seconds, rel=0.4, abs=0.2)
    source.close()


def test_scattered_blocks_are_paid_for_as_well(tmp_path: Path) -> None:
    content = os.urandom(MIB)
    (tmp_path / "image").write_bytes(content)
    waits: list[float] = []
    source = PacedSource(open_source(str(tmp_path / "image")), parse_bandwidth("1M"), waits.append)
    ranges = np.zeros(128, RANGE)
    ranges["offset"], ranges["length"] = np.arange(128) * 8 * KIB, 4 * KIB
    ranges["start"] = np.arange(128) * 4 * KIB
    out = memoryview(bytearray(512 * KIB))
    source.reread(ranges, out)
    assert out == b"".join(content[start : start + 4 * KIB] for start in range(0, MIB, 8 * KIB))
    assert max(waits) == pytest.approx(0.45, abs=0.1)
    source.close()


def test_idle_priority_is_that_of_ionice() -> None:
    script = (
        "from deltaimg.posix import use_idle_disk_time; import os; use_idle_disk_time(); os.execlp('ionice', 'ionice')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "idle"
