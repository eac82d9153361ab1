# SPDX-License-Identifier: Apache-2.0
"""Encode content without sources: by the codec that makes less of it, decoded again and compared before anything is stored."""

from __future__ import annotations

from msgspec import Struct

from deltaimg.codec.interface import Codec
from deltaimg.codec.none import NoneCodec
from deltaimg.errors import IntegrityError
from deltaimg.kernels import is_equal

_WORTH_IT = 0.98
"""What compresses to more than this share of itself is stored as it is, and so restores at memory speed."""
_WORTH_A_SECOND = 0.9
"""A second codec is tried where the first makes less than this share of the content, and where it makes less than this share
of what the first makes of a sample."""
_SAMPLE_BYTES = 32 << 10


class EncodedLiteral(Struct, frozen=True):
    """Encoded content, and the encoding that it is in."""

    encoding: int
    payload: bytes


class LiteralEncoder(Struct, frozen=True):
    """Encodes content; any number of threads may use one."""

    codec: Codec
    second_codec: Codec | None = None
    """Tried as well, where it makes less of a sample."""

    def encode(self, content: memoryview, scratch: memoryview) -> EncodedLiteral:
        """Encode content, decode it again into `scratch` and compare.

        Raises:
            IntegrityError: the codec does not reproduce its input.
        """
        payload, codec = self._encode_smaller(content)
        if len(payload) > _WORTH_IT * len(content):
            return EncodedLiteral(NoneCodec.encoding_id, bytes(content))
        try:
            is_right = is_equal(codec.decode(payload, len(content), scratch), content)
        except ValueError:
            is_right = False
        if not is_right:
            raise refuse_codec(codec.name)
        return EncodedLiteral(codec.encoding_id, payload)

    def _encode_smaller(self, content: memoryview) -> tuple[bytes, Codec]:
        """Return the smaller payload, and the codec that made it."""
        payload, second = self.codec.encode(content), self.second_codec
        if second is None or len(payload) > _WORTH_A_SECOND * len(content):
            return payload, self.codec
        sample = content[:_SAMPLE_BYTES]
        if len(second.encode(sample)) > _WORTH_A_SECOND * len(self.codec.encode(sample)):
            return payload, self.codec
        other = second.encode(content)
        return (other, second) if len(other) < len(payload) else (payload, self.codec)


def refuse_codec(codec: str) -> IntegrityError:
    """Return the error for a codec that does not reproduce what it compressed."""
    return IntegrityError(codec, 0, "does not reproduce what it compressed; nothing was stored")
