# SPDX-License-Identifier: Apache-2.0
"""The near side of a mirror, as its stages: connect, read the image, compare, send, finish.

Memory  16 bytes for each block of the image that is not zero, and some batches.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.arrays import Digests, ranges_of_blocks
from deltaimg.engine.mirror.batch_sender import BatchSender, split_batches
from deltaimg.engine.mirror.batches import build_content
from deltaimg.engine.mirror.comparison import Changes, compare_with_copy, compare_with_known
from deltaimg.engine.mirror.connect import Connection, open_far_side
from deltaimg.engine.mirror.identity import identify_image
from deltaimg.engine.mirror.place import read_state, write_state
from deltaimg.engine.mirror.protocol import PROTOCOL, Begin, Channel, Copy, Finish, Finished, Kind, Open, Ready
from deltaimg.engine.mirror.request import MirrorRequest, MirrorResult
from deltaimg.engine.mirror.similar import SimilarBlocks
from deltaimg.engine.mirror.table import Blocks, digest_image, find_root
from deltaimg.engine.pipeline import OrderedPool
from deltaimg.engine.progress import stage
from deltaimg.errors import (
    DeltaimgError,
    ImageInUse,
    MirrorProtocolError,
    SourceChanged,
    SourceShrank,
    UnsupportedImage,
)
from deltaimg.format.mirror import BLOCK_BYTES, MirrorState
from deltaimg.image.containers import find_container
from deltaimg.image.extents import NOT_EMPTY
from deltaimg.image.open_source import open_source
from deltaimg.image.source import ImageSource
from deltaimg.image.write_watch import describe_resize
from deltaimg.kernels import digest_blocks
from deltaimg.model import SUSPICIOUS_SHRINKAGE

_KEY_BYTES = 32
_CLEAR_RUNS = 1 << 14
_NO_BLOCKS: Blocks = np.zeros(0, np.int64)
_CHANGED_HINT = (
    "run again while nothing writes to it, and what arrived is not sent again; or undo what was begun by "
    "'deltaimg mirror --recover'"
)


def mirror(request: MirrorRequest) -> MirrorResult:
    """Make the copy equal to the image; raises DeltaimgError."""
    started_s = time.monotonic()
    source = open_source(request.image)
    try:
        _check_source(source, request)
        with open_far_side(request.connection, request.pace) as channel:
            result = _NearSide(channel, source, request).run()
            return replace(
                result,
                sent_bytes=channel.sent_bytes,
                received_bytes=channel.received_bytes,
                duration_s=time.monotonic() - started_s,
            )
    finally:
        source.close()


def recover_mirror(connection: Connection) -> str:
    """Undo or finish what a run left that was cut; return which: undone, finished, removed or nothing."""
    with open_far_side(connection, None) as channel:
        wanted = Open(PROTOCOL, os.fsencode(connection.destination.path), 0, is_recovering=True)
        channel.send_message(Kind.OPEN, wanted)
        return channel.receive_message(Kind.COPY, Copy).recovered


def _check_source(source: ImageSource, request: MirrorRequest) -> None:
    if source.is_sequential:
        raise UnsupportedImage(source.path, "is a stream, which cannot be compared with a copy")
    container = find_container(source)
    if container is not None:
        request.progress.warn(f"{source.path} is in {container.name} format; its file is mirrored as it is")
    writer = source.find_writer()
    if writer is not None and not request.allow_live:
        raise ImageInUse(
            source.path, f"is {writer}, so nothing was sent", hint="mirror a snapshot of it, or give --allow-live"
        )


class _NearSide:
    """One run."""

    def __init__(self, channel: Channel, source: ImageSource, request: MirrorRequest) -> None:
        self._channel, self._source, self._request = channel, source, request
        self._progress = request.progress
        self._size_bytes = source.size_bytes or 0
        self._moved_blocks = self._literal_bytes = 0
        self._key = b""
        self._similar = SimilarBlocks(0)
        self._digests: Digests = np.zeros((0, 16), np.uint8)

    def run(self) -> MirrorResult:
        """Return what was done; without bytes and duration."""
        request = self._request
        wanted = Open(
            PROTOCOL, os.fsencode(request.connection.destination.path), self._size_bytes,
            is_forced=request.is_forced, is_in_place=request.is_in_place, is_dry=request.is_dry,
            image=identify_image(request.image),
        )  # fmt: skip
        self._channel.send_message(Kind.OPEN, wanted)
        copy = self._channel.receive_message(Kind.COPY, Copy)
        self._key = _parse_hex(copy.key, _KEY_BYTES)
        self._read_image()
        ready = self._await_ready(copy)
        self._check_size(ready)
        root = find_root(self._digests, self._key, self._size_bytes)
        changes = Changes(_NO_BLOCKS, _NO_BLOCKS)
        if root.hex() != ready.root:
            changes = self._compare(ready)
        if not request.is_dry:
            if changes.count:
                self._send(changes)
            verified_bytes = self._finish(root)
            self._keep(root)
        return MirrorResult(
            image_bytes=self._size_bytes,
            mode=copy.mode,
            recovered=copy.recovered,
            changed_blocks=changes.count,
            zeroed_blocks=len(changes.zeroed),
            moved_blocks=self._moved_blocks,
            literal_bytes=len(changes.changed) * BLOCK_BYTES if request.is_dry else self._literal_bytes,
            copy_read_bytes=copy.to_read_bytes,
            verified_bytes=0 if request.is_dry else verified_bytes,
            sent_bytes=0,
            received_bytes=0,
            duration_s=0.0,
            is_dry=request.is_dry,
        )

    # -- stages --------------------------------------------------------------------------------------------------------

    def _read_image(self) -> None:
        total = self._source.extents().count_bytes(*NOT_EMPTY)
        self._similar = SimilarBlocks(total)
        with stage(self._progress, f"reading {self._source.path}", total):
            self._digests = digest_image(
                self._source,
                self._key,
                self._progress.advance,
                size_bytes=self._size_bytes,
                visit=self._similar.collect,
            )

    def _await_ready(self, copy: Copy) -> Ready:
        """Wait until the far side has read its copy, where it must."""
        with self._watching("reading the copy", copy.to_read_bytes):
            ready = self._channel.receive_message(Kind.READY, Ready)
        _parse_hex(ready.root, 16)
        return ready

    def _check_size(self, ready: Ready) -> None:
        """Raise SourceShrank where so little is left of the image that it may be the wrong one: there is no other copy."""
        if self._request.is_forced or self._size_bytes * SUSPICIOUS_SHRINKAGE > ready.image_bytes:
            return
        if ready.image_bytes:
            problem = (
                f"has {self._size_bytes} bytes, fewer than the {ready.image_bytes} of the copy: it may be the wrong one"
            )
            raise SourceShrank(
                self._source.path, f"{problem}, so nothing was sent", hint="--force mirrors it all the same"
            )

    def _compare(self, ready: Ready) -> Changes:
        known = self._read_known(ready)
        if known is not None:
            return compare_with_known(self._digests, known)
        return compare_with_copy(self._channel, self._digests, self._key, ready.image_bytes)

    def _send(self, changes: Changes) -> None:
        """Send what differs."""
        self._channel.send_message(Kind.BEGIN, Begin(changes.count))
        runs = _as_runs(changes.zeroed)
        for first in range(0, len(runs), _CLEAR_RUNS):
            self._channel.send(Kind.CLEAR, runs[first : first + _CLEAR_RUNS].tobytes())
        is_changed = np.zeros(len(self._digests), np.bool_)
        is_changed[changes.zeroed] = is_changed[changes.changed] = True
        self._similar.begin(is_changed)
        with stage(
            self._progress, f"sending to {self._request.connection.destination}", len(changes.changed) * BLOCK_BYTES
        ):
            failed = self._send_batches(split_batches(changes.changed), is_whole=False)
            if failed and self._send_batches(failed, is_whole=True):
                raise MirrorProtocolError("it refuses content that has the right digests")

    def _send_batches(self, batches: list[Blocks], *, is_whole: bool) -> list[Blocks]:
        """Send batches, some plans ahead of their content; return those that did not get the right digests there."""
        sender = BatchSender(self._channel, batches, self._digests)
        encode = self._make_encoder(is_whole=is_whole)
        with OrderedPool() as pool:
            for blocks, sent, frame in pool.map(encode, self._choose_sources(sender.receive_answers(), is_whole)):
                sender.send_content(blocks, frame)
                self._literal_bytes += sent * BLOCK_BYTES
                self._moved_blocks += len(blocks) - sent
                self._progress.advance(0 if is_whole else len(blocks) * BLOCK_BYTES)
        return sender.finish()

    def _choose_sources(self, answers: Iterator[tuple[Blocks, Blocks]], is_whole: bool) -> Iterator[_Batch]:
        """Yield batches with what to encode them against; in order, since later ones may use earlier ones."""
        for blocks, lacking in answers:
            yield (
                _Batch(blocks, blocks, _NO_BLOCKS)
                if is_whole
                else _Batch(blocks, lacking, self._similar.choose(blocks, lacking))
            )

    def _make_encoder(self, *, is_whole: bool) -> Callable[[_Batch], tuple[Blocks, int, bytes]]:
        source, digests, key = self._source, self._digests, self._key

        def read(blocks: Blocks) -> memoryview:
            content = memoryview(bytearray(len(blocks) * BLOCK_BYTES))
            source.reread(ranges_of_blocks(blocks, np.arange(len(blocks)), BLOCK_BYTES), content)
            if not np.array_equal(digest_blocks(key, content, BLOCK_BYTES), digests[blocks]):
                raise SourceChanged(source.path, "changed while it was mirrored", hint=_CHANGED_HINT)
            return content

        def encode(batch: _Batch) -> tuple[Blocks, int, bytes]:
            content, sources = read(batch.sent), read(batch.sources)
            frame = build_content(content, digests[batch.blocks], batch.sources, sources, is_whole=is_whole)
            return batch.blocks, len(batch.sent), frame

        return encode

    def _finish(self, root: bytes) -> int:
        """Let the far side verify and commit; return how many bytes it read back."""
        change = self._source.find_change()
        if change is not None and not self._request.allow_live:
            raise SourceChanged(self._source.path, change, hint=_CHANGED_HINT)
        new_bytes = self._source.find_new_size()
        if new_bytes is not None:
            resize = describe_resize(self._source.size_bytes or 0, new_bytes)
            self._progress.warn(f"{self._source.path}: {resize}; the copy has the size from before")
        with self._watching("verifying the copy", None):
            self._channel.send_message(Kind.FINISH, Finish(root.hex(), self._request.is_verified))
            return self._channel.receive_message(Kind.FINISHED, Finished).read_bytes

    def _watching(self, task: str, total_bytes: int | None) -> AbstractContextManager[None]:
        """Show what the far side reads as a stage."""
        reported = [0]

        def advance(read_bytes: int) -> None:
            self._progress.advance(max(0, read_bytes - reported[0]))
            reported[0] = max(reported[0], read_bytes)

        self._channel.on_progress = advance
        return stage(self._progress, task, total_bytes)

    # -- what this host keeps ------------------------------------------------------------------------------------------

    def _read_known(self, ready: Ready) -> Digests | None:
        """Return the digests of what the copy holds, where this host has them."""
        path = self._name_cache()
        state = read_state(path) if path else None
        is_known = state is not None and (state.key, state.root.hex(), state.image_bytes) == (
            self._key, ready.root, ready.image_bytes,
        )  # fmt: skip
        return state.digests if state is not None and is_known else None

    def _keep(self, root: bytes) -> None:
        path = self._name_cache()
        if path is None:
            return
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            write_state(path, MirrorState(self._key, root, self._size_bytes, self._digests))
        except (OSError, DeltaimgError) as error:
            self._progress.warn(f"what the copy holds could not be kept: {error}")

    def _name_cache(self) -> str | None:
        folder, destination = self._request.cache_folder, self._request.connection.destination
        if folder is None or destination.host is None:
            return None
        name = blake2b(f"{destination.host}\0{destination.path}".encode(errors="surrogateescape"), digest_size=16)
        return os.path.join(folder, "mirror", name.hexdigest())


class _Batch(Struct, frozen=True):
    """Blocks of a batch, those of them that are sent, and what these are encoded against."""

    blocks: Blocks
    sent: Blocks
    sources: Blocks


def _as_runs(blocks: Blocks) -> npt.NDArray[np.uint64]:
    """Return blocks as runs, shape (count, 2): the first block, and how many."""
    ranges = ranges_of_blocks(blocks, np.arange(len(blocks)), 1)
    return np.stack((ranges["offset"], ranges["length"]), axis=1).astype("<u8")


def _parse_hex(text: str, length: int) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != length:
        raise MirrorProtocolError("it sends a key or digest of another length")
    return found
