# SPDX-License-Identifier: Apache-2.0
"""Make a record of a run of new blocks, and prove that it can be read back before anything is stored."""

from __future__ import annotations

from dataclasses import dataclass

from deltaimg.arrays import DIGEST_BYTES, Digests
from deltaimg.codec.interface import Codec
from deltaimg.codec.none import NoneCodec
from deltaimg.errors import IntegrityError
from deltaimg.format.framing import digest_bytes
from deltaimg.format.pack import RecordHeader
from deltaimg.kernels import digest_buffer, is_equal

_WORTH_IT = 0.98
"""A record that compresses to more than this share of itself is stored as it is, and so restores at memory speed."""


@dataclass(frozen=True, slots=True)
class EncodedRecord:
    """A record ready for a pack, and the digests of its slots."""

    header: RecordHeader
    payload: bytes
    digests: Digests


def encode_record(
    content: memoryview, digests: Digests, *, codec: Codec, record_key: bytes, block_bytes: int, scratch: memoryview
) -> EncodedRecord:
    """Encode one record's content, decode it again into `scratch` and compare.

    Raises:
        IntegrityError: the codec does not give back what it was given; nothing was stored.
    """
    payload = codec.encode(content)
    encoding_id = codec.encoding_id
    if len(payload) > _WORTH_IT * len(content):
        payload, encoding_id = bytes(content), NoneCodec.encoding_id
    else:
        try:
            is_right = is_equal(codec.decode(payload, len(content), scratch), content)
        except ValueError:
            is_right = False
        if not is_right:
            raise IntegrityError(f"codec {codec.name}", 0, "does not give back what was compressed; nothing was stored")
    header = RecordHeader(
        id=digest_buffer(digests.data, record_key, DIGEST_BYTES),
        encoding=encoding_id,
        slots=len(digests),
        block_shift=block_bytes.bit_length() - 1,
        payload_bytes=len(payload),
        payload_digest=digest_bytes(payload),
    )
    return EncodedRecord(header, payload, digests)
