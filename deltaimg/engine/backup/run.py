# SPDX-License-Identifier: Apache-2.0
"""One backup: open, compare, match, encode, store, commit.

Always  the manifest is stored last, once all that it needs is durable: until then the repository is as good as before.
Always  what landed before an interruption is found and used by the next run.
"""

from __future__ import annotations

import random
import secrets
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Runs, empty_runs
from deltaimg.delta.signature import root_digest
from deltaimg.engine.backup.base import find_base
from deltaimg.engine.backup.commit import commit_snapshot
from deltaimg.engine.backup.new_content import NewContent
from deltaimg.engine.backup.options import BackupOptions, check_options
from deltaimg.engine.backup.reread_sample import find_changed_piece
from deltaimg.engine.backup.seen import SeenImage
from deltaimg.engine.backup.source_checks import check_container, check_size, check_unchanged, check_use
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.scan import Scanner, round_extents
from deltaimg.errors import DeltaimgError, StoreError, UsageError
from deltaimg.format.manifest import SNAPSHOTS, Manifest, Statistics, build_manifest, count_microseconds, format_time
from deltaimg.image.source import Source
from deltaimg.model import DEFAULT_BLOCK_BYTES, count_blocks
from deltaimg.repo.layers import store_layers
from deltaimg.repo.leftovers import remove_leftovers
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.repository import Repository
from deltaimg.repo.selector import check_image_name
from deltaimg.text import as_text


