# SPDX-License-Identifier: Apache-2.0
"""Reed-Solomon parity over shards, by Intel's ISA-L, which comes in the `pyeclib` wheel.

Shard j of the parity of a stripe is the sum over its data shards c of c times 1 / ((columns + j) xor c), byte by byte, in the
field of 256 elements with the polynomial 0x11d: a Cauchy matrix, of which any square part can be inverted, so that any
`columns` shards of a stripe give all others.

pyeclib's own calls copy every byte twice and put a header before each shard; the library in its wheel is called past them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from ctypes.util import find_library
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

from cffi import FFI

from deltaimg.errors import ParityUnusable, describe_installation

_PACKAGE: Final = "pyeclib>=1.8"
_TABLE_BYTES: Final = 32
"""Of lookup table for each element of a matrix."""
_PIECE_BYTES: Final = 256 << 10
"""What is worked on at once: data and the same stretch of every plane stay in the cache of a core."""
_FUNCTIONS: Final = """
void ec_init_tables(int columns, int rows, unsigned char *matrix, unsigned char *tables);
void ec_encode_data(int length, int columns, int rows, unsigned char *tables, unsigned char **data, unsigned char **coding);
void ec_encode_data_update(int length, int columns, int rows, int column, unsigned char *tables, unsigned char *data,
                           unsigned char **coding);
int gf_invert_matrix(unsigned char *matrix, unsigned char *inverse, int rows);
unsigned char gf_inv(unsigned char element);
"""


class _Library:
    """ISA-L's functions."""

    def __init__(self, path: str) -> None:
        self.ffi = FFI()
        self.ffi.cdef(_FUNCTIONS)
        self.functions: Any = self.ffi.dlopen(path)

    def bytes_at(self, buffer: Any, *, is_written: bool = False) -> Any:
        """Return where a buffer begins, and keep the buffer."""
        return self.ffi.from_buffer("unsigned char[]", buffer, require_writable=is_written)

    def make_tables(self, columns: int, rows: int, matrix: bytes) -> Any:
        tables = self.ffi.new("unsigned char[]", _TABLE_BYTES * columns * rows)
        self.functions.ec_init_tables(columns, rows, self.bytes_at(matrix), tables)
        return tables

    def combine(self, tables: Any, data: Sequence[Any], coding: Sequence[bytearray]) -> None:
        """Fill each of `coding` with what its row of the matrix makes of `data`."""
        sources = [self.bytes_at(each) for each in data]
        targets = [self.bytes_at(each, is_written=True) for each in coding]
        self.functions.ec_encode_data(
            len(coding[0]),
            len(data),
            len(coding),
            tables,
            self.ffi.new("unsigned char *[]", sources),
            self.ffi.new("unsigned char *[]", targets),
        )


@cache
def load_reed_solomon() -> _Library:
    """Return ISA-L, found to work here.

    Raises:
        ParityUnusable: it is not installed, or does not compute what it should.
    """
    path = _find_isal()
    if path is None:
        raise ParityUnusable("parity needs pyeclib, which is not installed", hint=describe_installation(_PACKAGE))
    try:
        library = _Library(path)
        works = _computes_right(library)
    except (OSError, AttributeError) as error:
        raise ParityUnusable(
            f"{path} cannot be used: {error}", hint=describe_installation(_PACKAGE, is_broken=True)
        ) from error
    if not works:
        raise ParityUnusable(
            f"{path} does not compute what it should", hint=describe_installation(_PACKAGE, is_broken=True)
        )
    return library


def _find_isal() -> str | None:
    """Return where ISA-L is: in pyeclib's wheel, or, where pyeclib was built from source, in the system."""
    spec = find_spec("pyeclib")
    if spec is None or spec.origin is None:
        return None
    folder = os.path.join(os.path.dirname(os.path.dirname(spec.origin)), "pyeclib.libs")
    bundled = [name for name in os.listdir(folder) if name.startswith("libisal")] if os.path.isdir(folder) else []
    return os.path.join(folder, bundled[0]) if bundled else find_library("isal")


