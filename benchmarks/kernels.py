# SPDX-License-Identifier: Apache-2.0
"""How fast the kernels are here, and how that compares with the `blake3` package on one thread.

Reads   nothing: seeded random bytes in memory. With `--pairs FOLDER...` what `delta_pairs.py` kept there: then delta codecs are
        compared, and nothing else is measured.
Prints  a table, or JSON with `--json`. Rounds of all rows alternate, so that a slow moment hits each of them; every
        number is the median of its rounds. Compare ratios of one run, not speeds of two.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import blake3
import numpy as np
from measuring.delta_rows import compare_codecs

from deltaimg.arrays import RUN, Runs
from deltaimg.kernels import native, reference

MIB = 1 << 20
KEY = bytes(range(32))
ROUNDS = 9
SEED = 20240607


@dataclass(frozen=True, slots=True)
class Row:
    """One thing to time: `work` of `unit` done by each call."""

    name: str
    call: Callable[[], object]
    work: float
    unit: str = "MB/s"


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    speed: float
    unit: str
    ratio: float | None
    """To the blake3 package, where that is the same work."""


def digest_rows() -> list[Row]:
    """The package on 1 MiB buffers first, then each path at three block sizes, warm and from memory."""
    rng = np.random.default_rng(SEED)
    hot = rng.integers(0, 256, MIB, np.uint8)
    cold = rng.integers(0, 256, 64 * MIB, np.uint8)
    hot_bytes = hot.tobytes()

    def repeat(call: Callable[[], object], times: int = 16) -> Callable[[], object]:
        def run() -> None:
            for _ in range(times):
                call()

        return run

    mb = MIB / 1e6
    package = repeat(lambda: blake3.blake3(hot_bytes, key=KEY, max_threads=1).digest())
    rows = [Row("blake3 package, 1 MiB buffers", package, 16 * mb)]
    for path in native.find_paths():
        for block_bytes in (4096, 65536, MIB):
            call = repeat(lambda path=path, size=block_bytes: native.digest_blocks(KEY, hot, size, path=path))
            rows.append(Row(f"digest_blocks {path}, {block_bytes // 1024} KiB blocks", call, 16 * mb))
    best = native.find_paths()[0]
    for span_bytes in (MIB, 4 * MIB):
        spans = [cold[at : at + span_bytes] for at in range(0, len(cold), span_bytes)]
        rows.append(
            Row(
                f"digest_blocks {best}, 4 KiB blocks, not in cache, spans of {span_bytes // MIB} MiB",
                lambda spans=spans: [native.digest_blocks(KEY, span, 4096) for span in spans],
                64 * mb,
            )
        )
    slots = np.arange(2, 2 + 64 * 256, dtype=np.uint32)
    table = np.concatenate([np.zeros((2, 16), np.uint8), native.digest_blocks(KEY, cold, 4096)])
    rows.append(
        Row(
            f"scan_blocks {best}, 4 KiB blocks, not in cache, all same",
            lambda: native.scan_blocks(KEY, cold, 4096, slots, table),
            64 * mb,
        )
    )
    zeroes = np.zeros(64 * MIB, np.uint8)
    rows.append(Row("digest_blocks of zero blocks", lambda: native.digest_blocks(KEY, zeroes, 4096), 64 * mb))
    other = cold.copy()
    rows.append(Row("is_equal", lambda: native.is_equal(cold, other), 64 * mb))
    part = hot[: 64 * 1024]
    rows.append(Row("reference digest_blocks, 4 KiB blocks", lambda: reference.digest_blocks(KEY, part, 4096), mb / 16))
    return rows


def make_runs(rng: np.random.Generator, count: int) -> Runs:
    """Runs of some blocks each with gaps here and there, like an incremental's."""
    runs = np.empty(count, RUN)
    runs["count"] = rng.integers(1, 20, count)
    gaps = rng.integers(0, 3, count) * rng.integers(0, 10, count)
    runs["first_block"] = np.cumsum(gaps + runs["count"]) - runs["count"]
    runs["slot"] = rng.integers(0, 2**31, count)
    return runs


def match_rows() -> list[Row]:
    """A table of two million digests, far larger than a cache: all known, all new, all entered at once."""
    rng = np.random.default_rng(SEED)
    known = 1 << 21
    digests = rng.integers(0, 256, (2 * known + 2, 16), np.uint8)
    digests[:2] = 0
    table = np.zeros(1 << 23, np.uint32)
    native.insert_slots(table, digests, known, 2, known - 2)
    wanted = digests[2 + rng.permutation(known - 2)]
    new = rng.integers(0, 256, (known, 16), np.uint8)

    def match_new() -> None:
        native.match_digests(table.copy(), digests, known, new)

    def insert() -> None:
        native.insert_slots(np.zeros_like(table), digests, known, 2, known - 2)

    return [
        Row(
            "match_digests, all known", lambda: native.match_digests(table, digests, known, wanted), known / 1e6, "M/s"
        ),
        Row("match_digests, all new", match_new, known / 1e6, "M/s"),
        Row("insert_slots", insert, known / 1e6, "M/s"),
    ]


