# SPDX-License-Identifier: Apache-2.0
"""Batches: blocks that are compressed together, and the frames PLAN, HAVE, CONTENT and DONE that are about one of them.

    plan    := u32 count, u64 step to each block from the one before, 6 bytes of each new digest
    have    := a bit for each block, lowest first: the copy has it elsewhere
    content := u8 encoding, u8 whole, 16 bytes digest, u16 source_count, u16 packed_bytes, sources, payload
    sources := a zstd frame of packed_bytes: u64 step to each of source_count blocks from the one before
    done    := u8: 1 if the blocks have the digest, 0 if all of them must come again, whole

The digest is that of the digests of all blocks of the batch. Payload is what the copy has not; all of it, where `whole` is 1.
Where there are sources it is a delta against these blocks, as the copy has them by then.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.codec.deltaimg_codec import DeltaimgCodec
from deltaimg.codec.interface import Codec
from deltaimg.codec.none import NoneCodec
from deltaimg.codec.registry import find_decoder
from deltaimg.codec.zstd import ZstdCodec
from deltaimg.delta.deltaimg_delta import DeltaimgDelta
from deltaimg.engine.mirror.similar import MAX_SOURCES
from deltaimg.engine.mirror.table import Blocks
from deltaimg.errors import MirrorProtocolError
from deltaimg.format.mirror import BLOCK_BYTES
from deltaimg.kernels import digest_buffer

BATCH_BLOCKS: Final = 256
WINDOW: Final = 8
"""Plans that are sent before the first is answered."""
MAX_PENDING: Final = 32
"""Plans that the far side keeps until their content comes."""
PREFIX_BYTES: Final = 6
"""Of a digest, by which a block is looked for in the copy; the digest of the batch tells whether it was the right one."""
_CONTENT_HEAD = struct.Struct("<BB16sHH")
_LEVEL = 6
"""Of what travels once over a thin line: 2 % less than at the level of backups, for a quarter more time."""
_LITERAL_CODECS: tuple[Codec, ...] = (DeltaimgCodec(_LEVEL), ZstdCodec(_LEVEL + 3))
_DELTA_CODEC = DeltaimgDelta(_LEVEL)
_TABLE_CODEC = ZstdCodec(3)
_SURELY_SMALL = 0.25
"""What one codec makes less of is not tried with another: a third of the time, for 0.05 % of the bytes."""


class Plan(Struct, frozen=True):
    """Blocks of a batch, ascending, and the beginnings of their digests, shape (count, PREFIX_BYTES)."""

    blocks: Blocks
    prefixes: npt.NDArray[np.uint8]


class Content(Struct, frozen=True):
    """What the far side lacks of a batch."""

    codec: Codec
    is_whole: bool
    digest: bytes
    sources: Blocks
    payload: memoryview


def build_plan(blocks: Blocks, digests: Digests) -> bytes:
    """Return the frame for some blocks and their digests."""
    return len(blocks).to_bytes(4, "little") + _build_steps(blocks) + digests[:, :PREFIX_BYTES].tobytes()


def parse_plan(payload: memoryview, block_count: int) -> Plan:
    """Read a plan for an image of `block_count` blocks; raises MirrorProtocolError."""
    count = int.from_bytes(payload[:4], "little")
    if not 0 < count <= BATCH_BLOCKS or len(payload) != 4 + count * (8 + PREFIX_BYTES):
        raise MirrorProtocolError("a plan has another length than it says")
    blocks = _parse_steps(payload[4 : 4 + 8 * count], block_count)
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


def build_content(
    content: memoryview, digests: Digests, sources: Blocks, source_content: memoryview, *, is_whole: bool
) -> bytes:
    """Return the frame with what the far side lacks.

    Args:
        content: blocks one after another. digests: those of all blocks of the batch.
        sources: blocks that the far side has, ascending, and what is in them.
    """
    table = _TABLE_CODEC.encode(_build_steps(sources)) if len(sources) else b""
    encoding_id, payload = NoneCodec.encoding_id, bytes(content)
    if len(sources) and content:
        delta = _DELTA_CODEC.encode(content, source_content)
        if len(delta) + len(table) < len(payload):
            encoding_id, payload = _DELTA_CODEC.encoding_id, delta
    is_delta = encoding_id != NoneCodec.encoding_id
    for codec in _LITERAL_CODECS if content else ():
        if len(payload) < _SURELY_SMALL * len(content):
            break
        encoded = codec.encode(content)
        if len(encoded) < len(payload) + is_delta * len(table):
            encoding_id, payload, is_delta = codec.encoding_id, encoded, False
    if not is_delta:
        sources, table = sources[:0], b""
    head = _CONTENT_HEAD.pack(encoding_id, is_whole, digest_batch(digests), len(sources), len(table))
    return head + table + payload


def parse_content(payload: memoryview, block_count: int) -> Content:
    """Read such a frame for an image of `block_count` blocks; raises MirrorProtocolError."""
    if len(payload) < _CONTENT_HEAD.size:
        raise MirrorProtocolError("content ends too early")
    encoding, whole, digest, source_count, packed_bytes = _CONTENT_HEAD.unpack(payload[: _CONTENT_HEAD.size])
    codec = find_decoder(encoding)
    if codec is None or whole > 1 or (source_count and encoding != _DELTA_CODEC.encoding_id):
        raise MirrorProtocolError(f"content is in an unknown encoding, {encoding}")
    if source_count > MAX_SOURCES or bool(source_count) != bool(packed_bytes):
        raise MirrorProtocolError(f"content is a delta against {source_count} blocks")
    table = payload[_CONTENT_HEAD.size :][:packed_bytes]
    sources = np.zeros(0, np.int64)
    if source_count:
        try:
            sources = _parse_steps(_TABLE_CODEC.decode(table, 8 * source_count), block_count)
        except ValueError as error:
            raise MirrorProtocolError("the sources of a delta cannot be expanded") from error
    return Content(codec, bool(whole), digest, sources, payload[_CONTENT_HEAD.size + packed_bytes :])


def expand(content: Content, block_count: int, sources: memoryview) -> memoryview:
    """Return the blocks that content holds; raises MirrorProtocolError. Args: sources: what is in its sources."""
    try:
        if len(content.sources):
            return _DELTA_CODEC.decode(content.payload, sources, block_count * BLOCK_BYTES)
        return content.codec.decode(content.payload, block_count * BLOCK_BYTES)
    except ValueError as error:
        raise MirrorProtocolError(f"content {error}") from error


def _build_steps(blocks: Blocks) -> bytes:
    return np.diff(blocks, prepend=0).astype("<u8").tobytes()


def _parse_steps(data: memoryview, block_count: int) -> Blocks:
    """Return blocks, ascending; raises MirrorProtocolError where they are not, or not of the image."""
    blocks = np.cumsum(np.minimum(np.frombuffer(data, "<u8"), block_count).astype(np.int64))
    if int(blocks[-1]) >= block_count or not (np.diff(blocks) > 0).all():
        raise MirrorProtocolError("it names blocks that the image does not have")
    return blocks
