#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `digest_blocks` alone needs for an image's data: held in memory, on all cores, reading not counted.

    python benchmarks/digest_floor.py IMAGE [--runs 3]

Prints  JSON: `data_bytes`, `threads`, and `seconds` of each run.
Memory  the image's allocated data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

from measuring.files import data_extents

from deltaimg.kernels import digest_blocks

_BLOCK_BYTES = 4096
_SPAN_BYTES = 4 << 20
_KEY = bytes(range(32))


def read_spans(image: Path) -> list[bytes]:
    """All allocated data in spans of a few MiB, each whole blocks."""
    spans = []
    with image.open("rb", buffering=0) as file:
        for start, end in data_extents(image):
            for offset in range(start - start % _BLOCK_BYTES, end, _SPAN_BYTES):
                span = os.pread(file.fileno(), min(_SPAN_BYTES, end - offset), offset)
                spans.append(span + bytes(-len(span) % _BLOCK_BYTES))
    return spans


def digest_all(spans: list[bytes], threads: int) -> float:
    """Digest every span once; return the seconds that took."""
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        for _ in pool.map(lambda span: digest_blocks(_KEY, span, _BLOCK_BYTES), spans):
            pass
        return time.perf_counter() - started


def main() -> None:
    """Measure one image."""
    parser = argparse.ArgumentParser(description="Time digest_blocks over an image's data in memory.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    spans = read_spans(given.image)
    seconds = [round(digest_all(spans, threads), 4) for _ in range(given.runs)]
    print(json.dumps({"data_bytes": sum(map(len, spans)), "threads": threads, "seconds": seconds}))


if __name__ == "__main__":
    main()
