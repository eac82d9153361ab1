# SPDX-License-Identifier: Apache-2.0
"""Hostile signatures and deltas take no more memory than good ones, whatever they declare or are made of.

Peaks are the process's own, Python and numpy included, which are some 50 MiB before anything is read.
"""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deltaimg.format.delta import OP, ZERO, DeltaObject, build_delta
from deltaimg.format.framing import Kind, build_header
from deltaimg.format.rdiff import DELTA_END, DELTA_HEAD
from deltaimg.format.sums import SumsObject, build_sums
from deltaimg.format.vcdiff import VCDIFF_HEAD, Window, build_number, build_window
from deltaimg.model import MIB, VcdiffSections
from tests.support.program import environment

KEY = bytes(32)
GIB = 1 << 30
_TELL_PEAK = """
import os, re, sys
leave = os._exit
def leave_with_peak(code):
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    os.write(2, b"peak " + peak.encode())
    leave(code)
os._exit = leave_with_peak
"""
"""ru_maxrss would not do: a child's begins at the size of its parent. The program ends at once, without Python's own end."""
_COMMAND = """
from deltaimg.cli import main
main()
"""
_MANY_CALLS = """
from deltaimg.api.files import delta_file, patch_file
from deltaimg.errors import DeltaimgError
from deltaimg.options.files import DeltaOptions, PatchOptions
calls = {"patch": (patch_file, PatchOptions), "delta": (delta_file, DeltaOptions)}
for line in sys.argv[1:]:
    name, format_name, first, second = line.split(":")
    try:
        call, options = calls[name]
        call(first, second, "-", options(format_name))
    except DeltaimgError as error:
        print(error.exit_code, file=sys.stderr)
os._exit(0)
"""


def run_measured(
    code: int, *arguments: object, program: str = _COMMAND, before: tuple[str, ...] = ()
) -> tuple[str, int]:
    """Run deltaimg, which must end with `code` and write to nowhere; return what it said and the peak of its memory."""
    done = subprocess.run(
        [*before, sys.executable, "-c", _TELL_PEAK + program, *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment(None), check=False, timeout=120,
    )  # fmt: skip
    said, _, peak = done.stderr.rpartition("peak ")
    assert done.returncode == code, said
    assert "internal error" not in said
    return said, int(peak) * 1024


# -- lengths that are declared -----------------------------------------------------------------------------------------


def window_with(
    *, target: int = 5, segment: int = 0, sections: tuple[int, int, int] = (0, 0, 0), rest: int = 20
) -> bytes:
    """Return the beginning of a VCDIFF file whose only window declares these lengths, and has next to nothing."""
    head = bytes([1]) + build_number(segment) + build_number(0) if segment else bytes([0])
    return (
        VCDIFF_HEAD
        + head
        + build_number(rest)
        + build_number(target)
        + b"\0"
        + b"".join(map(build_number, sections))
        + b"x"
    )


def own_head(kind: Kind, length: int) -> bytes:
    return build_header(kind, length, bytes(16))


DECLARED: dict[str, tuple[str, str, Callable[[int], bytes], int]] = {
    "a literal of rdiff": ("patch", "rdiff", lambda n: DELTA_HEAD + b"\x44" + n.to_bytes(8, "big") + b"x", 41),
    "a copy of rdiff": ("patch", "rdiff", lambda n: DELTA_HEAD + b"\x54" + bytes(8) + n.to_bytes(8, "big") + b"\0", 16),
    "what a window makes": ("patch", "vcdiff", lambda n: window_with(target=n), 42),
    "a window's data": ("patch", "vcdiff", lambda n: window_with(sections=(n, 0, 0)), 42),
    "a window": ("patch", "vcdiff", lambda n: window_with(rest=n), 42),
    "a window's segment": ("patch", "vcdiff", lambda n: window_with(segment=n), 42),
    "an application's header": ("patch", "vcdiff", lambda n: VCDIFF_HEAD[:-1] + b"\4" + build_number(n) + b"x", 42),
    "an object of a delta": ("patch", "deltaimg", lambda n: own_head(Kind.DELTA, n), 42),
    "an object of sums": ("delta", "deltaimg", lambda n: own_head(Kind.SUMS, n), 42),
}


@pytest.mark.parametrize("length", [2**40, 2**62], ids=("2^40", "2^62"))
def test_memory_is_not_taken_because_it_is_declared(tmp_path: Path, length: int) -> None:
    old, calls = tmp_path / "old", []
    old.write_bytes(b"old" * 3000)
    for name, (command, format_name, build, _) in DECLARED.items():
        hostile = tmp_path / name
        hostile.write_bytes(build(length))
        files = (old, hostile) if command == "patch" else (hostile, old)
        calls.append(f"{command}:{format_name}:{files[0]}:{files[1]}")
    said, peak = run_measured(0, *calls, program=_MANY_CALLS)
    found = dict(zip(DECLARED, map(int, said.split()), strict=True))
    assert found == {name: code for name, (*_, code) in DECLARED.items()}
    assert peak < 100 * MIB


# -- files that are what they say, and much more than they are long ----------------------------------------------------


def sums_of_an_empty_image() -> Iterable[bytes]:
    """The sums of nearly 4 TiB of zeros in blocks of 1 KiB, but for a block here and there."""
    for part in range(2000):
        yield build_sums(
            SumsObject(
                KEY, 1024, part << 20, np.array([True]), np.array([part], np.uint64), np.zeros((1, 8), np.uint8), None
            )
        )
    nothing = np.zeros(0, np.uint64)
    yield build_sums(
        SumsObject(KEY, 1024, 0, np.zeros(0, np.bool_), nothing, np.zeros((0, 8), np.uint8), (2**32 - 2) * 1024)
    )


def delta_of_single_bytes() -> Iterable[bytes]:
    """A delta of half a million operations that make one zero each."""
    ops = np.zeros(1 << 19, OP)
    ops["kind"], ops["length"] = ZERO, 1
    yield build_delta(DeltaObject(KEY, 4096, 64 * GIB, 0, ops, 0, b"", bytes(16)))


def literals_of_single_bytes() -> Iterable[bytes]:
    yield DELTA_HEAD + b"\1x" * 250_000 + DELTA_END


def windows_of_one_byte_repeated() -> Iterable[bytes]:
    """Windows of a dozen bytes that make 64 MiB each."""
    size = 64 * MIB
    window = build_window(Window(size, VcdiffSections(b"x", b"\0" + build_number(size), b"")))
    yield VCDIFF_HEAD + window * 4


def windows_over_a_vast_segment() -> Iterable[bytes]:
    """Windows that copy four bytes of 16 GiB."""
    window = build_window(Window(4, VcdiffSections(b"", bytes([20]), build_number(0)), 0, 16 * GIB))
    yield VCDIFF_HEAD + window * 8


def windows_that_copy_from_everywhere() -> Iterable[bytes]:
    """Windows that copy four bytes of each of 24,000 pages."""
    pages = 24_000
    addresses = b"".join(build_number(page * 4096) for page in range(pages))
    yield VCDIFF_HEAD + build_window(Window(4 * pages, VcdiffSections(b"", bytes([20]) * pages, addresses), 0, GIB)) * 4


def windows_that_expand_to_much() -> Iterable[bytes]:
    """Windows of some kilobytes, whose compressed sections expand to 40 MiB each: all but a window's usual 128."""
    yield VCDIFF_HEAD[:4] + b"\1\2"
    packers = [lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_NONE) for _ in range(3)]
    sections = [build_number(40 * MIB) + each.compress(bytes(40 * MIB)) + each.flush() for each in packers]
    body = build_number(4) + b"\7" + b"".join(build_number(len(each)) for each in sections) + b"".join(sections)
    yield b"\0" + build_number(len(body)) + body


