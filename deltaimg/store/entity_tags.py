# SPDX-License-Identifier: Apache-2.0
"""What object storage says of the bytes that it received: the entity tag of an object, which every listing brings along.

    sent in one request   the MD5 of the bytes
    sent in parts         the MD5 of the MD5s of the parts, and `-` with their number

That is what S3 does, with or without keys of its own, and most who speak its language; it is promised for no parts. In
directory buckets, in Azure, and where objects are encrypted by a key of the customer's or of KMS, the tag says nothing of
the bytes. So a tag that is the expected one verifies an object. Another one says something only where tags of the same kind
were the expected ones.

A tag is made when an object is received, and kept beside it: it does not show what became of the bytes on the disk since.

Memory  100 bytes an object.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from hashlib import md5

from deltaimg.store.interface import Parts
from deltaimg.store.pieces import cut


class EntityTags:
    """The tags that objects which were sent should have. Any number of threads may note them."""

    def __init__(self, part_bytes: int) -> None:
        """Args: part_bytes: how large each part of an object is that is sent in parts, but for the last."""
        self._part_bytes = part_bytes
        self._expected: dict[str, str] = {}
        self._lock = threading.Lock()

    def note(self, name: str, parts: Parts, *, has_parts: bool) -> None:
        """Note that these bytes are sent under this name, in one request or in parts."""
        digests = [_digest([piece]) for piece in cut(parts, self._part_bytes)] if has_parts else []
        tag = f"{md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}" if has_parts else ""
        with self._lock:
            self._expected[name] = tag or _digest(parts).hex()

    def compare(self, found: Mapping[str, str]) -> dict[str, bool]:
        """Return which objects have the tags that they should have; those of which a tag says nothing are left out.

        Args:
            found: tags of a listing, by name.
        """
        known = {
            name: (self._expected[name], tag.strip('"').lower())
            for name, tag in found.items()
            if name in self._expected
        }
        meaningful = {"-" in expected for expected, tag in known.values() if tag == expected}
        return {name: tag == expected for name, (expected, tag) in known.items() if ("-" in expected) in meaningful}


def _digest(parts: Parts) -> bytes:
    hasher = md5(usedforsecurity=False)
    for part in parts:
        hasher.update(part)
    return hasher.digest()
