# SPDX-License-Identifier: Apache-2.0
"""Files that hold an image in a format of their own, known by what they begin or end with.

As they are they can be neither compared block by block nor booted once they are restored, and each backup stores them again.
"""

from __future__ import annotations

import mmap
from enum import Enum
from typing import Final

from msgspec import Struct

from deltaimg.image.source import ImageSource

HEAD_BYTES: Final = 4096
_FOOTER_BYTES: Final = 512


class ContainerKind(Enum):
    """How to get at the image; the value is the advice."""

    DISK = "back up what is in it: 'qemu-img convert -O raw FILE FLAT'"
    READABLE = "'--format {driver}' backs up the image in it, if it is used so; a guest can write such headers into flat images"
    COMPRESSED = "back up what is in it: '{program} -dc FILE | deltaimg backup - --image NAME'"
    ARCHIVE = "back up the image in it: '{program} | deltaimg backup - --image NAME'"
    BACKUP = "restore what is in it with {program}, and back that up"


class Container(Struct, frozen=True):
    """A format: its name, what every file of it has at `offset`, and what program unpacks it."""

    name: str
    magic: bytes
    kind: ContainerKind = ContainerKind.DISK
    program: str = ""
    offset: int = 0
    driver: str = ""
    """What qemu calls the format, if the image in such a file can be read through it."""

    @property
    def advice(self) -> str:
        """What to do with such a file."""
        return self.kind.value.format(program=self.program, driver=self.driver)


_R, _C, _A, _B = ContainerKind.READABLE, ContainerKind.COMPRESSED, ContainerKind.ARCHIVE, ContainerKind.BACKUP
_AT_THE_BEGINNING: Final = (
    Container("qcow2", b"QFI\xfb", _R, driver="qcow2"),
    Container("QED", b"QED\0"),
    Container("VMDK", b"KDMV", _R, driver="vmdk"),
    Container("VMDK", b"COWD", _R, driver="vmdk"),
    Container("VMDK", b"# Disk DescriptorFile", _R, driver="vmdk"),
    Container("VHDX", b"vhdxfile", _R, driver="vhdx"),
    Container("VHD", b"conectix", _R, driver="vpc"),
    Container("VDI", b"\x7f\x10\xda\xbe", _R, offset=64, driver="vdi"),
    Container("Parallels", b"WithoutFreeSpace"),
    Container("Parallels", b"WithouFreSpacExt"),
    Container("Bochs", b"Bochs Virtual HD Image"),
    Container("cloop", b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
    Container("gzip", b"\x1f\x8b\x08", _C, "gzip"),
    Container("bzip2", b"BZh", _C, "bzip2"),
    Container("xz", b"\xfd7zXZ\0", _C, "xz"),
    Container("zstd", b"\x28\xb5\x2f\xfd", _C, "zstd"),
    Container("LZ4", b"\x04\x22\x4d\x18", _C, "lz4"),
    Container("lzip", b"LZIP\x01", _C, "lzip"),
    Container("lzop", b"\x89LZO\0\r\n\x1a\n", _C, "lzop"),
    Container("tar", b"ustar", _A, "tar -xOf FILE MEMBER", offset=257),
    Container("zip", b"PK\x03\x04", _A, "unzip -p FILE MEMBER"),
    Container("7z", b"7z\xbc\xaf\x27\x1c", _A, "7z x -so FILE MEMBER"),
    Container("rar", b"Rar!\x1a\x07", _A, "unrar p -inul FILE MEMBER"),
    Container("EWF", b"EVF\x09\x0d\x0a\xff\0", _B, "ewfexport"),
    Container("partclone", b"partclone-image", _B, "partclone.restore"),
    Container("Proxmox VMA", b"VMA\0", _B, "vma extract"),
    Container("Windows imaging", b"MSWIM\0\0\0", _B, "wimlib"),
    Container("VCDIFF", b"\xd6\xc3\xc4", _B, "xdelta3 or deltaimg patch"),
    Container("deltaimg", b"\x8bDIMG", _B, "deltaimg patch or restore"),
)
_BZIP2_BLOCKS: Final = (b"1AY&SY", b"\x17rE8P\x90")
"""What follows `BZh` and a digit: the beginning of a block, or of the end."""
_AT_THE_END: Final = (Container("VHD", b"conectix", _R, driver="vpc"), Container("DMG", b"koly\0\0\0\x04"))


def find_container(source: ImageSource) -> Container | None:
    """Return the format that a source is in, by its first bytes, and its last where it is no stream; None for a flat image.

    Raises:
        ImageError: it cannot be read.
    """
    head = source.peek(HEAD_BYTES)
    for each in _AT_THE_BEGINNING:
        if head.startswith(each.magic, each.offset) and (each.name != "bzip2" or head[4:10] in _BZIP2_BLOCKS):
            return each
    if source.is_sequential or source.is_device:
        return None
    footer = _read_footer(source)
    return next((each for each in _AT_THE_END if footer.startswith(each.magic)), None)


def _read_footer(source: ImageSource) -> bytes:
    memory = memoryview(mmap.mmap(-1, HEAD_BYTES))[:_FOOTER_BYTES]
    start = max(0, (source.size_bytes or 0) - _FOOTER_BYTES)
    return bytes(memory[: source.read_into(start, memory)])
