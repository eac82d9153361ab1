# SPDX-License-Identifier: Apache-2.0
"""The numbers of the NBD protocol, all big-endian (doc/proto.md), and how much of anything is accepted from a server."""

from __future__ import annotations

from struct import Struct
from typing import Final

GREETING: Final = b"NBDMAGIC"
NEWSTYLE: Final = b"IHAVEOPT"
FIXED_NEWSTYLE: Final = 1
NO_ZEROES: Final = 2

OPTION: Final = Struct(">8sLL")
"""IHAVEOPT, number, length of data."""
OPTION_REPLY: Final = Struct(">QLLL")
OPTION_REPLY_MAGIC: Final = 0x3E889045565A9
GO: Final = 7
STRUCTURED_REPLY: Final = 8
SET_META_CONTEXT: Final = 10
ACK: Final = 1
INFO: Final = 3
META_CONTEXT: Final = 4
IS_ERROR: Final = 1 << 31
UNSUPPORTED, POLICY, TLS_NEEDED, UNKNOWN, SHUTDOWN = (IS_ERROR + number for number in (1, 2, 5, 6, 7))
INFO_EXPORT: Final = 0
INFO_BLOCK_SIZE: Final = 3

REQUEST: Final = Struct(">LHHQQL")
REQUEST_MAGIC: Final = 0x25609513
READ: Final = 0
DISCONNECT: Final = 2
BLOCK_STATUS: Final = 7

SIMPLE: Final = Struct(">LLQ")
SIMPLE_MAGIC: Final = 0x67446698
CHUNK: Final = Struct(">LHHQL")
CHUNK_MAGIC: Final = 0x668E33EF
IS_DONE: Final = 1
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS = 0, 1, 2, 5
IS_ERROR_CHUNK: Final = 1 << 15
ERROR_WITH_OFFSET: Final = IS_ERROR_CHUNK | 2

ALLOCATION: Final = "base:allocation"
BITMAP: Final = "qemu:dirty-bitmap:"
STATUS_HOLE, STATUS_ZERO = 1, 2
"""Of `base:allocation`. Of a dirty bitmap the lowest bit says that the extent is dirty."""

MAX_OPTION_BYTES: Final = 1 << 16
"""Of one reply during negotiation."""
MAX_OPTION_REPLIES: Final = 256
MAX_MESSAGE_BYTES: Final = 4096
MAX_STATUS_BYTES: Final = 1 << 24
"""Of one list of extents: two million. qemu sends 128 Ki, nbdkit a million."""
MAX_MIN_BLOCK_BYTES: Final = 1 << 16
"""What a server may ask requests to be aligned to, by the protocol."""
