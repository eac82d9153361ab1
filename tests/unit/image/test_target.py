# SPDX-License-Identifier: Apache-2.0
"""Where a restore may write: what is refused, when a file gets its name, devices, full disks, sparseness."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.engine.restore.run import restore
from deltaimg.errors import (
    ContentDamaged,
    ImageError,
    ImageInUse,
    ReaderGone,
    TargetExists,
    TargetTooSmall,
    UnsupportedImage,
)
from deltaimg.format.manifest import Manifest
from deltaimg.image.file_target import FileTarget
from deltaimg.image.open_target import open_target
from deltaimg.image.stream_target import StreamTarget
from deltaimg.model import KIB, MIB, Extent
from deltaimg.repo.repository import Repository
from deltaimg.store.memory import MemoryStore
from tests.support.components import as_ordinary_user, loop_file_system, run_or_skip, small_ext4, small_tmpfs
from tests.support.images import SyntheticImage, make_incompressible_image, make_mixed_image
from tests.support.repositories import assert_same_bytes, back_up_image, make_repository

IMAGE_BYTES = 3 * MIB + 2560


@pytest.fixture
def image() -> SyntheticImage:
    return make_mixed_image(IMAGE_BYTES, seed=11)


@pytest.fixture
def repository() -> Repository:
    return make_repository()


@pytest.fixture
def manifest(repository: Repository, image: SyntheticImage) -> Manifest:
    return back_up_image(repository, image)


def damage_pack(repository: Repository) -> None:
    """Flip a bit in the middle of the only pack."""
    assert isinstance(repository.objects.store, MemoryStore)
    name = next(name for name in repository.objects.store.objects if name.startswith("packs/"))
    data = bytearray(repository.objects.store.objects[name])
    data[len(data) // 2] ^= 1
    repository.objects.store.objects[name] = bytes(data)


# -- what is refused -------------------------------------------------------------------------------------------------


def test_an_existing_file_is_kept_unless_forced(
    tmp_path: Path, repository: Repository, manifest: Manifest, image: SyntheticImage
) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"old")
    with pytest.raises(TargetExists, match=r"precious: exists"):
        restore(repository, manifest, str(target))
    assert target.read_bytes() == b"old"
    restore(repository, manifest, str(target), is_forced=True)
    assert_same_bytes(target.read_bytes(), image.content)
    assert os.listdir(tmp_path) == ["precious"]


@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize("points_to", ["something", "nothing"])
def test_a_symbolic_link_is_never_followed(
    tmp_path: Path, repository: Repository, manifest: Manifest, points_to: str, is_forced: bool
) -> None:
    (tmp_path / "something").write_bytes(b"old")
    (tmp_path / "link").symlink_to(points_to)
    with pytest.raises(TargetExists, match=r"is a symbolic link"):
        restore(repository, manifest, str(tmp_path / "link"), is_forced=is_forced)
    assert sorted(os.listdir(tmp_path)) == ["link", "something"]
    assert (tmp_path / "something").read_bytes() == b"old"


@pytest.mark.parametrize("is_forced", [False, True])
def test_places_for_no_image_are_refused(
    tmp_path: Path, repository: Repository, manifest: Manifest, is_forced: bool
) -> None:
    for path, what in (
        (tmp_path, "a directory"),
        (Path("/dev/null"), "a character device"),
    ):
        with pytest.raises(UnsupportedImage, match=what):
            restore(repository, manifest, str(path), is_forced=is_forced)


def test_a_folder_that_is_missing_or_closed_is_an_image_error(
    tmp_path: Path, repository: Repository, manifest: Manifest
) -> None:
    with pytest.raises(ImageError, match=r"No such file or directory"):
        restore(repository, manifest, str(tmp_path / "none" / "image.raw"))
    with as_ordinary_user(), pytest.raises(ImageError, match=r"Permission denied"):
        restore(repository, manifest, "/image.raw" if os.geteuid() != 0 else str(tmp_path))
    with pytest.raises(ImageError, match=r"is not a possible path"):
        restore(repository, manifest, "a\0b")


# -- when it gets its name -------------------------------------------------------------------------------------------


def test_an_image_has_no_name_until_it_is_verified(tmp_path: Path) -> None:
    target = open_target(str(tmp_path / "image.raw"), 8192)
    target.write(0, memoryview(b"x" * 4096))
    assert os.listdir(tmp_path) == []
    target.commit()
    assert os.listdir(tmp_path) == ["image.raw"]


@pytest.mark.parametrize("is_forced", [False, True])
def test_a_restore_that_fails_leaves_nothing_behind(
    tmp_path: Path, repository: Repository, manifest: Manifest, is_forced: bool
) -> None:
    target = tmp_path / "image.raw"
    if is_forced:
        target.write_bytes(b"old")
    damage_pack(repository)
    with pytest.raises(ContentDamaged):
        restore(repository, manifest, str(target), is_forced=is_forced)
    assert os.listdir(tmp_path) == (["image.raw"] if is_forced else [])
    assert not is_forced or target.read_bytes() == b"old"


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = open_target(str(tmp_path / "image.raw"), 8192)
    (tmp_path / "image.raw").write_bytes(b"somebody else's")
    with pytest.raises(TargetExists, match=r"appeared in the meantime"):
        target.commit()
    assert (tmp_path / "image.raw").read_bytes() == b"somebody else's"
    assert os.listdir(tmp_path) == ["image.raw"]


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr("deltaimg.image.temporary.TemporaryFile._open_unnamed", lambda *_: -1)
    monkeypatch.setattr("os.link", refuse)
    open_target(str(tmp_path / "image.raw"), 100).commit()
    assert os.listdir(tmp_path) == ["image.raw"]
    second = FileTarget(str(tmp_path / "image.raw"), 5, is_replacing=False, is_synced=False)
    with pytest.raises(TargetExists):
        second.commit()
    assert os.listdir(tmp_path) == ["image.raw"]


def test_a_failed_commit_closes_its_file_once(tmp_path: Path) -> None:
    """The descriptor was closed twice, and the second time it could have been anybody's."""
    target = open_target(str(tmp_path / "image.raw"), 8192)
    (tmp_path / "image.raw").touch()
    with pytest.raises(TargetExists):
        target.commit()
    other = os.open("/dev/null", os.O_RDONLY)
    target.abort()
    os.fstat(other)
    os.close(other)


