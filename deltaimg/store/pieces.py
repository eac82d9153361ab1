# SPDX-License-Identifier: Apache-2.0
"""An object, which is given in parts of any length, in pieces of one length."""

from __future__ import annotations

from collections.abc import Iterator

from deltaimg.store.interface import Parts


def cut(parts: Parts, piece_bytes: int, start: int = 0) -> Iterator[bytes]:
    """Yield the bytes of all `parts` in a row, from `start` on, in pieces of `piece_bytes`; the last may be shorter."""
    waiting: list[memoryview] = []
    waiting_bytes = 0
    for part in parts:
        view = memoryview(part).cast("B")
        skipped = min(start, len(view))
        start -= skipped
        view = view[skipped:]
        while waiting_bytes + len(view) >= piece_bytes:
            taken = piece_bytes - waiting_bytes
            yield b"".join((*waiting, view[:taken]))
            view, waiting, waiting_bytes = view[taken:], [], 0
        if len(view):
            waiting.append(view)
            waiting_bytes += len(view)
    if waiting:
        yield b"".join(waiting)
