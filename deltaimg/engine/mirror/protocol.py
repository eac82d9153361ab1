# SPDX-License-Identifier: Apache-2.0
"""What the two sides of a mirror say to each other, in frames over a pipe.

The near side has the image, the far side the copy.

    far  -> near  MAGIC, HELLO       which protocol it speaks
    near -> far   OPEN               which copy, how large the image is, what is wanted
    far  -> near  COPY               the key of the digests, what there is; meanwhile the near side reads the image
    far  -> near  READY              the root digest of what the copy holds; equal ones end here with FINISH
    near -> far   GROUPS             of how many; far -> near  GROUPS: short digests of the first groups of blocks
    near -> far   DETAILS            numbers of groups; far -> near  DETAILS: short digests of the blocks of these groups
    near -> far   BEGIN, CLEAR       how much comes; blocks that are zero now
    near -> far   PLAN               blocks of one batch, and the beginnings of their new digests
    far  -> near  HAVE               which of them the copy has elsewhere
    near -> far   CONTENT            the others, compressed; far -> near  DONE: whether that gave the right digests
    near -> far   FINISH             the root digest that it must be; far -> near  FINISHED: it is, on the disk
    far  -> near  PROGRESS           how many bytes it has read, at any time
    far  -> near  ERROR              why it gives up, at any time

    frame := u8 kind (+ 128: a zstd frame), u32 bytes, u32 bytes expanded, payload

Memory  no frame is read before its lengths were found to be what its kind may have.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol, TypeVar

import msgspec

from deltaimg.codec.zstd import ZstdCodec
from deltaimg.descriptors import read_some, write_all
from deltaimg.errors import DeltaimgError, FarSideError, Interrupted, MirrorProtocolError, error_classes
from deltaimg.model import Size
from deltaimg.text import as_text

PROTOCOL: Final = 3
MAGIC: Final = b"\x8bDIMGMR\n"
_HEAD = struct.Struct("<BII")
_COMPRESSED = 0x80
MAX_TEXT_FRAME_BYTES: Final = 64 << 10
MAX_FRAME_BYTES: Final = 2 << 20
PIECE_BYTES: Final = 1 << 20
"""What a long list is sent in."""
_WORTH_COMPRESSING_BYTES = 64


class Kind(IntEnum):
    """What a frame is."""

    (
        HELLO,
        OPEN,
        COPY,
        READY,
        GROUPS,
        DETAILS,
        BEGIN,
        CLEAR,
        PLAN,
        HAVE,
        CONTENT,
        DONE,
        FINISH,
        FINISHED,
        PROGRESS,
        ERROR,
    ) = range(1, 17)


_DATA_KINDS = frozenset((Kind.GROUPS, Kind.DETAILS, Kind.CLEAR, Kind.PLAN, Kind.HAVE, Kind.CONTENT))


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frame that is a JSON object."""


class Hello(Message, frozen=True):
    """The far side's first frame. Later protocols may have more fields."""

    protocol: int
    version: str


class ImageIdentity(Message, frozen=True):
    """By what numbers the near side's kernel has the image: `st_dev` and `st_ino` of a file, -1 and `st_rdev` of a device."""

    boot_id: str
    """Empty where it is unknown. Only the kernel of this boot means the same by these numbers."""
    identity: tuple[int, int]
    storage: list[tuple[int, int]]
    """Of the image, and of what its bytes lie on."""


class Open(Message, frozen=True):
    """What the near side wants."""

    protocol: int
    path: bytes
    """Names of files are bytes, and not all are text."""
    image_bytes: Size
    is_forced: bool = False
    is_in_place: bool = False
    is_dry: bool = False
    is_recovering: bool = False
    """Undo or finish what a run before began, and nothing else."""
    image: ImageIdentity | None = None


class Copy(Message, frozen=True):
    """What there is. `to_read_bytes`: of the copy, before the far side is ready."""

    key: str
    to_read_bytes: Size
    mode: str
    """How it will be changed: new, clone or in-place."""
    recovered: str = ""
    """What was done about a run before that was cut: undone, finished, removed, continued or nothing."""


class Ready(Message, frozen=True):
    """The copy holds this now."""

    root: str
    image_bytes: Size


class Begin(Message, frozen=True):
    """How many blocks will be changed, zeroed ones included."""

    block_count: int


class Finish(Message, frozen=True):
    """What the copy must hold now."""

    root: str
    is_verified: bool


class Finished(Message, frozen=True):
    """The copy holds it."""

    read_bytes: int
    """Of it, read back from the disk and compared."""


class Failed(Message, frozen=True):
    """An error of the far side."""

    error: str
    message: str
    hint: str | None = None


Document = TypeVar("Document", bound=Message)


class Pace(Protocol):
    """A limit of bytes a second each way; seconds to wait are returned."""

    @property
    def piece_bytes(self) -> int: ...

    def delay_sent(self, count: int) -> float: ...

    def delay_received(self, count: int) -> float: ...


class ChannelClosed(DeltaimgError):
    """The other side ended; whoever started it finds out why."""