def _computes_right(library: _Library) -> bool:
    """Return whether the parity of two bytes over two columns is what was worked out by hand."""
    made = [bytearray(64), bytearray(64)]
    tables = library.make_tables(2, 2, _parity_rows(library, 2, 2))
    library.combine(tables, [b"\x53" * 64, b"\xca" * 64], made)
    # 1/2, 1/3 and 1/3, 1/2 are 0x8e and 0xf4
    return [each[:1] for each in made] == [
        bytes([_multiply(0x53, 0x8E) ^ _multiply(0xCA, 0xF4)]),
        bytes([_multiply(0x53, 0xF4) ^ _multiply(0xCA, 0x8E)]),
    ]


def _multiply(left: int, right: int) -> int:
    product = 0
    while right:
        if right & 1:
            product ^= left
        left, right = (left << 1) ^ (0x11D if left & 0x80 else 0), right >> 1
    return product


def _parity_rows(library: _Library, columns: int, parity_columns: int) -> bytes:
    """Return the matrix that makes parity of data, row after row."""
    inverse = library.functions.gf_inv
    return bytes(inverse((columns + row) ^ column) for row in range(parity_columns) for column in range(columns))


class ReedSolomon:
    """The code of stripes of `columns` data shards and `parity_columns` parity shards; 256 together at most.

    Shards of a stripe are numbered: data from 0, parity from `columns`.
    """

    def __init__(self, columns: int, parity_columns: int) -> None:
        self._library = load_reed_solomon()
        self._columns, self._parity_columns = columns, parity_columns
        self._rows = _parity_rows(self._library, columns, parity_columns)
        self._tables = self._library.make_tables(columns, parity_columns, self._rows)
        self._inverses: dict[tuple[tuple[int, ...], tuple[int, ...]], Any] = {}

    def accumulate(self, column: int, data: memoryview, planes: Sequence[memoryview]) -> None:
        """Add what `data` contributes as shard `column` to the parity in `planes`, which began as zeroes.

        Args:
            planes: writable, one for each parity shard, each at least as long as `data`.
        """
        library = self._library
        source = library.bytes_at(data)
        targets = [library.bytes_at(plane, is_written=True) for plane in planes]
        for start in range(0, len(data), _PIECE_BYTES):
            library.functions.ec_encode_data_update(
                min(_PIECE_BYTES, len(data) - start),
                self._columns,
                self._parity_columns,
                column,
                self._tables,
                source + start,
                library.ffi.new("unsigned char *[]", [target + start for target in targets]),
            )

    def recover(self, wanted: Sequence[int], shards: Mapping[int, memoryview | bytes]) -> list[bytearray]:
        """Return the data shards `wanted` of a stripe.

        Args:
            shards: by number, `columns` of them, all of one length, none of them wanted.
        """
        numbers = tuple(sorted(shards))
        if len(numbers) != self._columns:
            raise ValueError(f"{len(numbers)} shards, where it takes {self._columns}")
        key = (numbers, tuple(wanted))
        if key not in self._inverses:
            self._inverses = {key: self._invert(numbers, wanted)}
        made = [bytearray(len(shards[numbers[0]])) for _ in wanted]
        self._library.combine(self._inverses[key], [shards[number] for number in numbers], made)
        return made

    def _invert(self, numbers: Sequence[int], wanted: Sequence[int]) -> Any:
        """Return the tables that make the shards `wanted` of the shards `numbers`."""
        columns = self._columns
        matrix = bytearray(columns * columns)
        for place, number in enumerate(numbers):
            row = place * columns
            if number < columns:
                matrix[row + number] = 1
            else:
                matrix[row : row + columns] = self._rows[(number - columns) * columns :][:columns]
        inverse = bytearray(columns * columns)
        status = self._library.functions.gf_invert_matrix(
            self._library.bytes_at(matrix, is_written=True), self._library.bytes_at(inverse, is_written=True), columns
        )
        if status:
            raise ValueError("a part of a Cauchy matrix that cannot be inverted")
        rows = b"".join(bytes(inverse[number * columns : (number + 1) * columns]) for number in wanted)
        return self._library.make_tables(columns, len(wanted), rows)
