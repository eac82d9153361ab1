# SPDX-License-Identifier: Apache-2.0
"""What else uses a file or device: mounts from it or from what lies on it, swap space, exclusive holders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deltaimg.image.block_devices import find_storage, identify, share_storage
from deltaimg.image.uses import Use, find_uses, find_writer
from deltaimg.model import MIB
from tests.support.components import loop_device, requires_program, requires_root, run_or_skip
from tests.support.devices import make_ext4, mounted, partition


def uses_of(path: str | Path) -> list[Use]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return find_uses(descriptor)
    finally:
        os.close(descriptor)


def writer_of(path: str | Path) -> str | None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return find_writer(descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture
def ext4_device(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A loop device with an ext4 in it, and its file."""
    requires_root()
    backing = tmp_path / "backing"
    make_ext4(backing, 8 * MIB)
    with loop_device(backing) as device:
        yield device, backing


def test_what_nobody_uses_has_no_uses(ext4_device: tuple[str, Path], tmp_path: Path) -> None:
    device, backing = ext4_device
    assert uses_of(device) == []
    assert uses_of(backing) == []
    (tmp_path / "file").touch()
    assert uses_of(tmp_path / "file") == []
    assert uses_of("/dev/null") == []


@pytest.mark.parametrize("name", ["m", "with blank", "ünïcode\\back"])
def test_a_mounted_device_and_the_file_behind_it_have_a_writer(
    ext4_device: tuple[str, Path], tmp_path: Path, name: str
) -> None:
    device, backing = ext4_device
    with mounted(device, tmp_path / name) as folder:
        assert writer_of(device) == f"mounted read-write at {folder}"
        assert writer_of(backing) == f"attached to {device}, and mounted read-write at {folder} from {device}"
    assert writer_of(device) is writer_of(backing) is None


def test_what_is_mounted_read_only_has_no_writer(ext4_device: tuple[str, Path], tmp_path: Path) -> None:
    device, backing = ext4_device
    with mounted(device, tmp_path / "m", "-r") as folder:
        assert uses_of(device) == [Use(f"mounted read-only at {folder}", False)]
        assert len(uses_of(backing)) == 1
        assert writer_of(device) is writer_of(backing) is None


def test_a_read_only_bind_mount_does_not_make_a_file_system_read_only(
    ext4_device: tuple[str, Path], tmp_path: Path
) -> None:
    device, _ = ext4_device
    with mounted(device, tmp_path / "m") as folder, mounted(str(folder), tmp_path / "bound", "--bind"):
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path / "bound"], check=True)
        assert (writer_of(device) or "").startswith("mounted read-write")


def test_a_mounted_partition_counts_for_its_disk_and_the_disk_for_its_partitions(
    tmp_path: Path, make_loop: Callable[[Path], str]
) -> None:
    backing = tmp_path / "disk"
    with open(backing, "wb") as file:
        file.truncate(16 * MIB)
    device = make_loop(backing)
    with partition(device, MIB, 8 * MIB) as part:
        make_ext4(part)
        with mounted(part, tmp_path / "m") as folder:
            assert writer_of(part) == f"mounted read-write at {folder}"
            assert writer_of(device) == f"mounted read-write at {folder} from {part}"
            assert writer_of(backing) == f"attached to {device}, and mounted read-write at {folder} from {part}"
    make_ext4(device)
    with partition(device, MIB, 8 * MIB) as part, mounted(device, tmp_path / "whole") as folder:
        assert writer_of(part) == f"mounted read-write at {folder} from {device}"


def test_a_loop_device_on_a_loop_device_counts(ext4_device: tuple[str, Path], tmp_path: Path) -> None:
    device, backing = ext4_device
    with loop_device(Path(device)) as upper, mounted(upper, tmp_path / "m") as folder:
        assert writer_of(device) == f"mounted read-write at {folder} from {upper}"
        assert "mounted read-write" in (writer_of(backing) or "")