def runs_rows() -> list[Row]:
    rng = np.random.default_rng(SEED)
    base, over = make_runs(rng, 1 << 20), make_runs(rng, 1 << 18)
    blocks = int(base["first_block"][-1])
    both = (len(base) + len(over)) / 1e6
    return [
        Row("overlay_runs", lambda: native.overlay_runs(base, over), both, "M runs/s"),
        Row("subtract_runs", lambda: native.subtract_runs(over, base), both, "M runs/s"),
        Row("expand_runs, whole map", lambda: native.expand_runs(base, 0, blocks), blocks / 1e6, "M blocks/s"),
        Row(
            "expand_runs, spans of 1024 blocks",
            lambda: [native.expand_runs(base, at, 1024) for at in range(0, 1024 * 1000, 1024)],
            1.024,
            "M blocks/s",
        ),
    ]


def delta_rows() -> list[Row]:
    """Records of half a MiB against as much: a table whose counters went on, and content that resembles nothing."""
    rng = np.random.default_rng(SEED)
    length = MIB // 2
    rows = rng.integers(0, 256, (length // 64, 64), np.uint8)
    changed = rows.copy()
    changed[:, 8] += 1
    changed[rng.random(len(rows)) < 0.1, 20:30] += 3
    other = rng.integers(0, 256, length, np.uint8)
    work, body = bytearray(native.delta_work_bytes(length)), memoryview(bytearray(native.delta_bound(length)))
    made = []
    for name, content in (("a table that changed", changed.reshape(-1)), ("nothing alike", other)):
        bytes_used = sum(native.encode_delta(content, rows, work, body))
        encoded, out = bytes(body[:bytes_used]), memoryview(bytearray(length))
        made += [
            Row(
                f"encode_delta, {name}",
                lambda content=content: native.encode_delta(content, rows, work, body),
                length / 1e6,
            ),
            Row(
                f"decode_delta, {name}",
                lambda encoded=encoded, out=out: native.decode_delta(encoded, rows, out),
                length / 1e6,
            ),
        ]
    return made


def time_rows(rows: list[Row]) -> list[Result]:
    seconds: dict[str, list[float]] = {row.name: [] for row in rows}
    for _ in range(ROUNDS):
        for row in rows:
            started = time.perf_counter()
            row.call()
            seconds[row.name].append(time.perf_counter() - started)
    speeds = {row.name: row.work / statistics.median(seconds[row.name]) for row in rows}
    baseline = speeds.get("blake3 package, 1 MiB buffers")
    return [
        Result(
            row.name, round(speeds[row.name], 1), row.unit, round(speeds[row.name] / baseline, 3) if baseline else None
        )
        for row in rows
    ]


def processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--pairs", nargs="+", type=Path, help="compare delta codecs on these folders of delta_pairs.py")
    options = parser.parse_args()
    if options.pairs:
        print_codecs(options.pairs, as_json=options.json)
        return
    results = [result for rows in (digest_rows, match_rows, runs_rows, delta_rows) for result in time_rows(rows())]
    print_kernels(results, as_json=options.json)


def describe_machine() -> dict[str, object]:
    return {
        "processor": processor_name(),
        "python": platform.python_version(),
        "blake3": blake3.__version__,
        "numpy": np.__version__,
        "kernels": native.NAME,
        "rounds": ROUNDS,
        "seed": SEED,
    }


def print_kernels(results: list[Result], *, as_json: bool) -> None:
    machine = describe_machine()
    if as_json:
        print(json.dumps({"machine": machine, "results": [asdict(result) for result in results]}, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    for result in results:
        ratio = "" if result.ratio is None else f"{result.ratio:8.2f} x blake3"
        print(f"{result.name:72}{result.speed:10.1f} {result.unit:11}{ratio}")


def print_codecs(folders: list[Path], *, as_json: bool) -> None:
    """Print a row for each codec and folder: a table that docs can take, or JSON."""
    rows = [
        asdict(row)
        for folder in folders
        for literals in (False, True)
        for row in compare_codecs(folder, literals=literals)
    ]
    if as_json:
        print(json.dumps({"machine": describe_machine(), "results": rows}, indent=1))
        return
    print("| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join("" if value is None else str(value) for value in row.values()) + " |")


if __name__ == "__main__":
    main()
