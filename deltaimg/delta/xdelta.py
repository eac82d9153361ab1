# SPDX-License-Identifier: Apache-2.0
"""Deltas as VCDIFF (RFC 3284) by xdelta3, then zstd: it finds short matches that zstd's own history search passes over.

xdelta3 comes in the compiled module of the `pyxdelta` wheel, whose C functions are called past its Python ones. A header file
is not installed with it, so that the width of its sizes is found out by a round trip, with guards around what it writes.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any, ClassVar, Final

import zstandard
from cffi import FFI
from msgspec import Struct

from deltaimg.codec.libzstd import expand, read_content_bytes
from deltaimg.delta.interface import DeltaCodec
from deltaimg.errors import XdeltaUnusable, describe_installation
from deltaimg.format.limits import MAX_RECORD_BYTES

_LEVEL_SHIFT: Final = 20
"""Of the compression level in the flags; without one xdelta3 takes a tenth of its speed for little."""
_MAX_LEVEL: Final = 9
_ZSTD_LEVEL: Final = 3
_PACKAGE: Final = "pyxdelta>=0.2.3,<0.3"
_GUARD: Final = b"\xa5" * 8
_SIZES: Final = {8: "uint64_t", 4: "uint32_t"}
_HEADROOM_BYTES: Final = 64 << 10
"""A VCDIFF file of content that resembles nothing is longer than the content by no more than this and an eighth."""
_FUNCTION = """
int {name}(const uint8_t *input, {size} input_bytes, const uint8_t *source, {size} source_bytes,
           uint8_t *output, void *output_bytes, {size} room, int flags);
"""


class _Library(Struct, frozen=True):
    """xdelta3's functions, and the width in bytes of the sizes that they take."""

    ffi: FFI
    functions: Any
    width: int

    def encode(self, content: memoryview, sources: memoryview, room: int, level: int) -> bytearray:
        return self._call("xd3_encode_memory", content, sources, bytearray(room), level << _LEVEL_SHIFT)

    def decode(self, delta: memoryview, sources: memoryview, room: int) -> bytearray:
        return self._call("xd3_decode_memory", delta, sources, bytearray(room), 0)

    def _call(self, name: str, content: memoryview, sources: memoryview, output: bytearray, flags: int) -> bytearray:
        """Return what the function made of it; raises ValueError if it reports an error or writes where it must not."""
        guarded = bytearray(_GUARD * 3)
        room = len(output)
        with self.ffi.from_buffer(guarded, require_writable=True) as cell:
            status = getattr(self.functions, name)(
                self.ffi.from_buffer("uint8_t[]", content),
                len(content),
                self.ffi.from_buffer("uint8_t[]", sources),
                len(sources),
                self.ffi.from_buffer("uint8_t[]", output),
                cell + len(_GUARD),
                room,
                flags,
            )
        first, last = len(_GUARD), len(_GUARD) + self.width
        if guarded[:first] != _GUARD or guarded[last:] != (_GUARD * 3)[last:]:
            raise ValueError("xdelta3 writes sizes of another width")
        length = int.from_bytes(guarded[first:last], "little")
        if status:
            raise ValueError(f"is no VCDIFF that xdelta3 reads (its error {status})")
        if length > room:
            raise ValueError(f"xdelta3 claims {length} bytes where there is room for {room}")
        # What is cut off here is never touched, and so costs no memory.
        del output[length:]
        return output


@cache
def load_xdelta() -> _Library:
    """Return xdelta3, found to work here.

    Raises:
        XdeltaUnusable: there is no such module, or it is a build that does not give content back.
    """
    spec = find_spec("pyxdelta")
    if spec is None or spec.origin is None:
        raise XdeltaUnusable("xdelta3 is not installed", hint=f"{describe_installation(_PACKAGE)}; or use --delta zstd")
    for width, size in _SIZES.items():
        ffi = FFI()
        for name in ("xd3_encode_memory", "xd3_decode_memory"):
            ffi.cdef(_FUNCTION.format(name=name, size=size))
        try:
            library = _Library(ffi, ffi.dlopen(spec.origin), width)
            if _gives_back(library):
                return library
        except (OSError, AttributeError) as error:
            raise XdeltaUnusable(
                f"xdelta3 in {spec.origin} cannot be used: {error}",
                hint=describe_installation(_PACKAGE, is_broken=True),
            ) from error
    raise XdeltaUnusable(
        f"xdelta3 in {spec.origin} does not reproduce what it encodes",
        hint=f"{describe_installation(_PACKAGE, is_broken=True)}; or use --delta zstd",
    )


def _gives_back(library: _Library) -> bool:
    """Return whether content that shares half with its source becomes a shorter VCDIFF file, from which it is decoded again."""
    source = b"".join(number.to_bytes(4, "little") * 2 for number in range(1, 1025))
    content = source[2048:6144] + source[::-1][:4096]
    try:
        delta = library.encode(memoryview(content), memoryview(source), 2 * len(content), 1)
        is_delta = delta[:3] == b"\xd6\xc3\xc4" and len(delta) < len(content)
        return is_delta and library.decode(memoryview(delta), memoryview(source), len(content)) == content
    except ValueError:
        return False


class XdeltaDelta(DeltaCodec):
    """Compresses at a level that follows from the literals' level; decodes what any level made."""

    encoding_id: ClassVar[int] = 3
    name: ClassVar[str] = "vcdiff"

    def __init__(self, level: int = 3) -> None:
        self.level = min(max(level, 1), _MAX_LEVEL)

    def encode(self, content: memoryview, sources: memoryview) -> bytes:
        """Return `content` encoded against `sources`; raises XdeltaUnusable."""
        delta = load_xdelta().encode(content, sources, longest_delta(len(content)), self.level)
        encoded: bytes = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=False).compress(delta)
        return encoded

    def decode(
        self, payload: memoryview, sources: memoryview, raw_bytes: int, scratch: memoryview | None = None
    ) -> memoryview:
        """Return exactly `raw_bytes` bytes; raises ValueError, or XdeltaUnusable. xdelta3 itself holds 64 MiB at most."""
        library = load_xdelta()
        longest = read_content_bytes(payload)
        if not 0 <= longest <= longest_delta(min(raw_bytes, MAX_RECORD_BYTES)):
            raise ValueError(f"holds {longest} bytes of VCDIFF for {raw_bytes} bytes of content")
        delta = bytearray(longest)
        expand(payload, memoryview(delta))
        content = library.decode(memoryview(delta), sources, raw_bytes)
        if len(content) != raw_bytes:
            raise ValueError(f"expands to {len(content)} bytes, not {raw_bytes}")
        if scratch is None:
            return memoryview(content)
        scratch[:raw_bytes] = content
        return scratch[:raw_bytes]


def longest_delta(raw_bytes: int) -> int:
    """Return the room that the VCDIFF of any such content needs, in bytes."""
    return raw_bytes + raw_bytes // 8 + _HEADROOM_BYTES
