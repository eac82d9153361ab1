# SPDX-License-Identifier: Apache-2.0
"""Batches: blocks that are compressed together, and the frames PLAN, HAVE, CONTENT and DONE that are about one of them.

    plan    := u32 count, u64 step to each block from the one before, 8 bytes of each new digest
    have    := a bit for each block, lowest first: the copy has it elsewhere
    content := u8 encoding, u8 whole, 16 bytes digest, payload
    done    := u8: 1 if the blocks have the digest, 0 if all of them must come again, whole

The digest is that of the digests of all blocks of the batch. Payload is what the copy has not; all of it, where `whole` is 1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.codec.interface import Codec
from deltaimg.codec.none import NoneCodec
from deltaimg.codec.registry import find_decoder
from deltaimg.codec.zstd import ZstdCodec
from deltaimg.engine.mirror.table import Blocks
from deltaimg.errors import MirrorProtocolError
from deltaimg.format.mirror import BLOCK_BYTES
from deltaimg.kernels import digest_buffer

BATCH_BLOCKS: Final = 128
WINDOW: Final = 8
"""Plans that are sent before the first is answered."""
MAX_PENDING: Final = 64
"""Plans that the far side keeps until their content comes."""
PREFIX_BYTES: Final = 8
"""Of a digest, by which a block is looked for in the copy; the digest of the batch tells whether it was the right one."""
_CONTENT_HEAD = struct.Struct("<BB16s")
_LITERAL_CODECS: tuple[Codec, ...] = (DeltaimgCodec(3), ZstdCodec(3))
_SURELY_SMALL = 0.25
"""What the first codec makes less of is not tried with the second."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Blocks of a batch, ascending, and the beginnings of their digests, shape (count, PREFIX_BYTES)."""

    blocks: Blocks
    prefixes: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Content:
    """What the far side lacks of a batch."""

    codec: Codec
    is_whole: bool
    digest: bytes
    payload: memoryview


def build_plan(blocks: Blocks, digests: Digests) -> bytes:
    """Return the frame for some blocks and their digests."""
    steps = np.diff(blocks, prepend=0).astype("<u8")
    return len(blocks).to_bytes(4, "little") + steps.tobytes() + digests[:, :PREFIX_BYTES].tobytes()


def parse_plan(payload: memoryview, block_count: int) -> Plan:
    """Read a plan for an image of `block_count` blocks; raises MirrorProtocolError."""
    count = int.from_bytes(payload[:4], "little")
    if not 0 < count <= BATCH_BLOCKS or len(payload) != 4 + count * (8 + PREFIX_BYTES):
        raise MirrorProtocolError("a plan has another length than it says")
    steps = np.frombuffer(payload[4 : 4 + 8 * count], "<u8")
    blocks = np.cumsum(np.minimum(steps, block_count).astype(np.int64))
    if int(blocks[-1]) >= block_count or not (np.diff(blocks) > 0).all():
        raise MirrorProtocolError("a plan has blocks that the image does not have")
    return Plan(blocks, np.frombuffer(payload[4 + 8 * count :], np.uint8).reshape(count, PREFIX_BYTES))


def build_have(is_there: npt.NDArray[np.bool_]) -> bytes:
    """Return the answer to a plan."""
    return np.packbits(is_there, bitorder="little").tobytes()


def parse_have(payload: memoryview, count: int) -> npt.NDArray[np.bool_]:
    """Read the answer to a plan of `count` blocks; raises MirrorProtocolError."""
    bits = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little")
    if len(payload) != -(-count // 8) or bits[count:].any():
        raise MirrorProtocolError("an answer to a plan has another length than it should")
    return bits[:count].astype(np.bool_)


def digest_batch(digests: Digests) -> bytes:
    """Return the digest of the digests of a batch."""
    return digest_buffer(np.ascontiguousarray(digests).tobytes(), None, DIGEST_BYTES)


def build_content(content: memoryview, digests: Digests, *, is_whole: bool) -> bytes:
    """Return the frame with what the far side lacks.

    Args:
        content: blocks one after another. digests: those of all blocks of the batch.
    """
    codec, payload = _encode(content)
    return _CONTENT_HEAD.pack(codec.encoding_id, is_whole, digest_batch(digests)) + payload


def parse_content(payload: memoryview) -> Content:
    """Read such a frame; raises MirrorProtocolError."""
    if len(payload) < _CONTENT_HEAD.size:
        raise MirrorProtocolError("content ends too early")
    encoding, whole, digest = _CONTENT_HEAD.unpack(payload[: _CONTENT_HEAD.size])
    codec = find_decoder(encoding)
    if codec is None or whole > 1:
        raise MirrorProtocolError(f"content is in an unknown encoding, {encoding}")
    return Content(codec, bool(whole), digest, payload[_CONTENT_HEAD.size :])


def expand(content: Content, block_count: int) -> memoryview:
    """Return the blocks that content holds; raises MirrorProtocolError."""
    try:
        return content.codec.decode(content.payload, block_count * BLOCK_BYTES)
    except ValueError as error:
        raise MirrorProtocolError(f"content {error}") from error


def _encode(content: memoryview) -> tuple[Codec, bytes]:
    """Return the smallest encoding."""
    best: tuple[Codec, bytes] = (NoneCodec(), bytes(content))
    for codec in _LITERAL_CODECS if content else ():
        encoded = codec.encode(content)
        if len(encoded) < len(best[1]):
            best = codec, encoded
        if len(best[1]) < _SURELY_SMALL * len(content):
            break
    return best
