# SPDX-License-Identifier: Apache-2.0
"""Which files are taken for an image in a format of its own, as real programs write them; and that flat images are not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from deltaimg.image.containers import find_container
from deltaimg.image.open_source import open_source
from deltaimg.image.stream import StreamSource
from deltaimg.model import MIB
from tests.support.components import requires_program, run_or_skip
from tests.support.devices import make_ext4


def name_of(path: Path) -> str | None:
    source = open_source(str(path))
    found = find_container(source)
    source.close()
    return None if found is None else found.name


@pytest.mark.parametrize(
    ("made", "name"),
    [("qcow2", "qcow2"), ("qed", "QED"), ("vmdk", "VMDK"), ("vdi", "VDI"), ("vhdx", "VHDX"), ("vpc", "VHD"),
     ("vpc:fixed", "VHD"), ("vmdk:monolithicFlat", "VMDK"), ("parallels", "Parallels"), ("raw", None)],
)  # fmt: skip
def test_what_qemu_img_makes(tmp_path: Path, made: str, name: str | None) -> None:
    program, path = requires_program("qemu-img"), tmp_path / "image"
    kind, _, subformat = made.partition(":")
    options = ["-o", f"subformat={subformat}"] if subformat else []
    run_or_skip("qemu-img", program, "create", "-q", "-f", kind, *options, str(path), "4M")
    assert name_of(path) == name


def make_tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("disk.raw"))
    return made.getvalue()


def make_zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("disk.raw", b"content")
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [("gzip", gzip.compress(b"content")), ("bzip2", bz2.compress(b"content")), ("bzip2", bz2.compress(b"")),
     ("xz", lzma.compress(b"content")), ("zstd", zstandard.compress(b"content")), ("tar", make_tar()), ("zip", make_zip())],
    ids=["gzip", "bzip2", "bzip2 of nothing", "xz", "zstd", "tar", "zip"],
)  # fmt: skip
def test_what_compressors_and_archivers_make(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert name_of(path) == name
    with open(path, "rb") as file:
        source = StreamSource(file.fileno())
        found = find_container(source)
        assert found is not None
        assert found.name == name
        memory = memoryview(bytearray(len(data) + 10))
        assert source.size_bytes is None
        assert source.read_into(0, memory) == len(data) == source.size_bytes
        assert bytes(memory[: len(data)]) == data, "a stream that was looked at is still whole"


@pytest.mark.parametrize("size_bytes", [0, 1, 100, 300, 5000])
def test_random_bytes_of_any_length_are_flat(tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size_bytes))
    assert name_of(path) is None


def test_what_is_on_real_disks_is_flat(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    make_ext4(path, 4 * MIB)
    assert name_of(path) is None
    path.write_bytes(bytes(4 * MIB))
    run_or_skip("swap", requires_program("mkswap"), str(path))
    assert name_of(path) is None
    path.write_bytes(bytes(510) + b"\x55\xaa" + bytes(MIB))  # a boot sector
    assert name_of(path) is None
    path.write_bytes(b"LUKS\xba\xbe\0\x02" + bytes(MIB))
    assert name_of(path) is None
    path.write_bytes(bytes(32769) + b"CD001" + bytes(MIB))  # an ISO image
    assert name_of(path) is None
    path.write_bytes(b"BZh is how a text may begin")
    assert name_of(path) is None


def test_deltas_and_objects_of_our_own_are_no_images(tmp_path: Path) -> None:
    from deltaimg import delta_file, sign_file

    old, signature, delta = tmp_path / "old", tmp_path / "signature", tmp_path / "delta"
    old.write_bytes(os.urandom(5000))
    sign_file(str(old), str(signature))
    delta_file(str(signature), str(old), str(delta))
    assert name_of(signature) == name_of(delta) == "deltaimg"
    subprocess.run([requires_program("xdelta3"), "-q", "-e", "-s", old, old, tmp_path / "vcdiff"], check=True)
    assert name_of(tmp_path / "vcdiff") == "VCDIFF"
