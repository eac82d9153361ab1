# SPDX-License-Identifier: Apache-2.0
"""A small repository on disk with an object of every kind, and every way in which one of them can come to harm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from deltaimg.engine.repair.run import RepairReport
from deltaimg.engine.restore.verify import verify
from deltaimg.engine.retention.annotate import set_pin
from deltaimg.format.deletion import Deletion
from deltaimg.repo.deletions import put_deletion
from deltaimg.repo.index import load_index
from deltaimg.repo.repository import Repository
from deltaimg.repo.snapshots import load_snapshots
from deltaimg.store.file_port import FilePort
from deltaimg.store.interface import always
from deltaimg.store.local import LocalStore
from tests.support.clock import FixedClock
from tests.support.flips import flip_file
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.locks import claim_of
from tests.support.repositories import assert_same_bytes, back_up_image, make_repository

KINDS = ("packs", "index", "signatures", "maps", "snapshots", "annotations", "deletions", "verified", "locks")


@dataclass(frozen=True, slots=True)
class Original:
    """A repository in a folder, and the content of its snapshots by id; and a folder with another repository, made alike."""

    folder: Path
    other: Path
    content: dict[str, bytes]
    image: SyntheticImage


def _build(folder: Path, seed: int) -> tuple[dict[str, bytes], SyntheticImage]:
    repository = make_repository(LocalStore(str(folder)))
    image, clock, content = make_mixed_image(150_000, seed), FixedClock(), {}
    for _ in range(2):
        manifest = back_up_image(repository, image, clock=clock, workers=1)
        content[manifest.id] = bytes(image.content)
        edit_at_random(image)
        clock.advance(days=1)
    for number, ref in enumerate(repository.list_snapshots()):
        set_pin(repository, ref, f"reason {number}", clock=clock)
    verify(repository, repository.list_snapshots(), workers=1, clock=clock)
    for number in (1, 2):
        put_deletion(repository, Deletion(id=f"{number:016x}", created="x", packs=(f"{number:064x}",)), always)
    for name in ("vm1", "vm2"):
        repository.objects.store.put(claim_of(name), [b"not a lock"])
    return content, image


@cache
def make_original() -> Original:
    """Return a repository of two pinned snapshots; both lists of pending deletions name packs that are gone."""
    folder = Path(mkdtemp(prefix="deltaimg-test-"))
    content, image = _build(folder / "repo", 1)
    _build(folder / "other", 2)
    return Original(folder / "repo", folder / "other", content, image)


class UnsyncedPort(FilePort):
    """Does not wait for a disk: nothing here is about power cuts."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_folder(self, path: str) -> None:
        pass


def open_folder(folder: Path) -> Repository:
    return Repository.open(LocalStore(str(folder), UnsyncedPort()))


def files_of(folder: Path, kind: str) -> list[Path]:
    """Return the objects of a kind, the largest first among those named by digest, the newest otherwise."""
    if kind == "verified":
        return [folder / kind]
    found = [path for path in (folder / kind).rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: (path.stat().st_size if kind == "packs" else 0, path.name), reverse=True)


# -- ways to come to harm ----------------------------------------------------------------------------------------------

Harm = Callable[[Path, str], None]
"""Called with a repository's folder and a kind of object."""
HARMS: dict[str, Harm] = {}


def harm(act: Harm) -> Harm:
    HARMS[act.__name__] = act
    return act


