#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Back up a guest's images one after another, and keep what delta codecs were given: content and sources, as pairs of files.

    python benchmarks/delta_pairs.py --work DIR --guest ext4 [--backups 1,2,4] [--most 400]

Reads   `DIR/NAME-nightN.raw` of `guests.py`.
Writes  `DIR/pairs/NAME-N/000001.content` and `000001.sources`, evenly chosen among all of backup N; what was encoded without
        sources as `000001.literal`; `totals.json`: bytes of content, processor seconds that choosing and reading sources took.
Next    `python benchmarks/kernels.py --pairs DIR/pairs/*` compares the codecs on them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import deltaimg
from deltaimg.arrays import Digests
from deltaimg.delta.encode import EncodedRecord, Encoder
from deltaimg.delta.sources import Sources
from deltaimg.engine.backup.delta_sources.choose import SourceChooser
from deltaimg.engine.backup.delta_sources.fetch import SourceFetcher


class Keeper:
    """Keeps at most so many of a stream of items, evenly: every 2^n-th of them. Any number of threads may use it."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._lock = threading.Lock()
        self._count, self._step = 0, 1
        self._kept: list[int] = []

    def keep(self, **parts: memoryview) -> None:
        """Write an item's parts to files of their own, if its turn has come."""
        with self._lock:
            number = self._count
            self._count += 1
            if number % self._step:
                return
            self._kept.append(number)
            for name, part in parts.items():
                self._path(number, name).write_bytes(part)
            if len(self._kept) > self._most:
                self._step *= 2
                for dropped in (each for each in self._kept if each % self._step):
                    for name in parts:
                        self._path(dropped, name).unlink()
                self._kept = [each for each in self._kept if each % self._step == 0]

    def _path(self, number: int, name: str) -> Path:
        return self._folder / f"{number:06}.{name}"


class Totals:
    """Processor seconds by what they were spent on, and bytes of content."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.values: dict[str, float] = {}

    def add(self, name: str, amount: float) -> None:
        with self._lock:
            self.values[name] = self.values.get(name, 0) + amount

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its processor time added to `name`."""

        def call(*arguments: Any, **options: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                self.add(name, time.thread_time() - started)

        return call


@contextmanager
def keeping(folder: Path, most: int) -> Iterator[None]:
    """Keep what is encoded meanwhile in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pairs, literals, totals = Keeper(folder, most), Keeper(folder, most), Totals()
    encode, choose, read = Encoder.encode, SourceChooser.choose, SourceFetcher.fetch

    def encode_kept(
        encoder: Encoder, content: memoryview, digests: Digests, sources: Sources | None, *rest: Any
    ) -> EncodedRecord:
        if sources is None:
            literals.keep(literal=content)
        else:
            pairs.keep(content=content, sources=sources.content)
            totals.add("content_bytes", len(content))
        return encode(encoder, content, digests, sources, *rest)

    with ExitStack() as patches:
        patches.enter_context(patch.object(Encoder, "encode", encode_kept))
        patches.enter_context(patch.object(SourceChooser, "choose", totals.timed("choose_s", choose)))
        patches.enter_context(patch.object(SourceFetcher, "fetch", totals.timed("read_s", read)))
        yield
    (folder / "totals.json").write_text(json.dumps(totals.values) + "\n")


def main() -> None:
    """Parse the command line and dump."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work-benchmarks"), help="where images are kept")
    parser.add_argument("--guest", default="ext4", help="whose images")
    parser.add_argument("--backups", default="1,2,4", help="which of them to keep pairs of")
    parser.add_argument("--most", type=int, default=400, help="pairs to keep of a backup")
    options = parser.parse_args()
    wanted = [int(number) for number in options.backups.split(",")]
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        repository = deltaimg.create_repository(f"{scratch}/repository")
        for number in range(max(wanted) + 1):
            image = options.work / f"{options.guest}-night{number}.raw"
            folder = options.work / "pairs" / f"{options.guest}-{number}"
            with keeping(folder, options.most) if number in wanted else nullcontext():
                backup_options = deltaimg.BackupOptions(cache_folder=f"{scratch}/cache")
                deltaimg.backup(repository, str(image), options.guest, backup_options)
            print(f"{image.name} backed up", flush=True)


if __name__ == "__main__":
    main()
