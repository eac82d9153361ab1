# SPDX-License-Identifier: Apache-2.0
"""Key files: one line of text with 32 random bytes and a checksum, readable by its owner only.

deltaimg-key-1:<64 hexadecimal digits>:<8 hexadecimal digits, digest-4 of the bytes>
"""

from __future__ import annotations

import os
import re
import secrets
import stat

from deltaimg.crypto.key_slots import KeyFile
from deltaimg.crypto.secret import KEY_BYTES
from deltaimg.errors import UsageError
from deltaimg.format.framing import digest_bytes
from deltaimg.posix import write_secret

_LINE = re.compile(rb"deltaimg-key-1:([0-9a-f]{64}):([0-9a-f]{8})\n?")
_MAX_BYTES = 4096


def make_key_file(path: str) -> KeyFile:
    """Write a new key file, durably, and return its key; raises UsageError if there is a file already, or none can be made."""
    key = secrets.token_bytes(KEY_BYTES)
    try:
        line = b"deltaimg-key-1:%b:%b\n" % (key.hex().encode(), digest_bytes(key, length=4).hex().encode())
        write_secret(path, line)
    except OSError as error:
        raise UsageError(f"{path}: no key file can be made: {os.strerror(error.errno or 0).lower()}") from error
    return KeyFile(key, f"the key file {path}")


def read_key_file(path: str) -> KeyFile:
    """Return the key of a key file; raises UsageError if it cannot be read, is none, or others than its owner may use it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status, data = os.fstat(descriptor), file.read(_MAX_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: {os.strerror(error.errno or 0).lower()}") from error
    if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"{path}: others than its owner may use this key file", hint=f"chmod 600 {path}")
    line = _LINE.fullmatch(data)
    if line is None:
        raise UsageError(f"{path}: is not a key file of deltaimg")
    key = bytes.fromhex(line[1].decode())
    if digest_bytes(key, length=4).hex().encode() != line[2]:
        raise UsageError(f"{path}: the key file is damaged: its checksum is that of another key")
    return KeyFile(key, f"the key file {path}")
