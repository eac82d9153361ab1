# SPDX-License-Identifier: Apache-2.0
"""Agree with an NBD server on an export, and on what it reports besides content."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from msgspec import Struct

from deltaimg.image.nbd import protocol as nbd
from deltaimg.image.nbd.connection import Connection, NbdFailure
from deltaimg.model import MAX_IMAGE_BYTES, MIB
from deltaimg.text import as_text

_USUAL_MAX_BYTES = 32 * MIB
"""What every server must take in one request, where it does not say anything else."""


class Export(Struct, frozen=True):
    """What was agreed on."""

    size_bytes: int
    min_block_bytes: int
    """Offsets and lengths of requests are multiples of it; a power of two."""
    max_block_bytes: int
    """A request asks for no more."""
    is_structured: bool
    """Whether replies are structured; else there is no block status either."""
    contexts: dict[str, int]
    """The number of each metadata context that was asked for and that the server has."""


class _Reply(Struct, frozen=True):
    kind: int
    data: bytes

    @property
    def message(self) -> str:
        """What a server says of an error."""
        said = as_text(self.data[: nbd.MAX_MESSAGE_BYTES].decode(errors="replace"))
        return f" ({said})" if said else ""


def negotiate(connection: Connection, export: str, contexts: Sequence[str]) -> Export:
    """Agree on an export; raises NbdFailure.

    Args:
        contexts: metadata contexts to ask for; those that the server has not are left out.
    """
    connection.expect_message()
    greeting = connection.receive(18)
    if not greeting.startswith(nbd.GREETING):
        raise NbdFailure("is no NBD server: it sends something else")
    flags = int.from_bytes(greeting[16:], "big")
    if greeting[8:16] != nbd.NEWSTYLE or not flags & nbd.FIXED_NEWSTYLE:
        raise NbdFailure("the server speaks an old form of the protocol that has no replies to options")
    connection.send(struct.pack(">L", nbd.FIXED_NEWSTYLE | (flags & nbd.NO_ZEROES)))
    is_structured = _ask(connection, nbd.STRUCTURED_REPLY, b"")[-1].kind == nbd.ACK
    name = export.encode(errors="surrogateescape")
    found = _choose_contexts(connection, name, contexts) if is_structured and contexts else {}
    replies = _ask(connection, nbd.GO, struct.pack(">L", len(name)) + name + struct.pack(">HH", 1, nbd.INFO_BLOCK_SIZE))
    if replies[-1].kind != nbd.ACK:
        raise _refused(replies[-1], export)
    return _read_export(replies, is_structured=is_structured, contexts=found)


def _choose_contexts(connection: Connection, name: bytes, contexts: Sequence[str]) -> dict[str, int]:
    """Return the numbers of those metadata contexts that the server has; none where it reports none at all."""
    data = struct.pack(">L", len(name)) + name + struct.pack(">L", len(contexts))
    for each in contexts:
        data += struct.pack(">L", len(each.encode())) + each.encode()
    replies = _ask(connection, nbd.SET_META_CONTEXT, data)
    if replies[-1].kind != nbd.ACK:
        return {}
    found = {}
    for reply in replies:
        if reply.kind == nbd.META_CONTEXT and len(reply.data) > 4:
            found[reply.data[4:].decode(errors="replace")] = int.from_bytes(reply.data[:4], "big")
    if not found.keys() <= set(contexts) or len(set(found.values())) != len(found):
        raise NbdFailure("the server offers metadata that was not asked for")
    return found


def _ask(connection: Connection, option: int, data: bytes) -> list[_Reply]:
    """Send an option; return the replies to it, of which the last is an ACK or an error. Raises NbdFailure."""
    connection.send(nbd.OPTION.pack(nbd.NEWSTYLE, option, len(data)) + data)
    replies: list[_Reply] = []
    while len(replies) < nbd.MAX_OPTION_REPLIES:
        connection.expect_message()
        magic, about, kind, length = nbd.OPTION_REPLY.unpack(connection.receive(nbd.OPTION_REPLY.size))
        if magic != nbd.OPTION_REPLY_MAGIC or about != option or length > nbd.MAX_OPTION_BYTES:
            raise NbdFailure("the server answers an option otherwise than the protocol allows")
        replies.append(_Reply(kind, connection.receive(length)))
        if kind == nbd.ACK or kind & nbd.IS_ERROR:
            return replies
    raise NbdFailure("the server never ends its answer to an option")


def _refused(reply: _Reply, export: str) -> NbdFailure:
    """Return why an export cannot be used."""
    name = f"export '{as_text(export)}'" if export else "default export"
    if reply.kind == nbd.UNKNOWN:
        return NbdFailure(f"the server has no {name}{reply.message}", hint="'nbdinfo --list URL' lists those it has")
    if reply.kind == nbd.TLS_NEEDED:
        hint = "lead it through SSH, to a server on its socket or its loopback address"
        return NbdFailure("the server demands TLS, which deltaimg does not speak", hint=hint)
    if reply.kind == nbd.UNSUPPORTED:
        return NbdFailure("the server is too old: it does not know NBD_OPT_GO")
    reason = {nbd.POLICY: "by policy", nbd.SHUTDOWN: "since it is being shut down"}.get(reply.kind, "")
    return NbdFailure(f"the server refuses the {name} {reason}".rstrip() + reply.message)


def _read_export(replies: list[_Reply], *, is_structured: bool, contexts: dict[str, int]) -> Export:
    """Return what a server says of an export; raises NbdFailure where that makes no sense."""
    size_bytes, least, most = None, 1, _USUAL_MAX_BYTES
    for reply in replies:
        kind = int.from_bytes(reply.data[:2], "big") if reply.kind == nbd.INFO else -1
        if kind == nbd.INFO_EXPORT and len(reply.data) == 12:
            size_bytes = int.from_bytes(reply.data[2:10], "big")
        elif kind == nbd.INFO_BLOCK_SIZE and len(reply.data) == 14:
            least, _, most = struct.unpack(">LLL", reply.data[2:])
    if size_bytes is None:
        raise NbdFailure("the server does not say how large the export is")
    if size_bytes > MAX_IMAGE_BYTES:
        raise NbdFailure(f"is larger than {MAX_IMAGE_BYTES} bytes")
    if not 1 <= least <= nbd.MAX_MIN_BLOCK_BYTES or least & (least - 1) or most < least:
        raise NbdFailure(f"the server demands requests of {least} to {most} bytes, which the protocol does not allow")
    if size_bytes % least:
        raise NbdFailure(f"has {size_bytes} bytes, and the server lets only multiples of {least} be read")
    return Export(size_bytes, least, most // least * least, is_structured, contexts)
