# SPDX-License-Identifier: Apache-2.0
"""A file and the files that it lies over, as options of qemu's block devices: a format and a path for each.

Reads   of each qcow2 file the first 64 KiB: the header and its extensions (qemu's docs/interop/qcow2.rst).
Always  a backing file whose format the file over it does not name is refused, as is one that is no path on this host.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct

from deltaimg.errors import ImageError, UnsupportedImage

_HEAD_BYTES: Final = 1 << 16
_MAX_DEPTH: Final = 200
_MAGIC: Final = b"QFI\xfb"
_BACKING_FORMAT, _DATA_FILE, _END = 0xE2792ACA, 0x44415441, 0
_HAS_DATA_FILE: Final = 4
_KNOWN: Final = ("raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc", "qed")
_PROTOCOL: Final = re.compile(r"[A-Za-z0-9+.-]+:")


class _Header(Struct, frozen=True):
    """What a qcow2 file says of other files; empty where it has none."""

    backing: str
    backing_format: str
    data_file: str


def describe_chain(path: str, shown: str, driver: str, *, is_direct: bool = False) -> dict[str, Any]:
    """Return the options with which qemu opens a file, and all that it lies over.

    Args:
        path: what to open. shown: the image's own path, to which relative names in it refer.

    Raises:
        UnsupportedImage: a backing file that is not to be opened. ImageError: one that cannot be read.
    """
    return _describe(path, os.path.realpath(shown), shown, driver, {"direct": True} if is_direct else {}, 0)


def identify_backing(path: str) -> str:
    """Return 8 digits for the files that a qcow2 file lies over as they are now; empty where it lies over none.

    They are others once one of these was exchanged or written to. Of a block device nothing shows that it was written to.

    Raises:
        UnsupportedImage, ImageError: as `describe_chain`.
    """
    states = [_identify(each) for each in _list_backing(describe_chain(path, path, "qcow2"))]
    return sha256(repr(states).encode()).hexdigest()[:8] if states else ""


def _list_backing(options: dict[str, Any]) -> Iterator[str]:
    """Yield the paths of the files that a file lies over, of its options: data files included."""
    while (below := options.get("backing")) is not None:
        yield from (below[part]["filename"] for part in ("file", "data-file") if part in below)
        options = below


def _identify(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unreadable(path, path, error) from error
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_rdev


def _describe(path: str, place: str, shown: str, driver: str, cache: dict[str, bool], depth: int) -> dict[str, Any]:
    options = {"driver": driver, "file": _describe_file(path, shown, cache)}
    if driver != "qcow2":
        return options
    if depth == _MAX_DEPTH:
        raise UnsupportedImage(shown, f"has more than {_MAX_DEPTH} backing files")
    header = _read_header(path, shown)
    if header.data_file:
        options["data-file"] = _describe_file(_resolve(header.data_file, place, shown), shown, cache)
    if not header.backing:
        return options | {"backing": None}
    if header.backing_format not in _KNOWN:
        said = f"'{header.backing_format}'" if header.backing_format else "not named"
        hint = f"name it, if you know it: qemu-img rebase -u -F FORMAT -b '{header.backing}' '{place}'"
        raise UnsupportedImage(shown, f"the format of backing file {header.backing} is {said} in {place}", hint=hint)
    below = os.path.realpath(_resolve(header.backing, place, shown))
    return options | {"backing": _describe(below, below, shown, header.backing_format, cache, depth + 1)}


def _describe_file(path: str, shown: str, cache: dict[str, bool]) -> dict[str, Any]:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(path, shown, error) from error
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise UnsupportedImage(shown, f"{path} is neither a file nor a block device")
    # A descriptor of this process is found by others under its number.
    found = path.replace("/proc/self/", f"/proc/{os.getpid()}/", 1) if path.startswith("/proc/self/fd/") else path
    options: dict[str, Any] = {
        "driver": "host_device" if stat.S_ISBLK(mode) else "file",
        "filename": os.path.abspath(found),
    }
    return options | ({"cache": cache} if cache else {})


def _resolve(name: str, place: str, shown: str) -> str:
    """Return the path that a name in the header of the file at `place` means; raises UnsupportedImage."""
    if _PROTOCOL.match(name):
        hint = "serve it with qemu-nbd, and back up nbd+unix:///?socket=PATH"
        raise UnsupportedImage(shown, f"{place} lies over {name}, which is no path on this host", hint=hint)
    return os.path.join(os.path.dirname(place), name)


def _read_header(path: str, shown: str) -> _Header:
    """Return what the header of a qcow2 file says of other files; raises ImageError."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError) as error:
        raise _unreadable(path, shown, error) from error
    problem = UnsupportedImage(shown, f"{path} has no valid qcow2 header")
    if len(head) < 104 or not head.startswith(_MAGIC):
        raise problem
    version, start, length = struct.unpack_from(">LQL", head, 4)
    features, header_bytes = (0, 72) if version == 2 else (struct.unpack_from(">Q", head, 72)[0], 0)
    if version == 3:
        header_bytes = struct.unpack_from(">L", head, 100)[0]
    if version not in (2, 3) or not 72 <= header_bytes <= _HEAD_BYTES or start + length > len(head):
        raise problem
    extensions = _read_extensions(head, header_bytes)
    return _Header(
        os.fsdecode(head[start : start + length]) if start else "",
        extensions.get(_BACKING_FORMAT, b"").decode(errors="replace"),
        os.fsdecode(extensions.get(_DATA_FILE, b"")) if features & _HAS_DATA_FILE else "",
    )


def _read_extensions(head: bytes, position: int) -> dict[int, bytes]:
    """Return the header extensions by kind, as far as they lie in what was read."""
    found = {}
    while position + 8 <= len(head):
        kind, length = struct.unpack_from(">LL", head, position)
        position += 8
        if kind == _END or position + length > len(head):
            break
        found[kind] = head[position : position + length]
        position += -(-length // 8) * 8
    return found


def _unreadable(path: str, shown: str, error: OSError | ValueError) -> ImageError:
    reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "it is no possible path"
    return ImageError(shown, f"{path} cannot be read: {reason}")