# -- sparse ----------------------------------------------------------------------------------------------------------


def test_holes_and_zeros_take_no_room(tmp_path: Path, repository: Repository) -> None:
    image = SyntheticImage(64 * MIB, seed=12)
    image.write_random(10 * MIB, MIB)
    image.zero(30 * MIB, 4 * MIB)
    image.write_random(64 * MIB - 4096, 4096)
    restore(repository, back_up_image(repository, image), str(tmp_path / "image.raw"))
    found = (tmp_path / "image.raw").stat()
    assert found.st_size == image.size_bytes
    assert MIB <= found.st_blocks * 512 <= MIB + 256 * KIB
    assert_same_bytes((tmp_path / "image.raw").read_bytes(), image.content)


# -- full disks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_says_so_and_leaves_nothing(
    tmp_path: Path, kind: str, repository: Repository, request: pytest.FixtureRequest
) -> None:
    manifest = back_up_image(repository, make_incompressible_image(12 * MIB, seed=13))
    if kind == "tmpfs":
        make_tmpfs: Callable[[int], Path] = request.getfixturevalue("make_tmpfs")
        _restore_to_full(repository, manifest, make_tmpfs(4 * MIB), "when writing at byte \\d+")
    else:
        with small_ext4(tmp_path / "ext4", 8 * MIB) as folder:
            _restore_to_full(repository, manifest, folder, "for all that is to be written")


def _restore_to_full(repository: Repository, manifest: Manifest, folder: Path, when: str) -> None:
    before = os.listdir(folder)
    with pytest.raises(TargetTooSmall, match=f"no space left {when}"):
        restore(repository, manifest, str(folder / "image.raw"))
    assert os.listdir(folder) == before


