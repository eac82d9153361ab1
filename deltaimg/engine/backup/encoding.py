# SPDX-License-Identifier: Apache-2.0
"""The encoder that a backup's options ask for."""

from __future__ import annotations

from deltaimg.codec.zstd import ZstdCodec
from deltaimg.delta.encode import Encoder
from deltaimg.delta.interface import DeltaCodecs
from deltaimg.delta.registry import make_second_codec
from deltaimg.engine.backup.context import BackupContext
from deltaimg.options.backup import FORCED_DELTA_MODES


def make_encoder(context: BackupContext, delta_codecs: DeltaCodecs) -> Encoder:
    """Return the encoder of a backup's records."""
    options = context.options
    # A first full backup would become 3 % smaller by a second codec for literals, and take half as long again.
    tries_second = options.delta != "auto" or context.base.is_usable
    return Encoder(
        ZstdCodec(options.level),
        delta_codecs,
        record_key=context.repository.keys.record,
        block_bytes=context.block_bytes,
        is_delta_forced=options.delta in FORCED_DELTA_MODES,
        second_codec=make_second_codec(options.delta, options.level) if tries_second else None,
    )
