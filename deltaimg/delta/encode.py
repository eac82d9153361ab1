# SPDX-License-Identifier: Apache-2.0
"""Encode a run of new blocks as a record, decode it again and compare, before anything is stored."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.codec.interface import Codec
from deltaimg.delta.interface import DeltaCodec, DeltaCodecs
from deltaimg.delta.literals import LiteralEncoder, refuse_codec
from deltaimg.delta.sources import Sources, choose_used
from deltaimg.format.framing import digest_bytes
from deltaimg.format.record import WHOLE_LITERAL, CutTable, RecordHeader, RecordTables, build_tables
from deltaimg.format.slot_runs import collect_runs
from deltaimg.format.sources import build_sources
from deltaimg.kernels import digest_buffer, is_equal
from deltaimg.model import MIB

RECORD_BYTES = MIB // 2
"""What new blocks are gathered to, of whatever size they are."""
_LEAST_GAIN = 0.05
"""A delta that saves less than this share of the literal is not worth the sources that a restore must have."""
_SURELY_WORTH_SOURCES = 0.125
"""A delta of less than this share of the content is compared neither with a literal nor with deltas of a further round."""


class EncodedRecord(Struct, frozen=True):
    """A record ready for a pack, the digests of all its slots, and the tables that its payload begins with."""

    header: RecordHeader
    payload: bytes
    digests: Digests
    tables: RecordTables = WHOLE_LITERAL
    gain: float | None = None
    """What the delta saved of the literal, 0 to 1, where one was tried."""


class _Delta(Struct, frozen=True):
    """What a codec made, and of which sources."""

    codec: DeltaCodec
    payload: bytes
    sources: Sources

    def count_bytes(self) -> int:
        """Return what it takes in a pack, its table of sources included."""
        return len(build_sources(self.sources.table)) + len(self.payload)


def count_record_blocks(block_bytes: int) -> int:
    """Return how many blocks fill a record."""
    return max(1, RECORD_BYTES // block_bytes)


class Encoder:
    """Encodes records; any number of threads may use one."""

    def __init__(
        self,
        codec: Codec,
        delta_codecs: DeltaCodecs,
        *,
        record_key: bytes,
        block_bytes: int,
        is_delta_forced: bool = False,
        second_codec: Codec | None = None,
    ) -> None:
        """Make an encoder.

        Args:
            codec: what literals are encoded with.
            delta_codecs: what is tried for a record that has sources; the smallest delta is taken.
            second_codec: tried for literals as well, where it makes less of a sample.
        """
        self._literals, self._delta_codecs = LiteralEncoder(codec, second_codec), delta_codecs
        self._record_key, self._block_bytes = record_key, block_bytes
        self._is_delta_forced = is_delta_forced

    def name_record(self, digests: Digests) -> bytes:
        """Return the id of the record whose slots have these digests."""
        return digest_buffer(digests.data, self._record_key, DIGEST_BYTES)

    def encode(
        self,
        content: memoryview,
        digests: Digests,
        sources: Sources | None,
        scratch: memoryview,
        kept: npt.NDArray[np.int64] | None = None,
    ) -> EncodedRecord:
        """Encode one record's content, decode it again into `scratch` and compare.

        Args:
            content: of all slots, or of those that are `kept`, ascending; the record is then a cut one.
            digests: of all slots.

        Raises:
            IntegrityError: a codec does not reproduce its input; nothing was stored.
        """
        cut = None if kept is None or len(kept) == len(digests) else _cut(digests, kept)
        if sources is None:
            return self._encode_literal(content, digests, cut, scratch)
        delta = self._encode_delta(content, digests, sources, cut, scratch)
        most = len(content) * (1 if self._is_delta_forced else _SURELY_WORTH_SOURCES)
        if delta is not None and len(delta.payload) < most:
            return replace(delta, gain=1 - len(delta.payload) / len(content))
        literal = self._encode_literal(content, digests, cut, scratch)
        gain = 0.0 if delta is None else max(0.0, 1 - len(delta.payload) / len(literal.payload))
        return replace(delta if delta is not None and gain > _LEAST_GAIN else literal, gain=gain)

    def _encode_literal(
        self, content: memoryview, digests: Digests, cut: CutTable | None, scratch: memoryview
    ) -> EncodedRecord:
        literal = self._literals.encode(content, scratch)
        return self._make_record(literal.encoding, digests, RecordTables(cut), literal.payload)

    def _encode_delta(
        self, content: memoryview, digests: Digests, sources: Sources, cut: CutTable | None, scratch: memoryview
    ) -> EncodedRecord | None:
        """Return content as a delta; None if it has too little of the sources."""
        delta = self._encode_smallest(content, sources)
        if delta is None:
            return None
        decoder, base = delta.codec, delta.sources
        try:
            decoded = decoder.decode(memoryview(delta.payload), base.content, len(content), scratch)
            is_right = is_equal(decoded, content)
        except ValueError:
            is_right = False
        if not is_right:
            raise refuse_codec(f"delta codec {decoder.name}")
        return self._make_record(decoder.encoding_id, digests, RecordTables(cut, base.table), delta.payload)

    def _encode_smallest(self, content: memoryview, sources: Sources) -> _Delta | None:
        """Return the smallest delta that is found, None if it would have no sources."""
        found: list[_Delta] = []
        choose = partial(choose_used, sources.table)
        for codecs in self._delta_codecs:
            for codec in codecs:
                payload, used = codec.encode_used(content, sources.content, self._block_bytes, choose)
                if used is None:
                    found.append(_Delta(codec, payload, sources))
                elif used.is_kept.any():
                    found.append(_Delta(codec, payload, Sources(sources.table.keep(used.is_kept), used.content)))
                elif len(payload) < _SURELY_WORTH_SOURCES * len(content):
                    return None  # without sources it is as small
            smallest = min(found, key=_Delta.count_bytes, default=None)
            if smallest is not None and len(smallest.payload) < _SURELY_WORTH_SOURCES * len(content):
                break
        return smallest

    def _make_record(self, encoding_id: int, digests: Digests, tables: RecordTables, encoded: bytes) -> EncodedRecord:
        payload = build_tables(tables) + encoded
        header = RecordHeader(
            id=self.name_record(digests),
            encoding=encoding_id,
            slots=len(digests),
            block_shift=self._block_bytes.bit_length() - 1,
            payload_bytes=len(payload),
            payload_digest=digest_bytes(payload),
            sources=0 if tables.sources is None else len(tables.sources.ids),
            absent=0 if tables.cut is None else len(tables.cut.absent_digests),
        )
        return EncodedRecord(header, payload, digests, tables)


def _cut(digests: Digests, kept: npt.NDArray[np.int64]) -> CutTable:
    """Return the table of a record of which only the slots `kept` are stored."""
    runs, _ = collect_runs(kept, np.zeros(len(kept), np.bool_))
    return CutTable(runs, np.delete(digests, kept, axis=0))
