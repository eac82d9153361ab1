# SPDX-License-Identifier: Apache-2.0
"""`backup --track`: the clone of the last backup says what changed since, and whatever happens to it costs a scan at most."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deltaimg.api.backup import backup
from deltaimg.engine.restore.run import restore
from deltaimg.errors import FreezeFailed, UsageError
from deltaimg.format.manifest import Manifest
from deltaimg.model import KIB, MIB
from deltaimg.options.backup import BackupOptions
from deltaimg.repo.repository import Repository
from deltaimg.tracking.reflink import KeptClones, make_key
from tests.support.components import loop_file_system
from tests.support.repositories import Warnings, make_repository

SIZES = {"xfs": 320 * MIB, "btrfs": 256 * MIB}
SIZE_BYTES = 12 * MIB
PAGE = 4 * KIB


class Host:
    """An image on a file system with reflinks, and a repository."""

    def __init__(self, folder: Path) -> None:
        self.repository: Repository = make_repository()
        self.folder, self.image = folder, folder / "vm1.raw"
        self.image.write_bytes(os.urandom(SIZE_BYTES))
        self.random, self.progress = random.Random(1), Warnings()

    def write(self, count: int = 8) -> None:
        with open(self.image, "r+b") as file:
            for page in self.random.sample(range(SIZE_BYTES // PAGE), count):
                file.seek(page * PAGE)
                file.write(self.random.randbytes(PAGE))

    def back_up(self, track: str = "auto", name: str = "vm1", **options: object) -> Manifest:
        self.progress.messages.clear()
        made = BackupOptions(track=track, workers=2, audit_blocks=50, **options)  # type: ignore[arg-type]
        return backup(self.repository, str(self.image), name, made, progress=self.progress)

    def assert_restores(self, manifest: Manifest, tmp_path: Path) -> None:
        restore(self.repository, manifest, str(tmp_path / "restored"))
        assert (tmp_path / "restored").read_bytes() == self.image.read_bytes()
        (tmp_path / "restored").unlink()

    def kept(self, name: str = "vm1") -> list[Path]:
        found = KeptClones(str(self.image), make_key(self.repository.config.repository_id, name)).find()
        return [Path(path) for path in found]

    def name_of(self, manifest: Manifest) -> Path:
        key = make_key(self.repository.config.repository_id, manifest.image)
        return Path(KeptClones(str(self.image), key).name(manifest.id))


@pytest.fixture(params=SIZES)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    with loop_file_system(request.param, tmp_path / "mnt", SIZES[request.param]) as made:
        yield Host(made.folder)


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Host]:
    with loop_file_system("xfs", tmp_path / "mnt", SIZES["xfs"]) as made:
        yield Host(made.folder)


def method(manifest: Manifest) -> str:
    assert manifest.tracking is not None
    return manifest.tracking.method


def reason(manifest: Manifest) -> str:
    assert manifest.tracking is not None
    return manifest.tracking.reason


def test_a_backup_reads_what_changed(host: Host, tmp_path: Path) -> None:
    first = host.back_up()
    assert (method(first), reason(first)) == ("scan", "there is no earlier snapshot")
    for track in ("auto", "reflink"):
        host.write(8)
        manifest = host.back_up(track)
        assert method(manifest) == "reflink", reason(manifest)
        assert manifest.freeze is not None
        assert manifest.freeze.method == "reflink"
        assert manifest.statistics.changed_bytes == 8 * PAGE
        assert manifest.statistics.read_bytes <= 8 * (PAGE + 32 * KIB)
        assert host.kept() == [host.name_of(manifest)]
        assert host.progress.messages == []
        host.assert_restores(manifest, tmp_path)
    unchanged = host.back_up()
    assert (unchanged.statistics.read_bytes, unchanged.statistics.changed_bytes) == (0, 0)
    assert os.stat(host.kept()[0]).st_mode & 0o777 == 0o400


def test_a_scan_that_is_asked_for_keeps_a_clone(xfs: Host) -> None:
    xfs.back_up()
    scanned = xfs.back_up("scan")
    assert (method(scanned), reason(scanned)) == ("scan", "asked for")
    assert scanned.statistics.read_bytes == SIZE_BYTES
    assert method(xfs.back_up()) == "reflink"


def test_images_and_repositories_keep_their_own_clones(xfs: Host, tmp_path: Path) -> None:
    xfs.back_up()
    xfs.back_up(name="other")
    xfs.write()
    for name in ("vm1", "other"):
        manifest = xfs.back_up(name=name)
        assert method(manifest) == "reflink", reason(manifest)
        xfs.assert_restores(manifest, tmp_path)
    assert len(xfs.kept()) == len(xfs.kept("other")) == 1


def test_a_backup_without_tracking_removes_the_clone(xfs: Host) -> None:
    """It would be of no use: the newest snapshot is another one."""
    xfs.back_up()
    assert len(xfs.kept()) == 1
    xfs.back_up("none")
    assert xfs.kept() == []
    again = xfs.back_up()
    assert "no clone was kept of snapshot" in reason(again)
    assert xfs.progress.messages == []


# -- what may happen to a clone ----------------------------------------------------------------------------------------


def delete(host: Host) -> None:
    host.kept()[0].unlink()


def overwrite(host: Host) -> None:
    host.kept()[0].chmod(0o600)
    with open(host.kept()[0], "r+b") as file:
        file.write(b"x")


def cut(host: Host) -> None:
    os.truncate(host.kept()[0], 5)


def replace_by_a_later_clone(host: Host) -> None:
    """With all attributes: what is stored would be old wherever the image changed before that."""
    kept = host.kept()[0]
    seal = os.getxattr(kept, "user.deltaimg.seal")
    kept.unlink()
    subprocess.run(["cp", "-a", "--reflink=always", host.image, kept], check=True)
    os.setxattr(kept, "user.deltaimg.seal", seal)


def replace_by_a_link(host: Host) -> None:
    kept = host.kept()[0]
    kept.unlink()
    kept.symlink_to(host.image)


def replace_by_a_folder(host: Host) -> None:
    kept = host.kept()[0]
    kept.unlink()
    kept.mkdir()


def rename_to_another_snapshot(host: Host) -> None:
    kept = host.kept()[0]
    kept.rename(kept.with_name(kept.name[:-16] + "f" * 16))


@pytest.mark.parametrize(
    "harm",
    [
        delete,
        overwrite,
        cut,
        replace_by_a_later_clone,
        replace_by_a_link,
        replace_by_a_folder,
        rename_to_another_snapshot,
    ],
)
def test_whatever_happened_to_a_clone_costs_a_scan(xfs: Host, tmp_path: Path, harm: Callable[[Host], None]) -> None:
    xfs.back_up()
    xfs.write()
    harm(xfs)
    manifest = xfs.back_up()
    assert method(manifest) == "scan"
    assert bool(xfs.progress.messages) == (harm not in (delete, rename_to_another_snapshot))
    xfs.assert_restores(manifest, tmp_path)
    xfs.write()
    assert method(xfs.back_up()) == "reflink"
    assert len([path for path in xfs.kept() if path.is_file()]) == 1


def test_an_image_that_was_replaced_moved_or_resized_is_stored_right(host: Host, tmp_path: Path) -> None:
    host.back_up()

    def replace() -> None:
        host.image.unlink()
        host.image.write_bytes(os.urandom(SIZE_BYTES))

    def restore_from_a_copy() -> None:
        shutil.copyfile(host.image, host.folder / "copy.raw")
        os.replace(host.folder / "copy.raw", host.image)

    def shrink() -> None:
        os.truncate(host.image, SIZE_BYTES - 5 * PAGE - 100)

    def grow() -> None:
        host.write()
        with open(host.image, "ab") as file:
            file.write(os.urandom(MIB + 77))

    for act in (replace, restore_from_a_copy, shrink, grow):
        act()
        manifest = host.back_up()
        assert method(manifest) == "reflink", reason(manifest)
        host.assert_restores(manifest, tmp_path)


@pytest.mark.parametrize("moment", ["write_map", "commit_snapshot"])
@pytest.mark.parametrize("is_done", [False, True])
def test_a_run_that_dies_leaves_a_clone_of_the_newest_snapshot(
    xfs: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, is_done: bool
) -> None:
    """Before or after each of the last two steps."""
    xfs.back_up()
    xfs.write()
    from deltaimg.engine.backup import run

    step = getattr(run, moment)

    def die(*arguments: object, **named: object) -> None:
        if is_done:
            step(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, moment, die)
    with pytest.raises(KeyboardInterrupt):
        xfs.back_up()
    monkeypatch.undo()
    newest = xfs.repository.list_snapshots("vm1")[-1]
    assert newest.id in {path.name[-16:] for path in xfs.kept()}
    xfs.write()
    manifest = xfs.back_up()
    assert method(manifest) == "reflink"
    xfs.assert_restores(manifest, tmp_path)
    assert xfs.kept() == [xfs.name_of(manifest)]


def test_a_clone_that_cannot_be_kept_costs_a_warning(xfs: Host) -> None:
    xfs.image = xfs.image.rename(xfs.folder / ("v" * 230))
    manifest = xfs.back_up()
    assert [message for message in xfs.progress.messages if "the clone cannot be kept" in message]
    assert method(manifest) == "scan"
    assert [each.name for each in xfs.folder.iterdir()] == [xfs.image.name]


# -- where there are no clones -----------------------------------------------------------------------------------------


def test_auto_reads_everything_where_nothing_can_be_tracked(tmp_path: Path) -> None:
    image = tmp_path / "vm1.raw"
    image.write_bytes(os.urandom(MIB))
    with loop_file_system("ext4", tmp_path / "mnt", 32 * MIB) as made:
        shutil.copy(image, made.folder)
        repository = make_repository()
        backup(repository, str(made.folder / "vm1.raw"), "vm1")
        for track in ("auto", "scan"):
            manifest = backup(repository, str(made.folder / "vm1.raw"), "vm1", BackupOptions(track=track))
            assert method(manifest) == "scan"
            assert "the image was not cloned: reflink: cannot be cloned" in reason(manifest)
        with pytest.raises(FreezeFailed, match="no reflinks"):
            backup(repository, str(made.folder / "vm1.raw"), "vm1", BackupOptions(track="reflink"))


def test_options_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    image = tmp_path / "vm1.raw"
    image.write_bytes(os.urandom(MIB))
    repository = make_repository()
    for options in (
        {"track": "reflink", "freeze": "btrfs"}, {"track": "reflink", "hints": "x"}, {"track": "auto", "hints": "x"},
        {"track": "bitmaps"},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            backup(repository, str(image), "vm1", BackupOptions(**options))  # type: ignore[arg-type]
    assert repository.list_snapshots() == []
