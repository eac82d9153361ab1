# SPDX-License-Identifier: Apache-2.0
"""How fast is this machine? Kernels, compression and the store, each measured alone, so that a slow backup can be explained."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator

import numpy as np
from msgspec import Struct

from deltaimg import kernels
from deltaimg.codec.zstd import ZstdCodec
from deltaimg.engine.pipeline import OrderedPool, count_workers
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import LEVELS
from deltaimg.repo.object_kinds import BENCHMARK, BENCHMARKS
from deltaimg.repo.objects import Objects

_ROUNDS = 5
_SAMPLE_BYTES = 32 * MIB


class Measurement(Struct, frozen=True):
    """One speed: bytes a second, the median of several rounds."""

    what: str
    bytes_per_s: float
    detail: str


def measure_machine(objects: Objects | None) -> Iterator[Measurement]:
    """Yield the speed of each stage of a backup on this machine, the store's last, if there is one to try."""
    workers = count_workers()
    sample = make_sample(_SAMPLE_BYTES)
    key = secrets.token_bytes(32)
    one = _measure(lambda: kernels.digest_blocks(key, sample, 4 * KIB), len(sample))
    yield Measurement("digest, one core", one, f"4 KiB blocks, {kernels.NAME}")
    yield Measurement(
        "digest, all cores",
        _measure_all(lambda piece: kernels.digest_blocks(key, piece, 4 * KIB), sample),
        f"{workers} threads",
    )
    for name in ("fast", "default", "best"):
        yield from _measure_codec(name, sample if name != "best" else sample[: 4 * MIB], workers)
    if objects is not None:
        yield from _measure_store(objects, sample)


def make_sample(size_bytes: int) -> memoryview:
    """Return bytes that compress about as a server's disk does: text-like, structured and random pages in turn."""
    rng = np.random.default_rng(7)
    words = [bytes(rng.integers(97, 123, int(length)).astype(np.uint8)) for length in rng.integers(2, 11, 2000)]
    chance = random.Random(7)
    text = b" ".join(chance.choices(words, k=MIB // 5))[: 512 * KIB].ljust(512 * KIB)
    table = rng.integers(0, 1000, 64 * KIB // 4).astype("<u4").tobytes() * 4
    noise = rng.bytes(256 * KIB)
    return memoryview(b"".join((text, table, noise)) * (size_bytes // MIB))


def _measure(action: Callable[[], object], size_bytes: int) -> float:
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return size_bytes / sorted(times)[len(times) // 2]


def _measure_all(action: Callable[[memoryview], object], sample: memoryview) -> float:
    with OrderedPool() as pool:
        return _measure(lambda: list(pool.map(action, _pieces(sample))), len(sample))


def _pieces(sample: memoryview) -> list[memoryview]:
    return [sample[start : start + MIB] for start in range(0, len(sample), MIB)]


def _measure_codec(name: str, sample: memoryview, workers: int) -> Iterator[Measurement]:
    codec = ZstdCodec(LEVELS[name])
    encoded = [codec.encode(part) for part in _pieces(sample)]
    ratio = len(sample) / sum(len(part) for part in encoded)
    detail = f"zstd level {LEVELS[name]}, {workers} threads, {ratio:.1f} to 1"
    yield Measurement(f"compress {name}", _measure_all(codec.encode, sample), detail)
    if name == "default":
        speed = _measure(lambda: [codec.decode(part, MIB) for part in encoded], len(sample))
        yield Measurement("expand", speed, "one core")


def _measure_store(objects: Objects, sample: memoryview) -> Iterator[Measurement]:
    """Write, read and remove one object; what is written is durable, as in a backup."""
    name = f"{BENCHMARKS}{secrets.token_hex(8)}"
    try:
        started = time.perf_counter()
        objects.put_bytes(name, [sample])
        yield Measurement("store, write", len(sample) / (time.perf_counter() - started), "one object, synced")
        speed = _measure(lambda: objects.get(BENCHMARK, name), len(sample))
        yield Measurement("store, read", speed, "from the page cache, where there is one")
    finally:
        objects.delete(name)
