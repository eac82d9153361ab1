# SPDX-License-Identifier: Apache-2.0
"""The far side of a mirror: it has the copy, says what the copy holds, and changes it as the near side asks.

Always  what comes is expanded and digested before it is written, and read back from the disk at the end.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import Digests, distinct, expand_ranges
from deltaimg.engine.mirror.batches import (
    MAX_PENDING,
    Plan,
    build_have,
    digest_batch,
    expand,
    parse_content,
    parse_plan,
)
from deltaimg.engine.mirror.identity import refuse_image
from deltaimg.engine.mirror.moved import BlockFinder
from deltaimg.engine.mirror.place import CopyPlace, find_copy_place
from deltaimg.engine.mirror.protocol import (
    MAGIC,
    PIECE_BYTES,
    PROTOCOL,
    Begin,
    Channel,
    ChannelClosed,
    Copy,
    Finish,
    Finished,
    Hello,
    Kind,
    Open,
    Ready,
    send_error,
)
from deltaimg.engine.mirror.recovery import Found, check_known, open_working_copy, recover
from deltaimg.engine.mirror.table import (
    SHORT_BYTES,
    Blocks,
    count_groups,
    digest_groups,
    digest_image,
    find_differing,
    find_root,
    list_blocks,
    resize,
)
from deltaimg.engine.mirror.working_copy import WorkingCopy
from deltaimg.engine.pipeline import OrderedPool
from deltaimg.errors import DeltaimgError, Interrupted, MirrorDiffers, MirrorError, MirrorProtocolError, TargetTooSmall
from deltaimg.format.mirror import BLOCK_BYTES, MirrorState
from deltaimg.kernels import digest_blocks
from deltaimg.model import count_blocks

_PROGRESS_BYTES = 16 << 20
_READ_BLOCKS = 1024


def serve(source: int, sink: int, version: str) -> None:
    """Answer one near side; raises what ended it, after the near side got it as a frame.

    Args:
        source, sink: descriptors to read from and to write to. version: of this program.
    """
    channel = Channel(source, sink)
    try:
        channel.write(MAGIC)
        channel.send_message(Kind.HELLO, Hello(PROTOCOL, version))
        _answer(channel)
    except ChannelClosed:
        return
    except (DeltaimgError, Interrupted) as error:
        send_error(channel, error)
        raise
    except OSError as error:
        why = os.strerror(error.errno or 0)
        failure = MirrorError(f"the copy cannot be worked on: {why}", hint="see the log of that system, then run again")
        send_error(channel, failure)
        raise failure from error


def _answer(channel: Channel) -> None:
    wanted = channel.receive_message(Kind.OPEN, Open)
    if wanted.protocol != PROTOCOL:
        raise MirrorProtocolError(f"it speaks protocol {wanted.protocol}, this side {PROTOCOL}")
    place = find_copy_place(os.path.expanduser(os.fsdecode(wanted.path)))
    if not wanted.is_recovering:
        refuse_image(place.path, wanted.image)
        check_known(place, wanted)
    with ExitStack() as stack:
        if not wanted.is_dry or os.path.isdir(place.folder):
            stack.enter_context(place.locked())
            place = find_copy_place(place.path)
        if wanted.is_recovering:
            channel.send_message(Kind.COPY, Copy("", 0, "", recover(place)))
            return
        found = stack.enter_context(_opened(place, wanted))
        FarSide(channel, place, wanted, found).run()


@contextmanager
def _opened(place: CopyPlace, wanted: Open) -> Iterator[Found]:
    found = open_working_copy(place, wanted)
    try:
        yield found
    finally:
        if found.copy is not None:
            found.copy.close()


class _Pending(Struct):
    """A plan that was answered, and the blocks that the copy had elsewhere."""

    plan: Plan
    is_there: npt.NDArray[np.bool_]
    moved: memoryview


class FarSide:
    """One run, once the copy is open."""

    def __init__(self, channel: Channel, place: CopyPlace, wanted: Open, found: Found) -> None:
        self._channel, self._place, self._wanted, self._found = channel, place, wanted, found
        self._copy: WorkingCopy | None = found.copy
        self._key = found.key
        self._digests: Digests = found.digests
        self._size_bytes = found.image_bytes
        self._pending: deque[_Pending] = deque()
        self._changed: list[Blocks] = []
        self._finder: BlockFinder | None = None
        self._has_begun = False
        self._read_bytes = self._reported_bytes = 0

    def run(self) -> None:
        """Answer until the near side has finished, or is gone; what arrived stays for the next run."""
        found = self._found
        self._channel.send_message(Kind.COPY, Copy(self._key.hex(), found.to_read_bytes, found.mode, found.recovered))
        self._complete_digests()
        root = find_root(self._digests, self._key, self._size_bytes)
        if found.is_worth_keeping and not self._wanted.is_dry:
            self._keep_state(root)
        self._channel.send_message(Kind.READY, Ready(root.hex(), self._size_bytes))
        try:
            while self._answer():
                pass
        except ChannelClosed:
            if self._copy is not None and self._has_begun:
                self._copy.flush()
            raise
        finally:
            if self._copy is not None and not (self._has_begun or self._found.is_left):
                self._copy.discard()

    # -- what the copy holds -------------------------------------------------------------------------------------------

    def _complete_digests(self) -> None:
        """Read what is not known of the copy."""
        found, copy = self._found, self._copy
        if copy is None:
            return
        if found.is_unknown:
            self._digests = self._read_all(copy, self._size_bytes)
        for first in range(0, len(found.unsure), _READ_BLOCKS):
            blocks = found.unsure[first : first + _READ_BLOCKS]
            self._digests[blocks] = self._digest(copy, blocks)
            self._advance(len(blocks) * BLOCK_BYTES)

    def _read_all(self, copy: WorkingCopy, size_bytes: int) -> Digests:
        with copy.opened() as source:
            return digest_image(source, self._key, self._advance, size_bytes=size_bytes)

    def _keep_state(self, root: bytes) -> None:
        """Keep what was found by reading the copy, so that it need not be read again."""
        assert self._copy is not None
        modified_ns = 0 if self._place.is_device else os.fstat(self._copy.descriptor).st_mtime_ns
        self._place.write_state(MirrorState(self._key, root, self._size_bytes, self._digests, modified_ns))

    def _advance(self, done_bytes: int) -> None:
        self._read_bytes += done_bytes
        if self._read_bytes - self._reported_bytes >= _PROGRESS_BYTES:
            self._reported_bytes = self._read_bytes
            self._channel.send(Kind.PROGRESS, self._read_bytes.to_bytes(8, "little"))

    # -- frames --------------------------------------------------------------------------------------------------------

    def _answer(self) -> bool:
        """Answer one frame; False after the last."""
        kinds = [Kind.GROUPS, Kind.DETAILS, Kind.FINISH]
        if not self._wanted.is_dry:
            kinds += [Kind.CLEAR, Kind.PLAN, Kind.CONTENT] if self._has_begun else [Kind.BEGIN]
        kind, payload = self._channel.receive(*kinds)
        match kind:
            case Kind.GROUPS:
                self._send_groups(payload)
            case Kind.DETAILS:
                self._send_details(payload)
            case Kind.BEGIN:
                self._begin(self._channel.parse(payload, Begin))
            case Kind.CLEAR:
                self._clear(payload)
            case Kind.PLAN:
                self._find(parse_plan(payload, len(self._digests)))
            case Kind.CONTENT:
                self._apply(payload)
            case _:
                self._finish(self._channel.parse(payload, Finish))
                return False
        return True

    def _send_pieces(self, kind: Kind, shorts: npt.NDArray[np.uint8]) -> None:
        data = memoryview(shorts.tobytes())
        for start in range(0, max(1, len(data)), PIECE_BYTES):
            self._channel.send(kind, data[start : start + PIECE_BYTES], is_compact=True)

    def _send_groups(self, payload: memoryview) -> None:
        """Send a short digest of each of the first groups."""
        count = int.from_bytes(payload, "little")
        if not 0 < count <= count_groups(len(self._digests)):
            raise MirrorProtocolError("it asks for groups that the copy does not have")
        self._send_pieces(Kind.GROUPS, digest_groups(self._digests, self._key)[:count])

    def _send_details(self, payload: memoryview) -> None:
        """Send short digests of the blocks of some groups."""
        groups = np.frombuffer(payload, "<u4").astype(np.int64) if len(payload) % 4 == 0 else np.zeros(0, np.int64)
        if not len(groups) or int(groups.max()) >= count_groups(len(self._digests)):
            raise MirrorProtocolError("it asks for blocks that the copy does not have")
        blocks = list_blocks(groups, len(self._digests))
        self._send_pieces(Kind.DETAILS, np.ascontiguousarray(self._digests[blocks, :SHORT_BYTES]))

    def _begin(self, begin: Begin) -> None:
        copy = self._copy
        if copy is None or not 0 <= begin.block_count <= count_blocks(self._wanted.image_bytes, BLOCK_BYTES):
            raise MirrorProtocolError("it begins to change more blocks than the image has")
        needed_bytes = begin.block_count * BLOCK_BYTES
        free = os.statvfs(self._place.folder)
        if free.f_bavail * free.f_frsize < needed_bytes:
            raise TargetTooSmall(
                self._place.path,
                f"{needed_bytes} bytes change, and {self._place.folder} has room for {free.f_bavail * free.f_frsize}",
                hint="make room there: what changes is kept until the new image is complete",
            )
        copy.begin(self._wanted.image_bytes, self._found.journal)
        self._finder = BlockFinder(copy, self._digests, self._key)
        self._digests = resize(self._digests, count_blocks(self._wanted.image_bytes, BLOCK_BYTES))
        self._has_begun = True

    def _clear(self, payload: memoryview) -> None:
        """Make runs of blocks zero."""
        if len(payload) % 16:
            raise MirrorProtocolError("it clears blocks in half a run")
        runs = np.frombuffer(payload, "<u8").reshape(-1, 2).astype(np.int64)
        firsts, counts = runs[:, 0], runs[:, 1]
        ends = firsts + counts
        is_good = (firsts >= 0) & (counts > 0) & (ends > 0) & (ends <= len(self._digests))
        if not is_good.all() or (firsts[1:] < ends[:-1]).any():
            raise MirrorProtocolError("it clears blocks that the image does not have")
        assert self._copy is not None
        cleared = expand_ranges(firsts, counts)
        for first in range(0, len(cleared), _READ_BLOCKS):
            self._copy.put(cleared[first : first + _READ_BLOCKS], None)
        self._digests[cleared] = 0
        self._changed.append(cleared)

    def _find(self, plan: Plan) -> None:
        """Say which blocks of a plan the copy has elsewhere."""
        if len(self._pending) >= MAX_PENDING:
            raise MirrorProtocolError("it sends more plans than are answered")
        assert self._finder is not None
        is_there, moved = self._finder.find(plan.prefixes)
        self._pending.append(_Pending(plan, is_there, moved))
        self._channel.send(Kind.HAVE, build_have(is_there))

    def _apply(self, payload: memoryview) -> None:
        """Put the content of the oldest plan together, and write it if it has the right digests."""
        if not self._pending:
            raise MirrorProtocolError("content came that no plan announced")
        assert self._copy is not None
        content, pending = parse_content(payload, len(self._digests)), self._pending.popleft()
        blocks = pending.plan.blocks
        is_sent = np.ones(len(blocks), np.bool_) if content.is_whole else ~pending.is_there
        found = np.empty((len(blocks), BLOCK_BYTES), np.uint8)
        sent = expand(content, int(is_sent.sum()), self._copy.read_now(content.sources))
        found[is_sent] = np.frombuffer(sent, np.uint8).reshape(-1, BLOCK_BYTES)
        found[~is_sent] = np.frombuffer(pending.moved, np.uint8).reshape(-1, BLOCK_BYTES)[: int((~is_sent).sum())]
        whole = found.data.cast("B")
        digests = digest_blocks(self._key, whole, BLOCK_BYTES)
        if digest_batch(digests) != content.digest:
            if content.is_whole:
                raise MirrorProtocolError("content does not have the digest that it should have")
            self._channel.send(Kind.DONE, b"\0")
            return
        self._copy.put(blocks, whole)
        self._digests[blocks] = digests
        self._changed.append(blocks)
        self._channel.send(Kind.DONE, b"\1")

    # -- the end -------------------------------------------------------------------------------------------------------

    def _finish(self, finish: Finish) -> None:
        """Verify, and let the copy be what was written."""
        copy = self._copy
        if copy is None or self._wanted.is_dry:
            raise MirrorProtocolError("it finishes what it only wanted to look at")
        if not self._has_begun and (self._found.must_commit or self._size_bytes != self._wanted.image_bytes):
            self._begin(Begin(0))
        if self._has_begun:
            copy.sync()
        read_bytes = self._verify(copy, is_all=finish.is_verified)
        root = find_root(self._digests, self._key, self._wanted.image_bytes)
        if root.hex() != finish.root:
            # Under another key, which a copy without a state gets, other digests begin alike.
            self._place.void_state()
            raise MirrorDiffers(f"{self._place.path}: the copy is not equal to the image")
        if self._has_begun:
            copy.commit(MirrorState(self._key, root, self._wanted.image_bytes, self._digests))
        self._channel.send_message(Kind.FINISHED, Finished(read_bytes))

    def _verify(self, copy: WorkingCopy, *, is_all: bool) -> int:
        """Read back what was written, or everything; return how many bytes. Raises MirrorDiffers."""
        if is_all:
            os.posix_fadvise(copy.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            found = self._read_all(copy, self._wanted.image_bytes)
            self._compare(find_differing(found, self._digests))
            return self._wanted.image_bytes
        changed = distinct(np.zeros(0, np.int64), *self._changed)
        parts = (changed[first : first + _READ_BLOCKS] for first in range(0, len(changed), _READ_BLOCKS))
        with OrderedPool() as pool:
            for blocks, found in pool.map(lambda part: (part, self._digest(copy, part)), parts):
                self._compare(blocks[(found != self._digests[blocks]).any(axis=1)])
                self._advance(len(blocks) * BLOCK_BYTES)
        return len(changed) * BLOCK_BYTES

    def _digest(self, copy: WorkingCopy, blocks: Blocks) -> Digests:
        return digest_blocks(self._key, copy.read(blocks), BLOCK_BYTES)

    def _compare(self, wrong: Blocks) -> None:
        if not len(wrong):
            return
        self._place.void_state()
        raise MirrorDiffers(
            f"{self._place.path}: {len(wrong)} blocks of the copy are not what they should be, the first at byte "
            f"{int(wrong[0]) * BLOCK_BYTES}"
        )
