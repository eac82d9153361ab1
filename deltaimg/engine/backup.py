# SPDX-License-Identifier: Apache-2.0
"""One backup: open, compare, match, encode, store, commit.

Always  the manifest is stored last, once all that it needs is durable: until then the repository is as good as before.
Always  what landed before an interruption is found and used by the next run.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import numpy.typing as npt

from deltaimg.arrays import Runs, count_run_blocks, empty_runs
from deltaimg.codec.zstd import LEVELS, ZstdCodec
from deltaimg.delta.encode import Encoder
from deltaimg.delta.match import Matcher
from deltaimg.delta.registry import DELTA_MODES, FORCED_MODES, find_delta_decoder, make_delta_codecs
from deltaimg.delta.signature import root_digest
from deltaimg.delta.sources import BEST_LIMITS, SourceLimits
from deltaimg.engine.anchor_cache import AnchorCache, open_anchor_cache
from deltaimg.engine.base import find_base, load_other_content
from deltaimg.engine.commit import commit_snapshot
from deltaimg.engine.content_cache import ContentCache
from deltaimg.engine.pipeline import count_workers
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.engine.record_cache import RecordCache
from deltaimg.engine.record_stream import RecordStream, count_record_blocks
from deltaimg.engine.restore_cost import RestoreCost
from deltaimg.engine.scan import ScannedSpan, Scanner, count_span_bytes, round_extents
from deltaimg.engine.seen import SeenImage
from deltaimg.engine.source_finder import SourceFinder
from deltaimg.errors import DeltaimgError, SourceChanged, StoreError, UsageError
from deltaimg.format.limits import MAX_DEPTH
from deltaimg.format.manifest import Manifest, Statistics, build_manifest, count_microseconds, format_time
from deltaimg.format.map import MAPS
from deltaimg.image.source import Source
from deltaimg.kernels import CHANGED
from deltaimg.model import DEFAULT_BLOCK_BYTES, MAX_BLOCK_BYTES, MIB, MIN_BLOCK_BYTES, count_blocks
from deltaimg.repo.chain import encode_map
from deltaimg.repo.lock import ImageLock
from deltaimg.repo.pack_writer import PackWriter
from deltaimg.repo.record_reader import RecordReader
from deltaimg.repo.repository import Repository
from deltaimg.repo.selector import check_image_name

MATCH_BUDGET_BYTES = 256 * MIB
DELTA_BUDGET_BYTES = 256 * MIB
CACHE_BUDGET_BYTES = 1024 * MIB
DEFAULT_DEPTH = SourceLimits().depth
DEFAULT_RESTORE_COST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """How to back up. Sizes in bytes."""

    tags: tuple[str, ...] = ()
    level: int = LEVELS["default"]
    block_bytes: int | None = None
    allow_live: bool = False
    match_budget_bytes: int = MATCH_BUDGET_BYTES
    delta: str = "auto"
    """auto, where it is worth its time; none; zstd or xdelta, whenever something is similar; best, the smaller of these."""
    delta_budget_bytes: int = DELTA_BUDGET_BYTES
    max_depth: int = DEFAULT_DEPTH
    max_restore_cost: float = DEFAULT_RESTORE_COST
    """Bytes that a restore may decode for each byte that it writes: sources that would take it further are not used."""
    cache_folder: str | None = None
    """Where what this host knows of an image is kept from night to night; None keeps nothing."""
    cache_budget_bytes: int = CACHE_BUDGET_BYTES
    """Of an image's content there, the anchors not counted."""
    workers: int = field(default_factory=count_workers)
    software: str = ""


def find_cache_folder() -> str | None:
    """Return where this user's caches are, None if that cannot be told."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(root, "deltaimg") if os.path.isabs(root) else None


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
        SourceChanged: it was written to meanwhile; nothing was committed. RepositoryLocked: somebody else backs it up.
        LockLost: this run was taken for dead meanwhile; nothing was committed.
        StoreError: the repository cannot keep it; nothing was committed.
    """
    options = options or BackupOptions()
    check_image_name(image)
    _check_options(options)
    with ImageLock(repository, image, f"backup of {_as_text(source.path)}", clock()) as lock:
        return _Backup(repository, source, image, options, progress or NoProgress(), clock, lock).run()