def test_a_quota_that_is_reached_is_not_called_a_full_disk(tmp_path: Path, repository: Repository) -> None:
    """`df` shows room then, which says nothing to whoever looks for it."""
    manifest = back_up_image(repository, make_incompressible_image(12 * MIB, seed=13))
    with loop_file_system("btrfs", tmp_path / "btrfs", 320 * MIB) as made:
        run_or_skip("btrfs", "btrfs", "quota", "enable", str(made.folder))
        run_or_skip("btrfs", "btrfs", "qgroup", "limit", "4M", "0/5", str(made.folder))
        with pytest.raises(TargetTooSmall, match=r"no quota left when writing at byte \d+") as refused:
            restore(repository, manifest, str(made.folder / "image.raw"))
        assert "raise the quota" in str(refused.value.hint)
        assert os.listdir(made.folder) == []


def test_a_file_system_without_room_for_another_file_is_full(tmp_path: Path) -> None:
    """All its inodes are used, though there is room for bytes."""
    with small_tmpfs(tmp_path / "full", MIB) as folder:
        subprocess.run(["mount", "-o", "remount,nr_inodes=2", str(folder)], check=True)
        (folder / "other").touch()
        with pytest.raises(TargetTooSmall, match="no space left for a new file") as refused:
            open_target(str(folder / "image.raw"), MIB)
        assert refused.value.hint == "make room and run again"


