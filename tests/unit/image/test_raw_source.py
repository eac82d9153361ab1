# SPDX-License-Identifier: Apache-2.0
"""Raw files and block devices: what is refused and how it is said, holes, direct reads, changes."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.engine.backup.run import back_up
from deltaimg.errors import ImageError, SourceChanged, UnsupportedImage
from deltaimg.image.extents import DATA, HOLE, ImageExtent
from deltaimg.image.open_source import open_source
from deltaimg.image.raw import BlockDeviceSource
from deltaimg.image.source import ImageSource
from deltaimg.image.stream import StreamSource
from deltaimg.model import GIB, KIB, MIB, TIB
from deltaimg.options.backup import BackupOptions
from tests.support.components import as_ordinary_user, loop_device, requires_root, skip_without
from tests.support.images import SyntheticImage, make_incompressible_image, make_mixed_image
from tests.support.repositories import Warnings, assert_restores, make_repository


def save(image: SyntheticImage, folder: Path) -> Path:
    return Path(image.save(folder / "image.raw"))


def touch_later(path: Path) -> None:
    """Set the modification time to what a clock of any granularity tells apart."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 10**9))


# -- what is no image ------------------------------------------------------------------------------------------------


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none.raw: cannot be read: No such file or directory"):
        open_source(str(tmp_path / "none.raw"))


def test_an_empty_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.raw").touch()
    with pytest.raises(UnsupportedImage, match=r"empty.raw: is empty"):
        back_up(make_repository(), open_source(str(tmp_path / "empty.raw")), "vm1")


def test_a_device_without_a_medium_is_refused(tmp_path: Path, make_loop: Callable[[Path], str]) -> None:
    (tmp_path / "empty.raw").touch()
    with pytest.raises(UnsupportedImage, match=r"has 0 bytes"):
        open_source(make_loop(tmp_path / "empty.raw"))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedImage, match=r"is a directory, not a disk image"):
        open_source(str(tmp_path))


def test_a_character_device_is_refused() -> None:
    with pytest.raises(UnsupportedImage, match=r"/dev/zero: is a character device"):
        open_source("/dev/zero")


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(UnsupportedImage, match=r"is a socket"):
            open_source("socket")


def test_an_unreadable_image_says_why(tmp_path: Path) -> None:
    path = save(make_mixed_image(64 * KIB), tmp_path)
    path.chmod(0)
    with as_ordinary_user(), pytest.raises(ImageError, match=r"Permission denied"):
        open_source(str(path))


def test_an_image_through_a_symbolic_link_is_read(tmp_path: Path) -> None:
    path = save(make_mixed_image(64 * KIB), tmp_path)
    (tmp_path / "link").symlink_to(path)
    assert open_source(str(tmp_path / "link")).size_bytes == 64 * KIB


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_an_impossible_path_is_an_image_error(path: str) -> None:
    """A NUL in a path, which Python refuses with ValueError, was no error of ours."""
    with pytest.raises(ImageError):
        open_source(path)


# -- holes -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["disk", "tmpfs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder on the disk's file system and on tmpfs, both of which know holes."""
    if request.param == "tmpfs":
        make_tmpfs: Callable[[int], Path] = request.getfixturevalue("make_tmpfs")
        return make_tmpfs(64 * MIB)
    path = tmp_path / "probe"
    with open(path, "wb") as file:
        file.truncate(MIB)
    if path.stat().st_blocks:
        skip_without("holes", "this file system has no sparse files")
    return tmp_path


def test_holes_are_seen_where_they_are(folder: Path) -> None:
    image = SyntheticImage(8 * MIB + 4096, seed=2)
    image.write_random(64 * KIB, 128 * KIB)
    image.zero(MIB, 64 * KIB)
    image.write_random(8 * MIB, 4096)
    source = open_source(str(save(image, folder)))
    extents = source.extents()
    assert extents.find(DATA).tolist() == [list(extent) for extent in image.extents()]
    assert extents.count_bytes(DATA, HOLE) == image.size_bytes
    source.close()


def test_an_image_that_is_one_hole_has_no_extents(folder: Path) -> None:
    image = SyntheticImage(5 * MIB + 1)
    with open(folder / "image.raw", "wb") as file:
        file.truncate(image.size_bytes)
    source = open_source(str(folder / "image.raw"))
    assert list(source.extents()) == [ImageExtent(0, image.size_bytes, HOLE)]
    repository = make_repository()
    manifest = back_up(repository, source, "vm1")
    assert (manifest.statistics.read_bytes, manifest.statistics.allocated_bytes) == (0, 0)
    assert_restores(repository, manifest, image.content)
    source.close()