class Channel:
    """Frames over two descriptors. `on_progress` gets what PROGRESS says."""

    def __init__(self, source: int, sink: int, pace: Pace | None = None) -> None:
        self._source, self._sink, self._pace = source, sink, pace
        self._codec = ZstdCodec(3)
        self.sent_bytes = self.received_bytes = 0
        self.on_progress: Callable[[int], None] = lambda _: None

    def send(self, kind: Kind, payload: bytes | memoryview = b"", *, is_compact: bool = False) -> None:
        """Send a frame; raises ChannelClosed, or what the far side failed with.

        Args:
            is_compact: the payload does not get smaller by compression.
        """
        packed = b"" if is_compact or len(payload) < _WORTH_COMPRESSING_BYTES else self._codec.encode(payload)
        is_packed = 0 < len(packed) < len(payload)
        body = packed if is_packed else payload
        head = _HEAD.pack(kind | (_COMPRESSED if is_packed else 0), len(body), len(payload))
        self.write(head + bytes(body))

    def send_message(self, kind: Kind, message: Message) -> None:
        """Send a frame that is a JSON object."""
        self.send(kind, msgspec.json.encode(message), is_compact=True)

    def receive(self, *wanted: Kind) -> tuple[Kind, memoryview]:
        """Return the next frame, which must be of one of these kinds.

        Raises:
            ChannelClosed: there is none. FarSideError: the far side failed. MirrorProtocolError: it is something else.
        """
        while True:
            kind, payload = self._receive()
            if kind is Kind.PROGRESS and len(payload) == 8:
                self.on_progress(int.from_bytes(payload, "little"))
            elif kind is Kind.ERROR:
                raise _describe_failure(self.parse(payload, Failed))
            elif kind in wanted:
                return kind, payload
            else:
                raise MirrorProtocolError(f"a {kind.name} frame came where {wanted[0].name} belongs")

    def receive_message(self, kind: Kind, message_type: type[Document]) -> Document:
        """Return the next frame, which must be this JSON object."""
        return self.parse(self.receive(kind)[1], message_type)

    def receive_magic(self) -> None:
        """Take what the far side begins with; raises MirrorProtocolError, with what came instead."""
        found = self._read(len(MAGIC), is_whole=False)
        if not found:
            raise ChannelClosed("the connection ended")
        if bytes(found) != MAGIC:
            rest = self._read(200, is_whole=False) if len(found) == len(MAGIC) else b""
            said = as_text((bytes(found) + bytes(rest)).decode(errors="replace").strip()[:120])
            raise MirrorProtocolError(
                f"it printed '{said}' where deltaimg should speak",
                hint="a login script there prints something: let it do so in interactive shells only",
            )

    # -- parts -------------------------------------------------------------------------------------------------------

    def _receive(self) -> tuple[Kind, memoryview]:
        marked, length, expanded = _HEAD.unpack(self._read(_HEAD.size))
        try:
            kind = Kind(marked & ~_COMPRESSED)
        except ValueError as error:
            raise MirrorProtocolError(f"a frame of unknown kind {marked}") from error
        most = MAX_FRAME_BYTES if kind in _DATA_KINDS else MAX_TEXT_FRAME_BYTES
        is_packed = bool(marked & _COMPRESSED)
        if expanded > most or length > expanded or (not is_packed and length != expanded):
            raise MirrorProtocolError(f"a {kind.name} frame claims {length} bytes, {expanded} expanded")
        body = self._read(length)
        if not is_packed:
            return kind, body
        try:
            return kind, self._codec.decode(body, expanded)
        except ValueError as error:
            raise MirrorProtocolError(f"a {kind.name} frame cannot be expanded") from error

    def parse(self, payload: memoryview, message_type: type[Document]) -> Document:
        """Return the JSON object in a frame; raises MirrorProtocolError."""
        try:
            return msgspec.json.decode(bytes(payload), type=message_type)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            name = message_type.__name__.lower()
            raise MirrorProtocolError(f"a {name} frame is not valid: {as_text(str(error))}") from error

    def _read(self, length: int, *, is_whole: bool = True) -> memoryview:
        """Return the next bytes; raises ChannelClosed at the end, or, if `is_whole` is not set, returns what there is."""
        buffer = memoryview(bytearray(length))
        done = 0
        while done < length:
            most = self._pace.piece_bytes if self._pace else length
            try:
                got = read_some(self._source, buffer[done : done + most])
            except OSError:
                got = 0
            if not got:
                if is_whole:
                    raise ChannelClosed("the connection ended")
                break
            done += got
            self.received_bytes += got
            if self._pace:
                _sleep(self._pace.delay_received(got))
        return buffer[:done]

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes as they are."""
        rest = memoryview(data)
        while rest:
            piece = rest[: self._pace.piece_bytes if self._pace else len(rest)]
            if self._pace:
                _sleep(self._pace.delay_sent(len(piece)))
            try:
                write_all(self._sink, piece)
            except OSError as error:
                self._raise_last_error()
                raise ChannelClosed("the connection ended") from error
            self.sent_bytes += len(piece)
            rest = rest[len(piece) :]

    def _raise_last_error(self) -> None:
        """Raise what the other side said before it ended, if it said why."""
        try:
            while True:
                self.receive(Kind.ERROR, *Kind)
        except (ChannelClosed, MirrorProtocolError):
            return


def send_error(channel: Channel, error: DeltaimgError | Interrupted) -> None:
    """Tell the near side why the far side gives up, if it still listens."""
    failed = Failed(type(error).__name__, as_text(str(error)), error.hint and as_text(error.hint))
    try:
        channel.send_message(Kind.ERROR, failed)
    except DeltaimgError:
        return


def _describe_failure(failed: Failed) -> DeltaimgError:
    """Return what the far side failed with: with the exit code that it would have here."""
    error = FarSideError(as_text(failed.message), hint=failed.hint and as_text(failed.hint))
    known = {each.__name__: each for each in error_classes()}.get(failed.error)
    if known is not None:
        error.exit_code, error.retryable = known.exit_code, known.retryable
    return error


def _sleep(delay_s: float) -> None:
    if delay_s > 0:
        time.sleep(delay_s)
