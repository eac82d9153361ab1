# SPDX-License-Identifier: Apache-2.0
"""`deltaimg inspect` beside the tools of each partition table and file system: what it says is what they say."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.api.guest import inspect_image
from deltaimg.describe.guest import describe_guest
from deltaimg.guest.examine import GuestLayout, Volume
from deltaimg.guest.file_system import FileSystem
from deltaimg.model import KIB, MIB
from tests.support.components import loop_device, requires_program, run_or_skip
from tests.support.program import fail, succeed


def run(*command: object, given: str | None = None) -> str:
    """Run a tool, or skip where it is not installed."""
    requires_program(str(command[0]))
    done = subprocess.run(
        [str(word) for word in command], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def make_file(path: Path, size_bytes: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(size_bytes)
    return path


def blkid(path: Path, offset: int = 0) -> dict[str, str]:
    text = run("blkid", "-p", "-o", "export", "-O", offset, path)
    return {key: value.replace("\\ ", " ") for key, _, value in (line.partition("=") for line in text.splitlines())}


def find_file_system(path: Path) -> FileSystem:
    (volume,) = inspect_image(str(path)).volumes
    assert volume.file_system is not None
    return volume.file_system


def field(text: str, name: str) -> int:
    found = re.search(rf"{name}\s*[:=]\s*(\d+)", text)
    assert found is not None, text
    return int(found[1])


# -- file systems ------------------------------------------------------------------------------------------------------

EXT = [
    ("ext2", []), ("ext3", []), ("ext4", []), ("ext4", ["-b", "1024"]), ("ext4", ["-O", "bigalloc", "-C", "16384"]),
    ("ext4", ["-O", "meta_bg,^resize_inode"]), ("ext4", ["-O", "^metadata_csum,uninit_bg"]),
    ("ext4", ["-O", "^64bit,^has_journal"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), EXT)
def test_ext_is_as_dumpe2fs_says(tmp_path: Path, kind: str, options: list[str]) -> None:
    image = make_file(tmp_path / "image", 64 * MIB)
    run(f"mkfs.{kind}", "-q", "-F", "-L", "a label", *options, image)
    found, said = find_file_system(image), run("dumpe2fs", "-h", image)
    assert (found.kind, found.label, found.is_clean) == (kind, "a label", True)
    assert (found.kind, found.uuid) == (blkid(image)["TYPE"], blkid(image)["UUID"])
    assert found.block_bytes == field(said, "Block size")
    assert found.size_bytes == field(said, "Block count") * found.block_bytes
    assert found.free_bytes == field(said, "Free blocks") * found.block_bytes


@pytest.mark.parametrize("options", [[], ["-b", "size=1024"]])
def test_xfs_is_as_xfs_db_says(tmp_path: Path, options: list[str]) -> None:
    image = make_file(tmp_path / "image", 320 * MIB)
    run("mkfs.xfs", "-q", "-L", "a-label", *options, image)
    found, said = find_file_system(image), run("xfs_db", "-r", "-c", "sb 0", "-c", "p", image)
    assert (found.kind, found.label, found.uuid) == ("xfs", "a-label", blkid(image)["UUID"])
    assert found.block_bytes == field(said, "blocksize")
    assert found.size_bytes == field(said, "dblocks") * found.block_bytes
    assert found.free_bytes == field(said, "fdblocks") * found.block_bytes


@pytest.mark.parametrize("options", [[], ["-c", "512"], ["-c", "65536"]])
def test_ntfs_is_as_ntfsinfo_says(tmp_path: Path, options: list[str]) -> None:
    image = make_file(tmp_path / "image", 64 * MIB)
    run("mkntfs", "-q", "-F", "-L", "Größe", *options, image)
    run("ntfscp", "-f", image, __file__, "a-file")
    found, said = find_file_system(image), run("ntfsinfo", "-f", "-m", image)
    assert (found.kind, found.label, found.uuid) == ("ntfs", "Größe", blkid(image)["UUID"])
    assert found.is_clean
    assert found.block_bytes == field(said, "Cluster Size")
    assert found.size_bytes == field(said, "Volume Size in Clusters") * found.block_bytes
    assert found.free_bytes is not None
    assert found.free_bytes == field(said, "Free Clusters") * found.block_bytes


@pytest.mark.parametrize(("bits", "mib"), [(12, 4), (16, 40), (32, 64)])
def test_fat_is_as_fsck_says(tmp_path: Path, bits: int, mib: int) -> None:
    image = make_file(tmp_path / "image", mib * MIB)
    run("mkfs.vfat", "-F", bits, "-s", 2 if bits == 32 else 4, "-n", "A LABEL", image)
    found = find_file_system(image)
    said = run("fsck.vfat", "-n", "-v", image)
    used = re.search(r"files, (\d+)/(\d+) clusters", said)
    assert used is not None
    assert (found.kind, found.label, found.uuid) == ("vfat", "A LABEL", blkid(image)["UUID"])
    assert f"{found.block_bytes} bytes per cluster" in said
    assert found.free_bytes == (int(used[2]) - int(used[1])) * found.block_bytes


def test_btrfs_is_as_blkid_says(tmp_path: Path) -> None:
    image = make_file(tmp_path / "image", 128 * MIB)
    run("mkfs.btrfs", "-q", "-L", "a label", image)
    found, said = find_file_system(image), run("btrfs", "inspect-internal", "dump-super", image)
    assert (found.kind, found.label, found.uuid) == ("btrfs", "a label", blkid(image)["UUID"])
    assert (found.size_bytes, found.block_bytes) == (128 * MIB, 4096)
    assert found.used_bytes == int(re.search(r"^bytes_used\s+(\d+)", said, re.MULTILINE)[1])  # type: ignore[index]


def test_swap_is_as_blkid_says(tmp_path: Path) -> None:
    image = make_file(tmp_path / "image", 8 * MIB)
    run("mkswap", "-L", "a label", image)
    found = find_file_system(image)
    assert (found.kind, found.label, found.uuid, found.size_bytes) == ("swap", "a label", blkid(image)["UUID"], 8 * MIB)
    assert found.free_bytes is None


def test_a_physical_volume_has_the_name_of_its_group(tmp_path: Path) -> None:
    image = make_file(tmp_path / "image", 32 * MIB)
    with loop_device(image) as device:
        config = (
            'devices{obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0} '
            "backup{backup=0 archive=0}"
        )
        run_or_skip("lvm", "pvcreate", "-q", "--config", config, device)
        assert find_file_system(image).label == ""
        run_or_skip("lvm", "vgcreate", "-q", "--config", config, "vg-test_0", device)
    found = find_file_system(image)
    assert (found.kind, found.label, found.uuid) == ("LVM2_member", "vg-test_0", blkid(image)["UUID"])
    assert found.size_bytes == 32 * MIB


# -- partitions --------------------------------------------------------------------------------------------------------

MBR = """label: dos
start=63, size=2000, type=83
start=4096, size=30000, type=5
start=4159, size=1000, type=83
start=6144, size=4096, type=82
start=12288, size=8192, type=c
start=40960, size=8192, type=7, bootable
"""
GPT = """label: gpt
start=2048, size=2048, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI System"
start=8192, size=40000, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="Würzel"
5: start=51200, size=2048, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F
"""


def partitions(layout: GuestLayout) -> list[tuple[int, int, int]]:
    return [(each.partition.number, each.start, each.end) for each in layout.volumes if each.partition]


def sfdisk(image: Path) -> list[tuple[int, int, int, str, str]]:
    table = json.loads(run("sfdisk", "--json", image))["partitiontable"]
    return [
        (
            int(re.search(r"(\d+)$", each["node"])[1]),  # type: ignore[index]
            each["start"] * 512, (each["start"] + each["size"]) * 512, each["type"].lower(), each.get("name", ""),
        )
        for each in table["partitions"]
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "script"), [("mbr", MBR), ("gpt", GPT)])
def test_partitions_are_as_sfdisk_says(tmp_path: Path, kind: str, script: str) -> None:
    image = make_file(tmp_path / "image", 64 * MIB)
    run("sfdisk", "-q", image, given=script)
    layout = inspect_image(str(image))
    assert layout.table == kind
    said = [each for each in sfdisk(image) if each[3] != "5"]
    found = [
        (each.partition.number, each.start, each.end, each.partition.type.removeprefix("0"), each.partition.name)
        for each in layout.volumes
        if each.partition
    ]
    assert found == [(*each[:3], each[3].removeprefix("0"), each[4]) for each in said]
    assert len(found) == (5 if kind == "mbr" else 3)


def test_a_gpt_whose_beginning_is_lost_is_read_from_its_end(tmp_path: Path) -> None:
    image = make_file(tmp_path / "image", 64 * MIB)
    run("sfdisk", "-q", image, given=GPT)
    expected = inspect_image(str(image))
    with open(image, "r+b") as file:
        file.seek(520)
        file.write(b"damaged")
    assert inspect_image(str(image)) == expected


def test_partitions_with_4096_byte_sectors_are_found(tmp_path: Path) -> None:
    image = make_file(tmp_path / "image", 64 * MIB)
    with loop_device(image, sector_bytes=4096) as device:
        run("sfdisk", "-q", device, given="label: gpt\nstart=256, size=1024\n")
    assert partitions(inspect_image(str(image))) == [(1, 256 * 4096, 1280 * 4096)]


def test_file_systems_are_found_in_their_partitions(tmp_path: Path) -> None:
    """And what of each is a hole is counted."""
    image = make_file(tmp_path / "image", 64 * MIB)
    run("sfdisk", "-q", image, given=MBR)
    parts: list[tuple[str, list[object]]] = [
        ("mkfs.ext2", ["-q", "-F"]), ("mkntfs", ["-q", "-F"]), ("mkfs.ext2", ["-q", "-F"]), ("mkswap", []), ("mkfs.vfat", []),
    ]  # fmt: skip
    for (number, start, end), (program, options) in zip(partitions(inspect_image(str(image))), parts, strict=True):
        made = make_file(tmp_path / f"part{number}", end - start)
        run(program, *options, made)
        with open(image, "r+b") as file:
            file.seek(start)
            file.write(made.read_bytes())
    layout = inspect_image(str(image))
    kinds = [each.file_system and each.file_system.kind for each in layout.volumes]
    assert kinds == ["ext2", "ntfs", "ext2", "swap", "vfat"]
    run("fallocate", "--punch-hole", "--offset", layout.volumes[3].start + 512 * KIB, "--length", 256 * KIB, image)
    assert [each.hole_bytes for each in inspect_image(str(image)).volumes] == [0, 0, 0, 256 * KIB, 0]


# -- hostile guests ----------------------------------------------------------------------------------------------------


def make_ext4(path: Path) -> None:
    run("mkfs.ext4", "-q", "-F", path)


def make_ntfs(path: Path) -> None:
    run("mkntfs", "-q", "-F", path)


def make_fat(path: Path) -> None:
    run("mkfs.vfat", path)


def make_mbr(path: Path) -> None:
    run("sfdisk", "-q", path, given=MBR.replace("start=40960", "start=35000").replace("8192", "1024"))


def make_gpt(path: Path) -> None:
    run("sfdisk", "-q", path, given=GPT.replace("51200", "29000").replace("40000", "20000"))


@pytest.mark.parametrize("make", [make_ext4, make_ntfs, make_fat, make_mbr, make_gpt], ids=lambda make: make.__name__)
def test_structures_of_any_content_are_no_error(tmp_path: Path, seed: int, make: Callable[[Path], None]) -> None:
    """Bytes of the places that are read are changed at random, and images are cut short."""
    image, chance = make_file(tmp_path / "image", 18 * MIB), random.Random(seed)
    make(image)
    plain = image.read_bytes()
    used = range(2048)
    for number in range(60):
        content = bytearray(plain)
        for offset in chance.sample(used, chance.randrange(1, 8)):
            content[offset] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        image.write_bytes(content[: chance.randrange(len(content)) or 1] if number % 4 == 0 else content)
        layout = inspect_image(str(image))
        describe_guest(layout)
        for volume in layout.volumes:
            assert 0 <= volume.start < volume.end <= layout.size_bytes
            found = volume.file_system
            assert found is None or found.free_bytes is None or found.free_bytes >= 0


def test_logical_partitions_in_a_circle_end(tmp_path: Path) -> None:
    image = make_file(tmp_path / "image", 16 * MIB)
    sector = bytearray(512)
    sector[510:] = b"\x55\xaa"
    sector[446 + 4] = 5
    sector[446 + 8 : 446 + 16] = (64).to_bytes(4, "little") + (1000).to_bytes(4, "little")
    link = bytearray(512)
    link[510:] = b"\x55\xaa"
    link[446 + 4], link[446 + 8], link[446 + 12] = 0x83, 1, 5
    link[462 + 4], link[462 + 8], link[462 + 12] = 5, 0, 5
    with open(image, "r+b") as file:
        file.write(sector)
        file.seek(64 * 512)
        file.write(link)
    assert partitions(inspect_image(str(image))) == [(5, 65 * 512, 70 * 512)]


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_is_for_images_and_snapshots(tmp_path: Path) -> None:
    image, repo = make_file(tmp_path / "vm1.raw", 64 * MIB), tmp_path / "repo"
    run("sfdisk", "-q", image, given=GPT)
    made = make_file(tmp_path / "part", 40000 * 512)
    run("mkfs.ext4", "-q", "-F", "-L", "root", made)
    with open(image, "r+b") as file:
        file.seek(8192 * 512)
        file.write(made.read_bytes())
    shown = succeed("inspect", image)
    assert "64.0 MiB image, partition table: GPT" in shown.text
    assert {"4194304", "0fc63daf", "ext4", "root"} <= set(shown.text.split())
    succeed("init", "-r", repo)
    succeed("backup", image, "-i", "vm1", "-q", repo=repo)
    of_image, of_snapshot = (succeed("inspect", each, "--json", repo=repo).json for each in (image, "vm1"))
    of_snapshot.pop("traffic", None)
    for each in (*of_image["volumes"], *of_snapshot["volumes"]):
        # A backup makes holes of some zeros.
        del each["zero_bytes"], each["hole_bytes"], each["skippable_bytes"]
    assert of_image == of_snapshot
    assert "cannot be read" in fail(10, "inspect", tmp_path / "none")
    fail(10, "inspect", "vm1")


def test_an_image_without_anything_known_is_said_to_be_so(tmp_path: Path) -> None:
    image = tmp_path / "image"
    for content in (b"", b"x", os.urandom(100_000)):
        image.write_bytes(content)
        layout = inspect_image(str(image))
        assert [isinstance(each, Volume) and each.file_system for each in layout.volumes] == [None]