def test_a_tebibyte_of_holes_costs_nothing(folder: Path) -> None:
    path = folder / "huge.raw"
    with open(path, "wb") as file:
        file.truncate(TIB)
        file.seek(700 * GIB)
        file.write(b"island" * 1000)
    source = open_source(str(path))
    repository = make_repository()
    started = time.monotonic()
    manifest = back_up(repository, source, "vm1")
    assert manifest.statistics.read_bytes <= 64 * KIB
    assert manifest.statistics.stored_bytes < 8 * KIB
    assert time.monotonic() - started < 5
    source.close()


# -- direct reads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [4 * MIB, 4 * MIB + 4096, 3 * MIB + 512, 2 * MIB + 1, 700])
def test_a_direct_read_brings_the_odd_tail_too(tmp_path: Path, size_bytes: int) -> None:
    """A read of an odd length is refused under O_DIRECT; the last bytes of an image could not be backed up."""
    image = make_incompressible_image(size_bytes, seed=3)
    try:
        source = open_source(str(save(image, tmp_path)), is_direct=True)
    except ImageError as error:
        skip_without("direct", str(error))
    repository = make_repository()
    manifest = back_up(repository, source, "vm1", BackupOptions(workers=2))
    source.close()
    assert_restores(repository, manifest, image.content)