@harm
def truncated(folder: Path, kind: str) -> None:
    path = files_of(folder, kind)[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@harm
def flipped(folder: Path, kind: str) -> None:
    flip_file(files_of(folder, kind)[0])


@harm
def emptied(folder: Path, kind: str) -> None:
    files_of(folder, kind)[0].write_bytes(b"")


@harm
def grown(folder: Path, kind: str) -> None:
    with files_of(folder, kind)[0].open("ab") as file:
        file.write(bytes(5000))


@harm
def missing(folder: Path, kind: str) -> None:
    files_of(folder, kind)[0].unlink()


@harm
def all_missing(folder: Path, kind: str) -> None:
    for path in files_of(folder, kind):
        path.unlink()


@harm
def replaced_by_sibling(folder: Path, kind: str) -> None:
    first, *rest = files_of(folder, kind)
    shutil.copyfile(rest[-1] if rest else folder / "config", first)


@harm
def replaced_by_foreign(folder: Path, kind: str) -> None:
    shutil.copyfile(files_of(make_original().other, kind)[0], files_of(folder, kind)[0])


@harm
def swapped(folder: Path, kind: str) -> None:
    first, *rest = files_of(folder, kind)
    last = rest[-1] if rest else folder / "config"
    first.rename(folder / "swap")
    shutil.copyfile(last, first)
    if rest:
        (folder / "swap").rename(last)
    else:
        (folder / "swap").unlink()


@harm
def linked_to_sibling(folder: Path, kind: str) -> None:
    """One file under two names: whoever writes to it in place would harm both."""
    first, *rest = files_of(folder, kind)
    first.unlink()
    os.link(rest[-1] if rest else folder / "config", first)


@harm
def moved_behind_a_link(folder: Path, kind: str) -> None:
    path = files_of(folder, kind)[0]
    path.rename(folder / ".moved")
    path.symlink_to(folder / ".moved")


@harm
def dangling_link(folder: Path, kind: str) -> None:
    path = files_of(folder, kind)[0]
    path.unlink()
    path.symlink_to(folder / "nowhere")


@harm
def link_to_itself(folder: Path, kind: str) -> None:
    path = files_of(folder, kind)[0]
    path.unlink()
    path.symlink_to(path)


@harm
def replaced_by_a_folder(folder: Path, kind: str) -> None:
    path = files_of(folder, kind)[0]
    path.unlink()
    path.mkdir()


@harm
def renamed_in_capitals(folder: Path, kind: str) -> None:
    path = files_of(folder, kind)[0]
    path.rename(path.with_name(path.name.upper()))


@harm
def doubled_in_capitals(folder: Path, kind: str) -> None:
    path = files_of(folder, kind)[0]
    shutil.copyfile(path, path.with_name(path.name.upper() + "A"))


@harm
def beside_those_of_another_repository(folder: Path, kind: str) -> None:
    for path in files_of(make_original().other, kind):
        target = folder / path.relative_to(make_original().other)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copyfile(path, target)


@harm
def with_a_loop_of_links(folder: Path, kind: str) -> None:
    if kind != "verified":
        (folder / kind / "loop").symlink_to(folder / kind)
        (folder / kind / ("ab" * 32)).symlink_to(folder)


def harmed(tmp_path: Path, how: str, kind: str) -> Repository:
    """Return a copy of the original that came to harm."""
    folder = tmp_path / "repo"
    shutil.copytree(make_original().folder, folder)
    HARMS[how](folder, kind)
    return open_folder(folder)


# -- what must be true then --------------------------------------------------------------------------------------------


def describe_deeds(report: RepairReport) -> dict[str, object]:
    """Return all that a report says, but for how long it took and whether it was a dry run."""
    names = set(RepairReport.__slots__) - {"is_dry_run", "duration_s"}
    return {name: getattr(report, name) for name in sorted(names)}


def assert_has_all(repository: Repository) -> None:
    """All snapshots are listed, with all that was said of them, and every one gives back its bytes."""
    from deltaimg.engine.content.snapshot import SnapshotContent

    original = make_original()
    expected = list(load_snapshots(open_folder(original.folder)))
    found = {each.ref.id: each for each in load_snapshots(repository)}
    for each in expected:
        assert found[each.ref.id] == each
        content = SnapshotContent(repository, each.manifest, load_index(repository))  # type: ignore[union-attr]
        wanted = original.content[each.ref.id]
        assert_same_bytes(content.make_reader().read(0, len(wanted)), wanted)