def _check_options(options: BackupOptions) -> None:
    size = options.block_bytes
    if size is not None and (not MIN_BLOCK_BYTES <= size <= MAX_BLOCK_BYTES or size & (size - 1)):
        raise UsageError(f"a block of {size} bytes: it must be a power of two from 4 KiB to 1 MiB")
    if options.delta not in DELTA_MODES:
        raise UsageError(f"delta '{options.delta[:60]}' is none of {', '.join(DELTA_MODES)}")
    if not 1 <= options.max_depth <= MAX_DEPTH:
        raise UsageError(f"deltas {options.max_depth} deep: it must be 1 to {MAX_DEPTH}")
    if not options.max_restore_cost >= 1:
        raise UsageError(f"a restore cost of {options.max_restore_cost:g}: a restore decodes at least what it writes")
    for tag in options.tags:
        if not tag or not tag.isprintable() or len(tag) > 100 or "," in tag:
            raise UsageError(f"tag {tag[:60]!r} is empty, too long, or has a comma or control characters")


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
        self._matcher: Matcher | None = None
        self._stream: RecordStream | None = None
        self._anchors: AnchorCache | None = None
        self._contents = ContentCache(self._cache_path("content"), options.cache_budget_bytes)

    def run(self) -> Manifest:
        self._progress.start("loading the base", None)
        self._table, self._newest, self._base = find_base(self._repository, self._image, self._progress)
        self._block_bytes = self._choose_block_bytes()
        self._base_runs = self._base.map.runs if self._base else empty_runs()
        extents = round_extents(self._source, self._block_bytes)
        self._seen = SeenImage(None if self._source.is_sequential else extents, self._block_bytes)
        clock = self._clock  # Not the whole of this, which the writer would keep alive, and this the writer.
        with PackWriter(self._repository, lambda: count_microseconds(clock())) as writer:
            try:
                self._store_changes(extents, writer)
                is_live = self._check_source()
            except StoreError:
                raise
            except BaseException:
                self._publish_landed(writer)
                raise
            writer.finish()
            manifest = self._commit(writer.stored_bytes, is_live=is_live)
        self._keep_for_next_night()
        return manifest

    # -- the steps ---------------------------------------------------------------------------------------------------

    def _store_changes(self, extents: npt.NDArray[np.int64], writer: PackWriter) -> None:
        """Scan, match, encode and store all blocks that are not as in the base."""
        keys = self._repository.keys
        scanner = Scanner(
            self._source,
            block_key=keys.block,
            block_bytes=self._block_bytes,
            base_runs=self._base_runs,
            base_digests=self._table.digests,
            workers=self._options.workers,
        )
        total = None if self._source.is_sequential else int((extents[:, 1] - extents[:, 0]).sum())
        self._progress.start("backing up", total)
        done_bytes = 0
        with ExitStack() as stack:
            for span in scanner.scan(extents):
                self._seen.note_span(span)
                if span.content is not None:
                    if self._stream is None:
                        self._stream = stack.enter_context(self._open_stream(extents, writer))
                        self._progress.start("backing up", total)
                        self._progress.advance(done_bytes)
                    self._take_changed(span, span.content, self._stream)
                    scanner.release(span)
                self._progress.advance(span.read_bytes)
                done_bytes += span.read_bytes
            if self._stream and self._matcher:
                self._stream.finish()
                self._table.add_new_records(self._stream.record_ids, self._stream.slot_counts, self._matcher.digests)

    def _take_changed(self, span: ScannedSpan, content: memoryview, stream: RecordStream) -> None:
        """Refer to those of a span's changed blocks that are stored already, and store the others."""
        changed = span.statuses[span.statuses["status"] == CHANGED]
        matcher = self._matcher
        assert matcher is not None
        counts = changed["count"].astype(np.int64)
        indexes = np.repeat(changed["first"], counts) + _ramp(counts)
        slots_before = matcher.slot_count
        slots = matcher.match(span.digests[indexes])
        is_new = slots >= slots_before
        firsts = np.flatnonzero(is_new)[np.unique(slots[is_new], return_index=True)[1]]
        new_indexes = indexes[firsts].astype(np.uint32)
        stream.add(content, span.first_block, new_indexes, span.digests[new_indexes])
        self._seen.note_changed(indexes.astype(np.uint64) + np.uint64(span.first_block), slots, len(firsts))

    def _open_stream(self, extents: npt.NDArray[np.int64], writer: PackWriter) -> RecordStream:
        """Learn what can be referred to and encoded against. Only a run that meets a changed block pays for this."""
        matcher = self._matcher = self._make_matcher()
        options, keys = self._options, self._repository.keys
        delta_codecs = make_delta_codecs(options.delta, options.level)
        finder = self._make_finder(extents, matcher) if delta_codecs else None
        return RecordStream(
            writer,
            Encoder(
                ZstdCodec(options.level),
                delta_codecs,
                record_key=keys.record,
                block_bytes=self._block_bytes,
                is_delta_forced=options.delta in FORCED_MODES,
            ),
            block_bytes=self._block_bytes,
            first_slot=matcher.slot_count,
            workers=options.workers,
            finder=finder,
            # A first full backup would become a tenth smaller by deltas within itself, and take twice as long.
            uses_sources=options.delta != "auto" or self._base is not None,
        )

    def _make_matcher(self) -> Matcher:
        load_other_content(self._table, self._block_bytes, self._options.match_budget_bytes, self._progress)
        records = np.arange(self._table.record_count)
        loaded = records[self._table.is_loaded(records)]
        self._table.add_sources(loaded)
        matcher = Matcher(self._table.digests, self._table.slot_count)
        for first, count in zip(
            self._table.first_slots[loaded].tolist(), self._table.slot_counts[loaded].tolist(), strict=True
        ):
            matcher.learn(first, count)
        return matcher

    def _make_finder(self, extents: npt.NDArray[np.int64], matcher: Matcher) -> SourceFinder:
        """Open what this host knows of the image's anchors, or learn it from the image itself."""
        source, table, options = self._source, self._table, self._options
        content_bytes = (
            count_run_blocks(self._base_runs) * self._block_bytes if source.is_sequential else count_span_bytes(extents)
        )
        anchors, is_new = open_anchor_cache(
            self._cache_path("anchors"),
            self._repository.config.repository_id,
            block_bytes=self._block_bytes,
            content_bytes=content_bytes,
            budget_bytes=options.delta_budget_bytes,
        )
        self._anchors = anchors
        base_records = table.used_records(self._base_runs)
        is_known = not is_new and anchors.knows_most_of(table.record_ids[base_records])
        if len(base_records) and not is_known and not source.is_sequential:
            anchors.learn_image(source, extents, self._base_runs, table, progress=self._progress)
        reader = RecordReader(self._repository, table, find_delta_decoder)
        limits = BEST_LIMITS if options.delta == "best" or options.level >= LEVELS["best"] else SourceLimits()
        return SourceFinder(
            table,
            anchors,
            self._contents,
            RecordCache(reader, table, self._block_bytes),
            source,
            base_runs=self._base_runs,
            first_new_slot=matcher.slot_count,
            record_blocks=count_record_blocks(self._block_bytes),
            block_bytes=self._block_bytes,
            block_key=self._repository.keys.block,
            digests=lambda: matcher.digests,
            cost=RestoreCost(table, self._base_runs, options.max_restore_cost),
            limits=replace(limits, depth=options.max_depth),
        )

    def _cache_path(self, kind: str) -> str | None:
        if self._options.cache_folder is None:
            return None
        folder = os.path.join(self._options.cache_folder, self._repository.config.repository_id)
        return os.path.join(folder, f"{self._image}.{kind}")

    def _keep_for_next_night(self) -> None:
        """Keep the anchors and trim the content. Without them a night is slower or larger, so that a failure is no error."""
        path = self._cache_path("anchors")
        if self._anchors is None or self._stream is None or path is None:
            return
        self._contents.trim()
        failure = self._contents.failure
        try:
            self._anchors.save(
                path, self._repository.config.repository_id, self._stream.record_ids, self._stream.slot_counts
            )
        except OSError as error:
            failure = error
        if failure is not None:
            folder = self._options.cache_folder
            self._progress.warn(
                f"the cache in {folder} is not up to date, which slows the next night: {failure.strerror}"
            )

    def _check_source(self) -> bool:
        """Return whether the source was written to during the run, if that was allowed; else raise."""
        if not self._source.has_changed():
            return False
        if not self._options.allow_live:
            raise SourceChanged(
                self._source.path,
                "was written to while it was read, so no snapshot was made",
                hint="back up an LVM snapshot or a clone of it, or accept a smeared copy with --allow-live",
            )
        return True

    def _commit(self, stored_bytes: int, *, is_live: bool) -> Manifest:
        """Store the map, then the manifest."""
        self._progress.start("committing", None)
        size_bytes = self._source.size_bytes or 0
        runs = self._seen.lay_on(self._base_runs, size_bytes)
        block_count = count_blocks(size_bytes, self._block_bytes)
        data, map_is_full = encode_map(self._table, runs, self._base.map if self._base else None, block_count)
        map_name, map_bytes = self._repository.put_object(MAPS, [data])
        statistics = self._seen.summarise(runs, self._base_runs, size_bytes, time.monotonic() - self._started)
        manifest = Manifest(
            id=secrets.token_hex(8),
            image=self._image,
            time=self._choose_time(),
            base=self._base.manifest.id if self._base else None,
            size_bytes=size_bytes,
            block_bytes=self._block_bytes,
            map=map_name,
            map_is_full=map_is_full,
            root_digest=self._find_root(runs, statistics, size_bytes),
            statistics=statistics,
            started=format_time(self._started_at),
            tags=self._options.tags,
            is_live=is_live,
            source=_as_text(self._source.path),
            host=socket.gethostname(),
            software=self._options.software,
        )
        manifest = _settle_stored_bytes(manifest, stored_bytes + map_bytes)
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

    def _choose_time(self) -> str:
        """Return now, or just after the newest snapshot where the clock has gone back: order is never lost."""
        now = self._clock()
        if self._newest is not None:
            now = max(now, self._newest.taken_at + timedelta(microseconds=1))
        return format_time(now)

    def _publish_landed(self, writer: PackWriter) -> None:
        """Make what was stored before an interruption findable for the next run, if the store still can."""
        try:
            writer.finish()
        except DeltaimgError as error:
            self._progress.warn(f"what landed could not be indexed: {error}")


def _as_text(path: str) -> str:
    """Return a path for documents, which are UTF-8: bytes of its name that are not are shown by their numbers."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


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


def _ramp(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Return 0, 1, … counts[0]-1, 0, 1, … counts[1]-1, and so on."""
    total = int(counts.sum())
    return (np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.uint32)