def test_a_file_system_without_direct_reads_is_an_image_error_or_works(tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self"):
        skip_without("proc", "there is no /proc")
    with pytest.raises(ImageError, match=r"direct I/O|is empty"):
        open_source("/proc/self/status", is_direct=True)


# -- block devices ---------------------------------------------------------------------------------------------------


def test_a_block_device_reports_size_and_sector(tmp_path: Path, make_loop: Callable[[Path], str]) -> None:
    requires_root()
    source = open_source(make_loop(save(make_mixed_image(3 * MIB + 512), tmp_path)))
    assert isinstance(source, BlockDeviceSource)
    assert source.size_bytes == 3 * MIB + 512
    assert source.sector_bytes in (512, 4096)
    assert source.find_change() is None
    source.close()


@pytest.mark.parametrize("size_bytes", [2 * MIB, 2 * MIB + 512, 3 * MIB + 2560])
def test_a_block_device_is_read_directly(tmp_path: Path, make_loop: Callable[[Path], str], size_bytes: int) -> None:
    image = make_incompressible_image(size_bytes, seed=4)
    source = open_source(make_loop(save(image, tmp_path)), is_direct=True)
    repository = make_repository()
    manifest = back_up(repository, source, "vm1")
    source.close()
    assert_restores(repository, manifest, image.content)


@pytest.mark.parametrize("is_direct", [False, True])
def test_what_did_not_go_through_the_page_cache_of_a_device_is_read(
    tmp_path: Path, make_loop: Callable[[Path], str], *, is_direct: bool
) -> None:
    """As a mounted file system or a running guest writes: the cache keeps what another program has read before."""
    image = make_incompressible_image(2 * MIB, seed=4)
    device = make_loop(path := save(image, tmp_path))
    with open(device, "rb") as user:
        assert user.read() == image.content
        image.content[MIB : MIB + 4 * KIB] = bytes(4 * KIB)
        path.write_bytes(image.content)
        user.seek(0)
        assert user.read() != image.content
        source = open_source(device, is_direct=is_direct)
        repository = make_repository()
        manifest = back_up(repository, source, "vm1")
        source.close()
        assert_restores(repository, manifest, image.content)


# -- changes while it is read ----------------------------------------------------------------------------------------


class Meddling:
    """A source whose image is changed by `meddle` once the first bytes were read."""

    is_sequential = False

    def __init__(self, inner: ImageSource, meddle: Callable[[], None]) -> None:
        self._inner, self._meddle = inner, meddle
        self._is_done = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        got = self._inner.read_into(offset, buffer)
        if not self._is_done:
            self._is_done = True
            self._meddle()
        return got


def meddled(path: Path, meddle: Callable[[], None]) -> Meddling:
    return Meddling(open_source(str(path)), meddle)


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more" * 1000)


@pytest.mark.parametrize("meddle", [touch_later, append], ids=["written to", "grown"])
def test_a_change_during_the_run_commits_nothing(tmp_path: Path, meddle: Callable[[Path], None]) -> None:
    path = save(make_incompressible_image(6 * MIB, seed=5), tmp_path)
    repository = make_repository()
    with pytest.raises(SourceChanged, match=r"while it was read"):
        back_up(repository, meddled(path, lambda: meddle(path)), "vm1", BackupOptions(workers=1))
    assert repository.list_snapshots() == []
    again = back_up(repository, open_source(str(path)), "vm1")
    assert again.statistics.new_bytes <= 8 * KIB, "what landed is not used again"


def test_a_change_may_be_accepted_and_is_marked(tmp_path: Path) -> None:
    image = make_incompressible_image(6 * MIB, seed=5)
    path = save(image, tmp_path)
    repository = make_repository()
    source = meddled(path, lambda: touch_later(path))
    manifest = back_up(repository, source, "vm1", BackupOptions(workers=1, allow_live=True))
    assert manifest.is_live
    assert_restores(repository, manifest, image.content)
    assert not back_up(repository, open_source(str(path)), "vm1", BackupOptions(allow_live=True)).is_live


def test_a_new_size_during_the_run_is_warned_of_where_changes_are_accepted(tmp_path: Path) -> None:
    path = save(make_incompressible_image(6 * MIB, seed=5), tmp_path)
    repository, warnings = make_repository(), Warnings()
    source = meddled(path, lambda: append(path))
    manifest = back_up(repository, source, "vm1", BackupOptions(workers=1, allow_live=True), progress=warnings)
    assert manifest.is_live
    assert manifest.size_bytes == 6 * MIB
    assert warnings.messages == [
        f"{path}: changed its size while it was read, from 6291456 to 6295456 bytes; the snapshot has the size from before"
    ]


def test_a_file_has_a_new_size_once_it_was_resized(tmp_path: Path) -> None:
    path = save(make_incompressible_image(4 * MIB, seed=5), tmp_path)
    source = open_source(str(path))
    for new_bytes, found in ((3 * MIB, 3 * MIB), (5 * MIB, 5 * MIB), (4 * MIB, None)):
        os.truncate(path, new_bytes)
        assert source.find_new_size() == found
    source.close()


def test_a_device_has_a_new_size_once_it_was_resized(tmp_path: Path) -> None:
    path = save(make_incompressible_image(4 * MIB, seed=5), tmp_path)
    with loop_device(path) as device:
        source = open_source(device)
        assert source.find_new_size() is None
        os.truncate(path, 5 * MIB)
        subprocess.run(["losetup", "--set-capacity", device], check=True)
        assert source.find_new_size() == 5 * MIB
        source.close()


@pytest.mark.parametrize("allow_live", [False, True])
def test_an_image_cut_short_during_the_run_commits_nothing(tmp_path: Path, allow_live: bool) -> None:
    path = save(make_incompressible_image(12 * MIB, seed=5), tmp_path)
    repository = make_repository()
    source = meddled(path, lambda: os.truncate(path, 3 * MIB))
    with pytest.raises(SourceChanged):
        back_up(repository, source, "vm1", BackupOptions(workers=1, allow_live=allow_live))
    assert repository.list_snapshots() == []


# -- streams ---------------------------------------------------------------------------------------------------------


def test_an_empty_stream_is_refused(tmp_path: Path) -> None:
    with open("/dev/null", "rb") as nothing, pytest.raises(UnsupportedImage, match=r"the stream is empty"):
        back_up(make_repository(), StreamSource(nothing.fileno()), "vm1")


@pytest.mark.parametrize("size_bytes", [1, 4096, 2 * MIB, 2 * MIB + 1, 6 * MIB])
def test_a_stream_may_end_anywhere(tmp_path: Path, size_bytes: int) -> None:
    image = make_mixed_image(size_bytes, seed=6)
    repository = make_repository()
    with open(save(image, tmp_path), "rb") as file:
        manifest = back_up(repository, StreamSource(file.fileno()), "vm1")
    assert manifest.size_bytes == size_bytes
    assert_restores(repository, manifest, image.content)


def test_a_folder_as_stream_is_an_image_error(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert stat.S_ISDIR(os.fstat(descriptor).st_mode)
    with pytest.raises(ImageError, match=r"cannot be read at byte 0: Is a directory"):
        back_up(make_repository(), StreamSource(descriptor), "vm1")
    os.close(descriptor)