@dataclass(frozen=True, slots=True)
class Hostile:
    arguments: tuple[str, ...]
    build: Callable[[], Iterable[bytes]]
    code: int
    most_bytes: int


HOSTILE = {
    "a signature of a vast image": Hostile(("delta", "deltaimg"), sums_of_an_empty_image, 0, 120 * MIB),
    "a delta of many operations": Hostile(("patch", "deltaimg"), delta_of_single_bytes, 16, 100 * MIB),
    "many literals": Hostile(("patch", "rdiff"), literals_of_single_bytes, 0, 100 * MIB),
    "windows that make as much as they may": Hostile(("patch", "vcdiff"), windows_of_one_byte_repeated, 0, 300 * MIB),
    "windows that expand to as much as they may": Hostile(
        ("patch", "vcdiff"), windows_that_expand_to_much, 42, 300 * MIB
    ),
    "windows over as much as they may": Hostile(("patch", "vcdiff"), windows_over_a_vast_segment, 0, 200 * MIB),
    "windows that touch as much as they may": Hostile(
        ("patch", "vcdiff"), windows_that_copy_from_everywhere, 0, 200 * MIB
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_memory_is_bounded_where_little_says_much(tmp_path: Path, case: str) -> None:
    chosen = HOSTILE[case]
    old, new, hostile = tmp_path / "old", tmp_path / "new", tmp_path / "hostile"
    with open(old, "wb") as file:
        file.write(b"old")
        file.truncate(64 * GIB)
    new.write_bytes(os.urandom(5000))
    with open(hostile, "wb") as file:
        file.writelines(chosen.build())
    command, format_name = chosen.arguments
    files = (old, hostile) if command == "patch" else (hostile, new)
    _, peak = run_measured(chosen.code, command, "--format", format_name, *files, "-")
    assert peak < chosen.most_bytes, f"{peak / MIB:.0f} MiB"


def test_what_is_no_signature_is_not_read_to_its_end(tmp_path: Path) -> None:
    new, vast = tmp_path / "new", tmp_path / "vast"
    new.write_bytes(b"new")
    with open(vast, "wb") as file:
        file.truncate(64 * GIB)
    said, peak = run_measured(42, "delta", "--format", "rdiff", vast, new, "-")
    assert "is no rdiff signature" in said
    assert peak < 100 * MIB


def test_memory_that_cannot_be_had_is_no_defect(tmp_path: Path) -> None:
    new, hostile = tmp_path / "new", tmp_path / "hostile"
    new.write_bytes(b"new")
    hostile.write_bytes(b"".join(sums_of_an_empty_image()))
    limited = ("sh", "-c", 'ulimit -v 4000000 && exec "$@"', "sh")
    said, _ = run_measured(73, "delta", hostile, new, "-", before=limited)
    assert "there is not enough memory" in said
