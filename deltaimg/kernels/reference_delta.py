# SPDX-License-Identifier: Apache-2.0
"""Deltas of copies and small differences in plain Python: the twin of `native/src/delta`. Bodies are the same byte for byte.

Memory  a copy of sources and content, and a list for the hash table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from deltaimg.errors import NativeError
from deltaimg.kernels.layout import MAX_DELTA_BYTES, Buffer, view_octets

_RECENT, _WITHIN, _SOURCE = 3, 3, 4
_FIRST_RECENTS: Final = (1, 2, 4)
_KIND_BITS, _TOKEN_ADDED, _MAX_SHORT = 3, 31, 32
_SINGLES_DIFFER, _SHORTS_DIFFER = 1, 2
_NARROW_BYTES = 1 << 23
_U32 = 2**32 - 1

_WINDOW = 8
_COST_ADDED, _COST_RECENT, _COST_PLACE, _COST_LATER = 5, 6, 24, 5
_SURE, _ENOUGH, _MAX_LATER, _PATIENCE_LOG = 32, 160, 8, 8
_MIN_TABLE_LOG, _MAX_TABLE_LOG = 12, 18
_DENSE_BYTES = 1 << 20
_MIX, _U64 = 0x9E3779B97F4A7C15, 2**64 - 1
_STEP_BYTES = 64
"""So many bytes are compared at once."""


def _place_bytes(total_bytes: int) -> int:
    return 3 if total_bytes <= _NARROW_BYTES else 4


def _note_distance(latest: list[int], kind: int, distance: int) -> None:
    """Move the distance of a copy to the front; a new one takes the place of the last."""
    del latest[min(kind, _RECENT - 1)]
    latest.insert(0, distance)


def _has_base(position: int, count: int, distance: int, source_bytes: int) -> bool:
    """Return whether added bytes are single or short, and have bytes `distance` before them to differ from."""
    base = position - distance
    return count <= _MAX_SHORT and base >= 0 and (base >= source_bytes or count <= source_bytes - base)


# -- encoding ----------------------------------------------------------------------------------------------------------


class _Match(Struct, frozen=True):
    gain: int = 0
    """Bits saved; 0: no copy is worth its cost."""
    source: int = 0
    """The position to copy from."""
    length: int = 0
    before: int = 0
    """Equal bytes before it."""


class _Search:
    """Finds the best copy for a position of the content."""

    def __init__(self, sources: bytes, content: bytes) -> None:
        self.both, self.source_bytes = sources + content, len(sources)
        self.end = len(self.both)
        self.latest = list(_FIRST_RECENTS)
        log = _MIN_TABLE_LOG
        while log < _MAX_TABLE_LOG and 8 << log < self.end:
            log += 1
        self._shift = 64 - log
        self._table = [-1] * (1 << log)
        for at in range(0, self.source_bytes - _WINDOW + 1, 4 if self.source_bytes <= _DENSE_BYTES else 8):
            self._table[self._place(at)] = at

    def _place(self, at: int) -> int:
        word = int.from_bytes(self.both[at : at + _WINDOW], "little")
        return (word * _MIX & _U64) >> self._shift

    def _count_equal(self, at: int, source: int) -> int:
        """Return how many bytes are equal; a copy ends with the content, or with the sources."""
        both = self.both
        most = self.end - at if source >= self.source_bytes else min(self.end - at, self.source_bytes - source)
        count = 0
        while count < most:
            size = min(_STEP_BYTES, most - count)
            a, b = both[at + count : at + count + size], both[source + count : source + count + size]
            if a != b:
                differs = int.from_bytes(a, "little") ^ int.from_bytes(b, "little")
                return count + ((differs & -differs).bit_length() - 1) // 8
            count += size
        return count

    def count_equal_before(self, at: int, open_at: int, source: int) -> int:
        """Return how many bytes before are equal; none before `open_at`, from where on nothing is made yet."""
        both = self.both
        most = min(at - open_at, source if source < self.source_bytes else source - self.source_bytes)
        count = 0
        while count < most:
            size = min(_STEP_BYTES, most - count)
            a, b = both[at - count - size : at - count], both[source - count - size : source - count]
            if a != b:
                differs = int.from_bytes(a, "big") ^ int.from_bytes(b, "big")
                return count + ((differs & -differs).bit_length() - 1) // 8
            count += size
        return count

    def _find_recent(self, at: int) -> _Match:
        best = _Match()
        for number, distance in enumerate(self.latest):
            source = at - distance
            if self.source_bytes - _WINDOW < source < self.source_bytes:
                continue
            length = self._count_equal(at, source)
            gain = length * _COST_ADDED - _COST_RECENT - number
            if gain > best.gain:
                best = _Match(gain, source, length)
        return best

    def find(self, at: int, open_at: int) -> _Match:
        """Return the best match at `at`, which is entered in the table."""
        best = self._find_recent(at)
        place = self._place(at)
        source, self._table[place] = self._table[place], at
        both = self.both
        if best.length >= _SURE or source < 0 or both[source : source + _WINDOW] != both[at : at + _WINDOW]:
            return best
        length, before = self._count_equal(at, source), self.count_equal_before(at, open_at, source)
        gain = (length + before) * _COST_ADDED - _COST_PLACE
        return _Match(gain, source, length, before) if gain > best.gain else best

    def choose(self, at: int, open_at: int, limit: int) -> tuple[int, _Match]:
        """Return the match at `at`, or a better one a little later, and where it is."""
        best, tried = self.find(at, open_at), 0
        while best.gain > 0 and best.length < _ENOUGH and tried < _MAX_LATER and at + 1 < limit:
            later = self.find(at + 1, open_at)
            if later.gain <= best.gain + _COST_LATER:
                break
            best, at, tried = later, at + 1, tried + 1
        return at, best


class _Streams(Struct):
    """The streams of a delta as they are written; of added bytes plain ones and differences."""

    operations: bytearray = field(default_factory=bytearray)
    places: list[int] = field(default_factory=list)
    singles: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    shorts: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    longs: bytearray = field(default_factory=bytearray)
    source_end: int = 0
    """Of the latest copy out of the sources."""

    def put_operation(self, of: _Search, open_at: int, start: int, source: int, length: int) -> None:
        """Add what lies from `open_at` to `start`, then copy `length` bytes of `source` to there."""
        count, distance = start - open_at, start - source
        self._put_added(of, open_at, count, distance)
        kind = self._put_place(of, source, distance)
        self.operations.append(min(count, _TOKEN_ADDED) << _KIND_BITS | kind)
        if count >= _TOKEN_ADDED:
            self.operations += _varint(count - _TOKEN_ADDED)
        self.operations += _varint(length)
        if source < of.source_bytes:
            self.source_end = source + length
        _note_distance(of.latest, kind, distance)

    def _put_added(self, of: _Search, start: int, count: int, distance: int) -> None:
        added = of.both[start : start + count]
        if not _has_base(start, count, distance, of.source_bytes):
            self.longs += added
            return
        plain, differing = self.singles if count == 1 else self.shorts
        plain += added
        base = of.both[start - distance : start - distance + count]
        differing += bytes((a - b) & 255 for a, b in zip(added, base, strict=True))

    def _put_place(self, of: _Search, source: int, distance: int) -> int:
        if distance in of.latest:
            return of.latest.index(distance)
        if source >= of.source_bytes:
            self.places.append(distance)
            return _WITHIN
        moved = source - self.source_end
        self.places.append(2 * moved if moved >= 0 else -2 * moved - 1)
        return _SOURCE


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _regularity(octets: bytearray) -> int:
    return sum(octets.count(value) ** 2 for value in set(octets))


def _choose_way(added: tuple[bytearray, bytearray], flag: int) -> tuple[bytearray, int]:
    plain, differing = added
    return (plain, 0) if _regularity(plain) >= _regularity(differing) else (differing, flag)


def _make_streams(of: _Search) -> _Streams:
    to = _Streams()
    open_at = of.source_bytes
    at, limit = max(open_at, _WINDOW), of.end - _WINDOW + 1
    while at < limit:
        at, found = of.choose(at, open_at, limit)
        if found.gain <= 0:
            at += 1 + (at - open_at >> _PATIENCE_LOG)
            continue
        before = found.before or of.count_equal_before(at, open_at, found.source)
        to.put_operation(of, open_at, at - before, found.source - before, found.length + before)
        at += found.length
        open_at = at
    to.longs += of.both[open_at:]
    return to


def delta_work_bytes(content_bytes: int) -> int:
    """Return how much memory `encode_delta` needs for this much content."""
    return (4 << _MAX_TABLE_LOG) + 4 * (content_bytes // _WINDOW + 1) + 6 * content_bytes


def delta_bound(content_bytes: int) -> int:
    """Return how long the body of a delta of this much content may be."""
    return 2 * content_bytes + 1024


def encode_delta(content: Buffer, sources: Buffer, work: Buffer, body: memoryview) -> tuple[int, ...]:
    """Fill `body`, of `delta_bound` bytes, with a delta body; return the lengths of its parts."""
    made, base = bytes(view_octets(content)), bytes(view_octets(sources))
    if len(made) + len(base) > MAX_DELTA_BYTES:
        raise NativeError("encode_delta", "BAD_ARGUMENT")
    if memoryview(work).nbytes < delta_work_bytes(len(made)) or len(body) < delta_bound(len(made)):
        raise NativeError("encode_delta", "BUFFER_TOO_SMALL")
    streams = _make_streams(_Search(base, made))
    singles, singles_flag = _choose_way(streams.singles, _SINGLES_DIFFER)
    shorts, shorts_flag = _choose_way(streams.shorts, _SHORTS_DIFFER)
    counts = (len(streams.operations), len(streams.places), len(singles), len(shorts))
    head = bytes([singles_flag | shorts_flag]) + b"".join(map(_varint, counts))
    planes = b"".join(
        bytes(place >> 8 * plane & 255 for place in streams.places)
        for plane in range(_place_bytes(len(made) + len(base)))
    )
    parts = (head + streams.operations, planes, singles, shorts, streams.longs)
    whole = b"".join(parts)
    body[: len(whole)] = whole
    return tuple(map(len, parts))


# -- decoding ----------------------------------------------------------------------------------------------------------


def _refuse(status: str) -> NativeError:
    return NativeError("decode_delta", status)


class _Stream:
    def __init__(self, octets: bytes) -> None:
        self._octets, self._at = octets, 0

    def __len__(self) -> int:
        return len(self._octets) - self._at

    def take(self, count: int) -> bytes:
        if count > len(self):
            raise _refuse("DELTA_ENDS")
        self._at += count
        return self._octets[self._at - count : self._at]

    def take_varint(self) -> int:
        number = 0
        for shift in range(0, 28, 7):
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise _refuse("DELTA_BAD_LENGTH" if len(self) else "DELTA_ENDS")


class _Body(Struct, frozen=True):
    """The streams of a body, as they are read."""

    flags: int
    operations: _Stream
    places: Iterator[int]
    singles: _Stream
    shorts: _Stream
    longs: _Stream

    @classmethod
    def split(cls, octets: bytes, total_bytes: int) -> _Body:
        whole = _Stream(octets)
        flags = whole.take(1)[0]
        if flags > _SINGLES_DIFFER | _SHORTS_DIFFER:
            raise _refuse("DELTA_BAD_OPERATION")
        operations, places, singles, shorts = (whole.take_varint() for _ in range(4))
        return cls(
            flags,
            _Stream(whole.take(operations)),
            _read_places(whole.take(places * _place_bytes(total_bytes)), places),
            _Stream(whole.take(singles)),
            _Stream(whole.take(shorts)),
            _Stream(whole.take(len(whole))),
        )


def _read_places(planes: bytes, count: int) -> Iterator[int]:
    for number in range(count):
        yield sum(planes[at] << 8 * plane for plane, at in enumerate(range(number, len(planes), count)))


class _Maker:
    """Makes content by operations."""

    def __init__(self, sources: bytes, content_bytes: int, body: _Body) -> None:
        self._both, self._source_bytes, self._body = bytearray(sources), len(sources), body
        self._end = len(sources) + content_bytes
        self._source_end = 0
        self._latest = list(_FIRST_RECENTS)
        self.used_bytes = np.zeros(len(sources), np.uint32)
        """How often each byte of the sources is copied, or taken differences from."""

    def make(self) -> bytes:
        """Return the content."""
        body = self._body
        while len(body.operations):
            self._run_operation()
        if next(body.places, None) is not None or len(body.singles) or len(body.shorts):
            raise _refuse("DELTA_ENDS")
        if len(body.longs) != self._end - len(self._both):
            raise _refuse("DELTA_BAD_LENGTH")
        return bytes(self._both[self._source_bytes :]) + body.longs.take(len(body.longs))

    def _run_operation(self) -> None:
        operations = self._body.operations
        token = operations.take(1)[0]
        kind, count = token & (1 << _KIND_BITS) - 1, token >> _KIND_BITS
        if kind > _SOURCE:
            raise _refuse("DELTA_BAD_OPERATION")
        if count == _TOKEN_ADDED:
            count += operations.take_varint()
        length = operations.take_varint()
        if not 0 < length <= self._end - len(self._both) - count:
            raise _refuse("DELTA_BAD_LENGTH")
        source = self._find_source(kind, len(self._both) + count, length)
        distance = len(self._both) + count - source
        _note_distance(self._latest, kind, distance)
        self._add(count, distance)
        if source < self._source_bytes:
            self._source_end = source + length
            self.used_bytes[source : source + length] += 1
        while length:
            part = self._both[source : source + length]
            self._both += part
            source, length = source + len(part), length - len(part)

    def _find_source(self, kind: int, position: int, length: int) -> int:
        """Return the position to copy from, which has been checked."""
        if kind < _RECENT:
            source = position - self._latest[kind]
        else:
            place = next(self._body.places, None)
            if place is None:
                raise _refuse("DELTA_ENDS")
            moved = place >> 1 ^ -(place & 1)
            source = position - place if kind == _WITHIN else (self._source_end + moved) & _U32
        is_source = source < self._source_bytes
        if not 0 <= source < position or kind == (_WITHIN if is_source else _SOURCE):
            raise _refuse("DELTA_BAD_COPY")
        if is_source and length > self._source_bytes - source:
            raise _refuse("DELTA_BAD_COPY")
        return source

    def _add(self, count: int, distance: int) -> None:
        body, position = self._body, len(self._both)
        if not _has_base(position, count, distance, self._source_bytes):
            self._both += body.longs.take(count)
            return
        self.used_bytes[position - distance :][:count] += 1
        flag = _SINGLES_DIFFER if count == 1 else _SHORTS_DIFFER
        for byte in (body.singles if count == 1 else body.shorts).take(count):
            base = self._both[len(self._both) - distance] if body.flags & flag else 0
            self._both.append((byte + base) & 255)


def decode_delta(body: Buffer, sources: Buffer, out: memoryview) -> None:
    """Fill `out` with what a body makes of the sources; raises NativeError for a body that is not valid."""
    base = bytes(view_octets(sources))
    if len(base) + len(out) > MAX_DELTA_BYTES:
        raise NativeError("decode_delta", "BAD_ARGUMENT")
    parts = _Body.split(bytes(view_octets(body)), len(base) + len(out))
    out[:] = _Maker(base, len(out), parts).make()


def count_delta_use(body: Buffer, source_bytes: int, content_bytes: int, block_bytes: int) -> npt.NDArray[np.uint32]:
    """Return how many bytes of each block of the sources a body of `encode_delta` needs."""
    if source_bytes + content_bytes > MAX_DELTA_BYTES:
        raise NativeError("count_delta_use", "BAD_ARGUMENT")
    maker = _Maker(
        bytes(source_bytes), content_bytes, _Body.split(bytes(view_octets(body)), source_bytes + content_bytes)
    )
    maker.make()
    return np.add.reduceat(maker.used_bytes, np.arange(0, source_bytes, block_bytes), dtype=np.uint32)
