# SPDX-License-Identifier: Apache-2.0
"""libzstd's own functions, with contexts and memory that each thread keeps from one record to the next.

The classes of python-zstandard make a new context, its tables and a copy of the history for every delta, and a buffer for
every frame. Its wheel has a second compiled module with all functions of libzstd in it; where that is missing, as it may be
in builds from source, the classes do the same work.

Memory  a thread: some MiB of tables, and the largest frame so far.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import zstandard
from msgspec import Struct

MAX_WINDOW_BYTES = 32 << 20
"""No record and its sources are larger, so no frame of ours needs more; one that asks for more is refused."""
_PART_BYTES = 16
"""More than the header of a block: a frame grows by no more for each part but the first."""
_GOES_ON = "other bytes follow the frame"


class Parameters(Struct, frozen=True):
    """How to compress; 0 leaves a choice to libzstd."""

    level: int
    window_log: int = 0
    table_log: int = 0
    """Of the tables in which matches are looked up: the logarithm to base 2 of their entries."""
    min_match: int = 0


def compress(content: bytes | memoryview, parameters: Parameters, history: memoryview | None = None) -> bytes:
    """Return one frame, with its content size and no checksum, that expands to `content` after `history`."""
    kept = _contexts()
    return (
        _compress_by_classes(content, parameters, history)
        if kept is None
        else kept.compress(content, parameters, history)
    )


def compress_parts(parts: Sequence[memoryview], parameters: Parameters) -> bytes:
    """Return one frame, with its content size and no checksum, of all `parts` in a row; none shares a zstd block with another.

    Args:
        parts: at least one that is not empty.
    """
    filled = [part for part in parts if len(part)]
    kept = _contexts()
    return _compress_parts_by_classes(filled, parameters) if kept is None else kept.compress_parts(filled, parameters)


def read_content_bytes(payload: bytes | memoryview) -> int:
    """Return what a frame says of the length of its content, -1 if it says nothing; raises ValueError if it is no frame."""
    try:
        return int(zstandard.frame_content_size(payload))
    except zstandard.ZstdError as error:
        raise ValueError(f"cannot be expanded: {error}") from error


def expand(payload: bytes | memoryview, content: memoryview, history: memoryview | None = None) -> None:
    """Fill `content` with what the frame `payload` expands to after `history`.

    Raises:
        ValueError: it is not exactly one frame, or one of another length.
    """
    kept = _contexts()
    if read_content_bytes(payload) != len(content):
        raise ValueError(f"does not expand to {len(content)} bytes")
    try:
        filled = (
            _expand_by_classes(payload, content, history) if kept is None else kept.expand(payload, content, history)
        )
    except zstandard.ZstdError as error:
        raise ValueError(f"cannot be expanded: {error}") from error
    if filled != len(content):
        raise ValueError(f"expands to {filled} bytes, not {len(content)}")


class _Contexts(threading.local):
    """One thread's contexts. What is in `compressor` besides its parameters is forgotten with every frame."""

    def __init__(self, module: Any) -> None:
        self._ffi, self._lib = module.ffi, module.lib
        self._compressor = self._ffi.gc(self._lib.ZSTD_createCCtx(), self._lib.ZSTD_freeCCtx)
        self._expander = self._ffi.gc(self._lib.ZSTD_createDCtx(), self._lib.ZSTD_freeDCtx)
        self._parameters: Parameters | None = None
        self._frame = bytearray()

    def compress(self, content: bytes | memoryview, parameters: Parameters, history: memoryview | None) -> bytes:
        ffi, lib = self._ffi, self._lib
        bound = lib.ZSTD_compressBound(len(content))
        if len(self._frame) < bound:
            self._frame = bytearray(bound)
        if parameters != self._parameters:
            self._set(parameters)
        source, room = ffi.from_buffer(content), ffi.from_buffer(self._frame)
        if history is not None:
            # Referred to, not copied, and for the next frame only.
            self._check(lib.ZSTD_CCtx_refPrefix(self._compressor, ffi.from_buffer(history), len(history)))
        length = lib.ZSTD_compress2(self._compressor, room, len(self._frame), source, len(content))
        if lib.ZSTD_isError(length):
            self._parameters = None
        self._check(length)
        return bytes(memoryview(self._frame)[:length])

    def compress_parts(self, parts: Sequence[memoryview], parameters: Parameters) -> bytes:
        ffi, lib = self._ffi, self._lib
        total = sum(map(len, parts))
        room = lib.ZSTD_compressBound(total) + len(parts) * _PART_BYTES
        if len(self._frame) < room:
            self._frame = bytearray(room)
        if parameters != self._parameters:
            self._set(parameters)
        self._parameters = None  # until all has succeeded
        self._check(lib.ZSTD_CCtx_setPledgedSrcSize(self._compressor, total))
        out = ffi.new("ZSTD_outBuffer *", (ffi.from_buffer(self._frame), len(self._frame), 0))
        for number, part in enumerate(parts, 1):
            source = ffi.new("ZSTD_inBuffer *", (ffi.from_buffer(part), len(part), 0))
            how = lib.ZSTD_e_end if number == len(parts) else lib.ZSTD_e_flush
            if self._check(lib.ZSTD_compressStream2(self._compressor, out, source, how)):
                raise zstandard.ZstdError("a frame is longer than it can be")
        self._parameters = parameters
        return bytes(memoryview(self._frame)[: out.pos])

    def expand(self, payload: bytes | memoryview, content: memoryview, history: memoryview | None) -> int:
        ffi, lib = self._ffi, self._lib
        source, room = ffi.from_buffer(payload), ffi.from_buffer(content, require_writable=True)
        # ZSTD_decompressDCtx would continue with further frames, which may be empty.
        if self._check(lib.ZSTD_findFrameCompressedSize(source, len(payload))) != len(payload):
            raise zstandard.ZstdError(_GOES_ON)
        if history is not None:
            self._check(lib.ZSTD_DCtx_refPrefix(self._expander, ffi.from_buffer(history), len(history)))
        # Given all of the frame and room for all of its content, libzstd needs no window of its own, however large.
        filled = lib.ZSTD_decompressDCtx(self._expander, room, len(content), source, len(payload))
        if lib.ZSTD_isError(filled):
            lib.ZSTD_DCtx_reset(self._expander, lib.ZSTD_reset_session_and_parameters)
        return self._check(filled)

    def _set(self, parameters: Parameters) -> None:
        lib = self._lib
        self._check(lib.ZSTD_CCtx_reset(self._compressor, lib.ZSTD_reset_session_and_parameters))
        chosen = (
            (lib.ZSTD_c_compressionLevel, parameters.level),
            (lib.ZSTD_c_windowLog, parameters.window_log),
            (lib.ZSTD_c_hashLog, parameters.table_log),
            (lib.ZSTD_c_chainLog, parameters.table_log),
            (lib.ZSTD_c_minMatch, parameters.min_match),
        )
        for which, value in chosen:
            self._check(lib.ZSTD_CCtx_setParameter(self._compressor, which, value))
        self._parameters = parameters

    def _check(self, result: int) -> int:
        """Return a result that is no error."""
        if self._lib.ZSTD_isError(result):
            raise zstandard.ZstdError(self._ffi.string(self._lib.ZSTD_getErrorName(result)).decode())
        return result


