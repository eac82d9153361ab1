# SPDX-License-Identifier: Apache-2.0
"""Batches on their way: plans of some go ahead of their content, and answers come back to both in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from deltaimg.arrays import Digests
from deltaimg.engine.mirror.batches import BATCH_BLOCKS, WINDOW, build_plan, parse_have
from deltaimg.engine.mirror.protocol import Channel, Kind
from deltaimg.engine.mirror.table import Blocks
from deltaimg.errors import MirrorProtocolError


class BatchSender:
    """Plans, some of them ahead, their answers, and contents with theirs."""

    def __init__(self, channel: Channel, batches: list[Blocks], digests: Digests) -> None:
        self._channel, self._batches, self._digests = channel, batches, digests
        self._announced: deque[Blocks] = deque()
        self._sent: deque[Blocks] = deque()
        self._failed: list[Blocks] = []

    def receive_answers(self) -> Iterator[tuple[Blocks, Blocks]]:
        """Yield the blocks of each batch, and those that the far side lacks."""
        for blocks in self._batches:
            self._channel.send(Kind.PLAN, build_plan(blocks, self._digests[blocks]))
            self._announced.append(blocks)
            if len(self._announced) >= WINDOW:
                yield self._receive_answer()
        while self._announced:
            yield self._receive_answer()

    def send_content(self, blocks: Blocks, frame: bytes) -> None:
        """Send what the far side lacks."""
        self._sent.append(blocks)
        self._channel.send(Kind.CONTENT, frame, is_compact=True)

    def finish(self) -> list[Blocks]:
        """Wait for all answers; return the batches that must be sent again, whole."""
        while self._sent:
            self._note_done(self._channel.receive(Kind.DONE)[1])
        return self._failed

    def _receive_answer(self) -> tuple[Blocks, Blocks]:
        while True:
            kind, payload = self._channel.receive(Kind.HAVE, Kind.DONE)
            if kind is Kind.DONE:
                self._note_done(payload)
                continue
            blocks = self._announced.popleft()
            return blocks, blocks[~parse_have(payload, len(blocks))]

    def _note_done(self, payload: memoryview) -> None:
        if not self._sent or bytes(payload) not in (b"\0", b"\1"):
            raise MirrorProtocolError("it confirms what was not sent")
        blocks = self._sent.popleft()
        if payload[0] == 0:
            self._failed.append(blocks)


def split_batches(blocks: Blocks) -> list[Blocks]:
    """Return blocks in batches, in their order."""
    return [blocks[first : first + BATCH_BLOCKS] for first in range(0, len(blocks), BATCH_BLOCKS)]