@pytest.mark.parametrize("kind", ["file", "device"])
def test_a_sync_that_fails_names_no_byte(
    tmp_path: Path, make_loop: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = str(tmp_path / "new") if kind == "file" else make_device(tmp_path, make_loop, MIB)[0]
    target = open_target(path, MIB, is_forced=True, is_synced=True)
    target.write(MIB // 2, memoryview(b"x"))

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(ImageError, match=f"{path}: cannot be written: Input/output error"):
            target.commit()
    target.abort()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_long_extents_are_reserved_where_that_is_cheap_and_given_back_if_never_written(
    tmp_path: Path, kind: str
) -> None:
    with loop_file_system(kind, tmp_path / kind, 320 * MIB) as made:
        path = made.folder / "image.raw"
        target = open_target(str(path), 16 * MIB)
        try:
            target.reserve([Extent(0, 8 * KIB), Extent(MIB, 5 * MIB), Extent(6 * MIB, 8 * MIB)])
            assert isinstance(target, FileTarget)
            is_reserving = kind != "btrfs"
            assert _allocated_bytes(target) == (6 * MIB if is_reserving else 0)
            target.clear(2 * MIB, MIB)
            assert _allocated_bytes(target) == (5 * MIB if is_reserving else 0)
            target.write(6 * MIB, memoryview(b"x" * MIB))
            target.commit()
        finally:
            target.abort()
        assert path.read_bytes() == bytes(6 * MIB) + b"x" * MIB + bytes(9 * MIB)


def _allocated_bytes(target: FileTarget) -> int:
    return os.fstat(target._descriptor).st_blocks * 512


def test_what_was_reserved_and_is_damaged_is_a_hole(
    tmp_path: Path, repository: Repository, manifest: Manifest, image: SyntheticImage
) -> None:
    damage_pack(repository)
    with small_ext4(tmp_path / "ext4", 32 * MIB) as folder:
        path = folder / "image.raw"
        result = restore(repository, manifest, str(path), keep_going=True)
        lost_bytes = sum(extent.length for extent in result.damage)
        assert lost_bytes == 512 * KIB
        assert path.stat().st_blocks * 512 <= result.data_bytes - lost_bytes


def test_an_image_larger_than_any_file_there_is_refused_at_once(tmp_path: Path) -> None:
    with small_ext4(tmp_path / "ext4", 8 * MIB) as folder:
        before = os.listdir(folder)
        with pytest.raises(TargetTooSmall, match=r"no file of"):
            open_target(str(folder / "image.raw"), 2**59)
        assert os.listdir(folder) == before


# -- block devices ---------------------------------------------------------------------------------------------------


def make_device(tmp_path: Path, make_loop: Callable[[Path], str], size_bytes: int) -> tuple[str, Path]:
    """Attach a device full of old data."""
    backing = tmp_path / "device"
    backing.write_bytes(b"\xaa" * size_bytes)
    return make_loop(backing), backing


def read_device(path: str, length: int) -> bytes:
    with open(path, "rb") as device:
        return device.read(length)


def test_a_device_is_written_only_by_force(
    tmp_path: Path, make_loop: Callable[[Path], str], repository: Repository, manifest: Manifest
) -> None:
    device, backing = make_device(tmp_path, make_loop, 4 * MIB)
    with pytest.raises(TargetExists, match=r"is a block device"):
        restore(repository, manifest, device)
    assert backing.read_bytes() == b"\xaa" * 4 * MIB


def test_a_file_that_a_loop_device_lies_on_is_not_replaced(
    tmp_path: Path, make_loop: Callable[[Path], str], repository: Repository, manifest: Manifest
) -> None:
    device, backing = make_device(tmp_path, make_loop, 4 * MIB)
    with pytest.raises(ImageInUse, match=f"is attached to {device}"):
        restore(repository, manifest, str(backing), is_forced=True)
    assert backing.read_bytes() == b"\xaa" * 4 * MIB
    assert os.listdir(tmp_path) == [backing.name]


def test_old_bytes_of_a_device_are_gone_where_the_image_has_holes(
    tmp_path: Path, make_loop: Callable[[Path], str], repository: Repository, manifest: Manifest, image: SyntheticImage
) -> None:
    device, _ = make_device(tmp_path, make_loop, 4 * MIB)
    restore(repository, manifest, device, is_forced=True)
    found = read_device(device, 4 * MIB)
    assert_same_bytes(found[:IMAGE_BYTES], image.content)
    assert found[IMAGE_BYTES:] == b"\xaa" * (4 * MIB - IMAGE_BYTES), "beyond the image nothing is touched"


def test_old_bytes_are_gone_where_records_are_damaged(
    tmp_path: Path, make_loop: Callable[[Path], str], repository: Repository, manifest: Manifest, image: SyntheticImage
) -> None:
    device, _ = make_device(tmp_path, make_loop, 4 * MIB)
    damage_pack(repository)
    result = restore(repository, manifest, device, is_forced=True, keep_going=True)
    expected = bytearray(image.content)
    assert result.damage
    for extent in result.damage:
        expected[extent.start : extent.end] = bytes(extent.end - extent.start)
    assert_same_bytes(read_device(device, IMAGE_BYTES), expected)


def test_a_device_that_cannot_deallocate_is_overwritten_with_zeros(
    tmp_path: Path,
    make_loop: Callable[[Path], str],
    repository: Repository,
    manifest: Manifest,
    image: SyntheticImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, _ = make_device(tmp_path, make_loop, 4 * MIB)
    monkeypatch.setattr("deltaimg.image.device_target.punch_hole", lambda *_: False)
    restore(repository, manifest, device, is_forced=True)
    assert_same_bytes(read_device(device, IMAGE_BYTES), image.content)


def test_a_device_that_is_too_small_is_not_touched(
    tmp_path: Path, make_loop: Callable[[Path], str], repository: Repository, manifest: Manifest
) -> None:
    device, backing = make_device(tmp_path, make_loop, 2 * MIB)
    with pytest.raises(TargetTooSmall, match=rf"has {2 * MIB} bytes; the image needs {IMAGE_BYTES}"):
        restore(repository, manifest, device, is_forced=True)
    assert backing.read_bytes() == b"\xaa" * 2 * MIB


def test_a_mounted_device_is_not_written(tmp_path: Path, repository: Repository, manifest: Manifest) -> None:
    with small_ext4(tmp_path / "ext4", 8 * MIB) as folder:
        device = next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line)
        with pytest.raises(ImageInUse, match=rf"is mounted read-write at {folder}"):
            restore(repository, manifest, device, is_forced=True)


# -- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_gets_every_byte_in_order(
    tmp_path: Path, repository: Repository, manifest: Manifest, image: SyntheticImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "out", "wb") as file:
        monkeypatch.setattr("deltaimg.image.open_target.StreamTarget", lambda _: StreamTarget(file.fileno()))
        restore(repository, manifest, "-")
    assert_same_bytes((tmp_path / "out").read_bytes(), image.content)


def test_a_reader_that_goes_away_is_an_error_of_its_own(repository: Repository, manifest: Manifest) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    target = StreamTarget(writing)
    with pytest.raises(ReaderGone):
        target.write(0, memoryview(b"x"))
    os.close(writing)