def test_every_device_of_a_btrfs_counts(tmp_path: Path, make_loop: Callable[[Path], str]) -> None:
    requires_root()
    devices = []
    for number in range(2):
        backing = tmp_path / f"disk{number}"
        with open(backing, "wb") as file:
            file.truncate(128 * MIB)
        devices.append(make_loop(backing))
    run_or_skip("btrfs", requires_program("mkfs.btrfs"), "-q", "-f", *devices)
    with mounted(devices[0], tmp_path / "m", "-o", f"device={devices[1]}") as folder:
        for device in devices:
            assert (writer_of(device) or "").startswith(f"mounted read-write at {folder}")


def test_swap_space_has_a_writer(tmp_path: Path) -> None:
    requires_root()
    swap, other = tmp_path / "swap file", tmp_path / "other"
    for path in (swap, other):
        path.write_bytes(bytes(2 * MIB))
        path.chmod(0o600)
    run_or_skip("swap", requires_program("mkswap"), str(swap))
    run_or_skip("swap", requires_program("swapon"), str(swap))
    try:
        assert writer_of(swap) == "used as swap space"
        assert writer_of(other) is None
    finally:
        subprocess.run(["swapoff", swap], check=True)


def test_swap_on_a_device_has_a_writer(tmp_path: Path, make_loop: Callable[[Path], str]) -> None:
    requires_root()
    backing = tmp_path / "swap"
    backing.write_bytes(bytes(2 * MIB))
    device = make_loop(backing)
    run_or_skip("swap", requires_program("mkswap"), device)
    run_or_skip("swap", requires_program("swapon"), device)
    try:
        assert writer_of(device) == "used as swap space"
        assert "used as swap space" in (writer_of(backing) or "")
    finally:
        subprocess.run(["swapoff", device], check=True)


def test_who_holds_a_device_exclusively_counts(tmp_path: Path, make_loop: Callable[[Path], str]) -> None:
    backing = tmp_path / "disk"
    backing.write_bytes(bytes(MIB))
    device = make_loop(backing)
    holder = os.open(device, os.O_RDONLY | os.O_EXCL)
    assert writer_of(device) == "held by another program or by the kernel"
    os.close(holder)
    assert writer_of(device) is None


def test_a_mount_in_another_namespace_is_found(ext4_device: tuple[str, Path], tmp_path: Path) -> None:
    device, _ = ext4_device
    (tmp_path / "m").mkdir()
    script = f"mount {device} {tmp_path}/m && echo ready && read _"
    unshare = requires_program("unshare")
    with subprocess.Popen(
        [unshare, "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            assert writer_of(device) == f"mounted read-write at {tmp_path}/m, in another mount namespace"
        finally:
            process.communicate("\n")


def test_what_lies_on_what_is_told(ext4_device: tuple[str, Path], tmp_path: Path) -> None:
    device, backing = ext4_device
    link = tmp_path / "link"
    link.symlink_to(device)
    (tmp_path / "other").touch()
    assert identify(str(backing)) in find_storage(device)
    assert share_storage(device, str(backing))
    assert share_storage(str(backing), str(link))
    assert not share_storage(str(tmp_path / "other"), device)
    assert not share_storage(str(tmp_path / "missing"), str(tmp_path / "missing"))
    assert not share_storage("/dev/null", "/dev/null")


def test_two_partitions_of_a_disk_share_nothing(tmp_path: Path, make_loop: Callable[[Path], str]) -> None:
    backing = tmp_path / "disk"
    with open(backing, "wb") as file:
        file.truncate(16 * MIB)
    device = make_loop(backing)
    with ExitStack() as stack:
        first = stack.enter_context(partition(device, MIB, MIB))
        second = stack.enter_context(partition(device, 4 * MIB, MIB, number=2))
        assert not share_storage(first, second)
        assert share_storage(first, device)
        assert share_storage(str(backing), first)


def test_without_sysfs_and_proc_nothing_is_known_and_nothing_fails(
    ext4_device: tuple[str, Path], tmp_path: Path
) -> None:
    device, backing = ext4_device
    for path in (device, backing):
        descriptor = os.open(path, os.O_RDONLY)
        assert find_uses(descriptor, proc=tmp_path / "none", sysfs=tmp_path / "none") == []
        os.close(descriptor)
