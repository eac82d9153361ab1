# SPDX-License-Identifier: Apache-2.0
"""What two volumes of a thin pool do not share, as `thin_delta` prints it.

    <superblock uuid="" time="6" transaction="9" data_block_size="128" nr_data_blocks="0">
      <diff left="5" right="6">
        <same begin="0" length="500"/>
        <different begin="500" length="1"/>
        <left_only begin="900" length="30"/>
        <right_only begin="950" length="1"/>
      </diff>
    </superblock>

Numbers are in blocks of the pool, `data_block_size` in sectors. What neither volume has is not listed: it reads as zeros, or
as an external origin has it, in both. Two volumes that nothing writes to have the same content where they share a block: the
pool writes to no block that two volumes have, and frees none that one has.

Versions before 0.7 leave out changes at the end of a volume, and those from 1.0.0 to 1.0.5 changes within a run of blocks
(CHANGES of thin-provisioning-tools, 0.6.2, 0.7.0 and 1.0.6). No audit would be sure to find that, so they are not used.

Memory  the output, up to 256 MiB of it, and 16 bytes an element.
Source  thin_delta(8); thin-provisioning/thin_delta.cc of version 0.9.0, src/thin/delta_visitor.rs of 1.1.0.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from xml.parsers import expat

import numpy as np

from deltaimg.errors import FreezeFailed
from deltaimg.freeze.lvm_commands import find_program, run_command
from deltaimg.image.extents import Bounds, merge_bounds
from deltaimg.model import MIB

PROGRAM = "thin_delta"
MAX_OUTPUT_BYTES = 256 * MIB
_SECTOR_BYTES = 512
_MOST_BLOCKS = 1 << 44
_SAME, _CHANGED = "same", ("different", "left_only", "right_only")
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?")
_FIRST_RIGHT, _WRONG_AGAIN, _RIGHT_AGAIN = (0, 7, 0), (1, 0, 0), (1, 0, 6)
_HINT = "install a newer one; until then everything is read"


def check_version(subject: str) -> None:
    """Raise FreezeFailed unless there is a `thin_delta` that leaves nothing out."""
    said = run_command(subject, PROGRAM, "-V").decode(errors="replace").strip()
    found = _VERSION.search(said)
    if found is None:
        raise FreezeFailed(subject, f"{PROGRAM} does not say of which version it is", hint=_HINT)
    version = (int(found[1]), int(found[2]), int(found[3] or 0))
    if version < _FIRST_RIGHT or _WRONG_AGAIN <= version < _RIGHT_AGAIN:
        raise FreezeFailed(subject, f"{PROGRAM} {found[0]} leaves changes out", hint=_HINT)


def compare_volumes(subject: str, metadata: str, left: int, right: int, chunk_bytes: int) -> Bounds:
    """Return where two volumes of a pool do not share their content, in bytes.

    Args:
        subject: the image, for errors. metadata: the device of the pool's metadata, which has a metadata snapshot.
        left, right: numbers of the volumes in the pool. chunk_bytes: the size of the pool's blocks.

    Raises:
        FreezeFailed: it cannot be run, or prints what makes no sense.
    """
    options = ("--metadata-snap", "--thin1", str(left), "--thin2", str(right), metadata)
    output = _read_output(subject, (find_program(subject, PROGRAM), *options))
    try:
        return parse_delta(output, left, right, chunk_bytes)
    except (ValueError, expat.ExpatError) as error:
        raise FreezeFailed(subject, f"{PROGRAM} printed what is no list of differences: {error}") from error


def parse_delta(output: bytes, left: int, right: int, chunk_bytes: int) -> Bounds:
    """Return what output of `thin_delta` lists as changed, in bytes; raises ValueError and ExpatError.

    Args: as of `compare_volumes`.
    """
    reader = _Reader(left, right, chunk_bytes // _SECTOR_BYTES)
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.StartDoctypeDeclHandler = reader.take, _refuse_doctype
    parser.Parse(output, True)
    if not reader.has_diff:
        raise ValueError("it compares nothing")
    return merge_bounds(np.array(reader.changed, np.int64).reshape(-1, 2) * chunk_bytes)


class _Reader:
    """Takes the elements in turn; raises ValueError for what makes no sense."""

    def __init__(self, left: int, right: int, block_sectors: int) -> None:
        self._header = [
            ("superblock", {"data_block_size": block_sectors}),
            ("diff", {"left": left, "right": right}),
        ]
        self.changed: list[tuple[int, int]] = []
        self._end = 0

    @property
    def has_diff(self) -> bool:
        return not self._header

    def take(self, name: str, attributes: dict[str, str]) -> None:
        if self._header:
            wanted, values = self._header.pop(0)
            if name != wanted or any(_read_number(attributes, key) != value for key, value in values.items()):
                raise ValueError(f"it is of other volumes, or another pool: {name} {attributes}")
            return
        begin, length = _read_number(attributes, "begin"), _read_number(attributes, "length")
        if begin < self._end:
            raise ValueError(f"block {begin} is listed twice, or out of order")
        self._end = begin + length
        if name in _CHANGED:
            self.changed.append((begin, self._end))
        elif name != _SAME:
            raise ValueError(f"unknown element {name}")


def _read_number(attributes: dict[str, str], name: str) -> int:
    text = attributes.get(name, "")
    if not text.isascii() or not text.isdecimal() or len(text) > 14 or int(text) > _MOST_BLOCKS:
        raise ValueError(f"{name} is '{text[:40]}'")
    return int(text)


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it has a document type")


def _read_output(subject: str, command: tuple[str, ...]) -> bytes:
    """Return what a command prints; it is killed where that is too much, and may be: it only reads."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        except OSError as error:
            raise FreezeFailed(subject, f"{PROGRAM} cannot be started") from error
        with process:
            assert process.stdout is not None
            try:
                output = process.stdout.read(MAX_OUTPUT_BYTES + 1)
            except BaseException:
                process.kill()
                raise
            if len(output) > MAX_OUTPUT_BYTES:
                process.kill()
                raise FreezeFailed(subject, f"{PROGRAM} printed more than {MAX_OUTPUT_BYTES >> 20} MiB")
        if process.returncode == 0:
            return output
        errors.seek(0)
        said = errors.read(1000).decode(errors="replace").strip().splitlines()
        raise FreezeFailed(subject, f"{PROGRAM}: {said[0] if said else f'exit status {process.returncode}'}")