def back_up(
    repository: Repository,
    source: Source,
    image: str,
    options: BackupOptions | None = None,
    *,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Manifest:
    """Store `source` as the newest snapshot of `image` and return its manifest.

    Raises:
        UsageError: a name, a tag or a block size that cannot be. ImageError: the source cannot be read.
        ImageInUse, SourceChanged, SourceShrank: see `source_checks`; nothing was committed.
        RepositoryLocked: another run is at work on it.
        LockLost: another process considered this run dead; nothing was committed.
        StoreError: the repository cannot keep it; nothing was committed.
    """
    options = options or BackupOptions()
    check_image_name(image)
    check_options(options)
    with ImageLock(repository, image, f"backup of {source.path}", clock()) as lock:
        # A name that the store cannot keep is refused now, not at the end.
        repository.store.make_folder(SNAPSHOTS + image)
        remove_leftovers(repository)
        return _Backup(repository, source, image, options, progress or NoProgress(), clock, lock).run()


class _Backup:
    """The state of one run."""

    def __init__(
        self,
        repository: Repository,
        source: Source,
        image: str,
        options: BackupOptions,
        progress: Progress,
        clock: Callable[[], datetime],
        lock: ImageLock,
    ) -> None:
        self._lock = lock
        self._repository, self._source, self._image = repository, source, image
        self._options, self._progress, self._clock = options, progress, clock
        self._started, self._started_at = time.monotonic(), clock()

    def run(self) -> Manifest:
        self._progress.start("loading the base", None)
        self._table, self._newest, self._base = find_base(self._repository, self._image, self._progress)
        is_live = check_use(self._source, self._options)
        check_size(self._source, self._newest, self._options, self._progress)
        self._container = check_container(self._source, self._newest, self._options)
        self._block_bytes = self._choose_block_bytes()
        self._base_runs = self._base.map.runs if self._base else empty_runs()
        extents = round_extents(self._source, self._block_bytes)
        self._seen = SeenImage(None if self._source.is_sequential else extents, self._block_bytes)
        clock = self._clock  # Not the whole of this, which the writer would keep alive, and this the writer.
        writer = PackWriter(self._repository, lambda: count_microseconds(clock()), check_lock=self._lock.check)
        with writer:
            try:
                self._store_changes(extents, writer)
                if self._source.is_sequential:
                    check_size(self._source, self._newest, self._options, self._progress)
                runs = self._seen.lay_on(self._base_runs, self._source.size_bytes or 0)
                is_live |= check_unchanged(self._source, self._options, self._reread_sample(extents, runs))
            except StoreError:
                raise
            except BaseException:
                self._publish_landed(writer)
                raise
            self._progress.start("committing", None)
            writer.finish()
            manifest = self._commit(runs, writer.stored_bytes, is_live=is_live)
        self._progress.start("updating the cache", None)
        self._new.keep_for_next_run()
        return manifest

    # -- the steps ---------------------------------------------------------------------------------------------------

    def _store_changes(self, extents: npt.NDArray[np.int64], writer: PackWriter) -> None:
        """Scan, match, encode and store all blocks that are not as in the base."""
        scanner = Scanner(
            self._source,
            block_key=self._repository.keys.block,
            block_bytes=self._block_bytes,
            base_runs=self._base_runs,
            base_digests=self._table.digests,
            workers=self._options.workers,
        )
        total = None if self._source.is_sequential else int((extents[:, 1] - extents[:, 0]).sum())
        self._progress.start("backing up", total)
        done_bytes = 0
        with self._open_new_content(extents, writer) as new:
            for span in scanner.scan(extents):
                self._seen.note_span(span)
                if span.content is not None:
                    if new.take(span, span.content):
                        self._progress.start("backing up", total, done_bytes)
                    scanner.release(span)
                self._progress.advance(span.read_bytes)
                done_bytes += span.read_bytes
            self._progress.start("storing what is left", None)
            new.finish()
        self._new = new

    def _open_new_content(self, extents: npt.NDArray[np.int64], writer: PackWriter) -> NewContent:
        return NewContent(
            self._repository,
            self._table,
            self._source,
            writer,
            self._seen,
            self._options,
            image=self._image,
            base_runs=self._base_runs if self._base else None,
            extents=extents,
            block_bytes=self._block_bytes,
            progress=self._progress,
        )

    def _reread_sample(self, extents: npt.NDArray[np.int64], runs: Runs) -> int | None:
        """Return where the source reads otherwise than before, if a sample of it does."""
        if self._source.is_sequential:
            return None
        return find_changed_piece(
            self._source,
            extents,
            runs,
            self._table.digests,
            block_key=self._repository.keys.block,
            block_bytes=self._block_bytes,
            chance=random.Random(),
        )

    def _commit(self, runs: Runs, stored_bytes: int, *, is_live: bool) -> Manifest:
        """Store the map layer, then the manifest."""
        size_bytes = self._source.size_bytes or 0
        block_count = count_blocks(size_bytes, self._block_bytes)
        base = self._base.manifest if self._base else None
        layers = store_layers(self._repository, self._table, runs, self._base.map if self._base else None, block_count)
        statistics = self._seen.summarise(runs, self._base_runs, size_bytes, time.monotonic() - self._started)
        ended_at = self._clock()
        manifest = Manifest(
            id=secrets.token_hex(8),
            image=self._image,
            time=self._choose_time(ended_at),
            base=base.id if base else None,
            base_time=base.time if base else None,
            size_bytes=size_bytes,
            block_bytes=self._block_bytes,
            maps=layers.maps,
            root_digest=self._find_root(runs, statistics, size_bytes),
            statistics=statistics,
            started=format_time(self._started_at),
            ended=format_time(ended_at),
            tags=self._options.tags,
            comment=self._options.comment,
            is_live=is_live,
            container=self._container,
            unreadable=self._source.unreadable,
            source=as_text(self._source.path),
            host=as_text(socket.gethostname()),
            software=self._options.software,
        )
        manifest = _settle_stored_bytes(manifest, stored_bytes + layers.stored_bytes)
        commit_snapshot(self._repository, self._lock, manifest, self._table, runs)
        return manifest

    # -- their parts -------------------------------------------------------------------------------------------------

    def _choose_block_bytes(self) -> int:
        wanted = self._options.block_bytes
        if self._newest is None:
            return wanted or DEFAULT_BLOCK_BYTES
        if wanted not in (None, self._newest.block_bytes):
            raise UsageError(
                f"image '{self._image}' has blocks of {self._newest.block_bytes} bytes since its first snapshot, not {wanted}",
                hint="leave --block-size out, or back up under another image name",
            )
        return self._newest.block_bytes

    def _find_root(self, runs: Runs, statistics: Statistics, size_bytes: int) -> str:
        """Return the root digest of the image: the base's, where not a block of it changed."""
        if self._base and not statistics.changed_bytes and size_bytes == self._base.manifest.size_bytes:
            return self._base.manifest.root_digest
        root_key = self._repository.keys.root
        return root_digest(
            root_key, runs, self._table.digests, size_bytes=size_bytes, block_bytes=self._block_bytes
        ).hex()

    def _choose_time(self, now: datetime) -> str:
        """Return now, or just after the newest snapshot where the clock has gone back: order is never lost."""
        if self._newest is not None:
            now = max(now, self._newest.taken_at + timedelta(microseconds=1))
        return format_time(now)

    def _publish_landed(self, writer: PackWriter) -> None:
        """Make what was stored before an interruption findable for the next run, if the store still can."""
        try:
            writer.finish()
        except DeltaimgError as error:
            self._progress.warn(f"what landed could not be indexed: {error}")


def _settle_stored_bytes(manifest: Manifest, other_bytes: int) -> Manifest:
    """Write the growth of the repository, the manifest's own size included, into the manifest."""
    stored = other_bytes
    while True:
        statistics = msgspec.structs.replace(manifest.statistics, stored_bytes=stored)
        manifest = msgspec.structs.replace(manifest, statistics=statistics)
        size = len(build_manifest(manifest))
        if stored == other_bytes + size:
            return manifest
        stored = other_bytes + size