@cache
def _contexts() -> _Contexts | None:
    """Return the contexts, one set for each thread; None where the module is missing or has other functions."""
    try:
        return _Contexts(import_module("zstandard._cffi"))
    except (ImportError, AttributeError):
        return None


def _compress_by_classes(content: bytes | memoryview, parameters: Parameters, history: memoryview | None) -> bytes:
    """The same by python-zstandard's classes."""
    source_bytes = len(content) + (len(history) if history else 0)
    compressor = _make_compressor(parameters, source_bytes, history)
    encoded: bytes = compressor.compress(content)
    return encoded


def _compress_parts_by_classes(parts: Sequence[memoryview], parameters: Parameters) -> bytes:
    """The same by python-zstandard's classes."""
    total = sum(map(len, parts))
    compressor = _make_compressor(parameters, total).compressobj(size=total)
    frame = bytearray()
    for number, part in enumerate(parts, 1):
        frame += compressor.compress(part)
        is_last = number == len(parts)
        frame += compressor.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH if is_last else zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return bytes(frame)


def _make_compressor(
    parameters: Parameters, source_bytes: int, history: memoryview | None = None
) -> zstandard.ZstdCompressor:
    values = {
        "window_log": parameters.window_log,
        "hash_log": parameters.table_log,
        "chain_log": parameters.table_log,
        "min_match": parameters.min_match,
    }
    chosen = zstandard.ZstdCompressionParameters.from_level(
        parameters.level,
        source_size=source_bytes,
        write_checksum=False,
        write_dict_id=False,
        **{name: value for name, value in values.items() if value},
    )
    return zstandard.ZstdCompressor(compression_params=chosen, dict_data=_as_history(history))


def _expand_by_classes(payload: bytes | memoryview, content: memoryview, history: memoryview | None) -> int:
    """The same by python-zstandard's classes."""
    expander = zstandard.ZstdDecompressor(
        dict_data=_as_history(history), max_window_size=MAX_WINDOW_BYTES
    ).decompressobj()
    expanded = expander.decompress(payload)
    if expander.unused_data:
        raise zstandard.ZstdError(_GOES_ON)
    if len(expanded) == len(content):
        content[:] = expanded
    return len(expanded)


def _as_history(history: memoryview | None) -> zstandard.ZstdCompressionDict | None:
    if history is None:
        return None
    return zstandard.ZstdCompressionDict(history, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
