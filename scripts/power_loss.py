# SPDX-License-Identifier: Apache-2.0
"""What `scripts/power-loss-guest` does outside of its guest: make the repositories, and check them after each power loss.

The log of dm-log-writes has every write to a device, in the order in which they were done, and says which of them were flushes
or forced to the medium (FUA). At each of these the device is laid out twice: with all that was written until then, and with
what was written since the last one kept only by chance, as the cache of a disk may do that loses its power just before.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from deltaimg.repo.repository import Repository
from deltaimg.store.local import LocalStore
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.world import Promises, World, assert_promises

SIZES = {"ext4": 48 << 20, "xfs": 300 << 20}
LOG_BYTES = 1 << 30
IMAGE_BYTES = 4_000_000
SCRATCH = "/dev/shm"
"""Where devices are laid out, many times: in memory."""
SNAPSHOTS = 4
KEPT = 2
VERBS = {
    "backup": "backup /images/vm1.raw --image vm1 --no-cache",
    "forget": f"forget vm1 --keep-last {KEPT}",
    "prune": "prune --max-unused 0",
}
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SUPER = struct.Struct("<QQQI")
ENTRY = struct.Struct("<QQQQ")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log: a write, a flush, or a mark that the guest set."""

    offset: int
    data: bytes
    flags: int
    mark: str


def main() -> None:
    step, folder = sys.argv[1], Path(sys.argv[2])
    prepare(folder) if step == "prepare" else replay(folder)


# -- before -----------------------------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """Make a file system of each kind with a repository of some snapshots, room for the logs, and the guest's script."""
    images = folder / "system" / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    image = make_mixed_image(IMAGE_BYTES, seed=1)
    for kind, size in SIZES.items():
        device = folder / f"{kind}.img"
        for path, length in ((device, size), (folder / f"{kind}.log", LOG_BYTES)):
            path.unlink(missing_ok=True)
            with open(path, "wb") as file:
                file.truncate(length)
        force = ("-F",) if kind == "ext4" else ("-f",)
        subprocess.run([f"mkfs.{kind}", "-q", *force, device], check=True)
        with mounted(device) as disk:
            image = make_mixed_image(IMAGE_BYTES, seed=1)
            world = World(LocalStore(str(disk / "repo")), {"vm1": image})
            world.clock.now = datetime(2026, 1, 1, tzinfo=UTC)  # before any clock that the guest may have
            world.init()
            for _ in range(SNAPSHOTS):
                change(world.images["vm1"])
                world.back_up()
            image = world.images["vm1"]
            keep(folder / kind, world.promises)
        copy_sparse(device, folder / f"{kind}.before")
    change(image)
    image.save(images / "vm1.raw")
    (images / "work.sh").write_text(orders())


def change(image: SyntheticImage) -> None:
    edit_at_random(image, 8)
    image.write_random(image.random.randrange(IMAGE_BYTES), 100_000)


def orders() -> str:
    """Return the script that the guest runs: every verb on each file system, with marks in the log around each."""
    lines = ["modprobe dm_log_writes", "mkdir -p /disk"]
    for number, kind in enumerate(SIZES):
        device, log = (f"/dev/vd{'bcde'[2 * number + each]}" for each in (0, 1))
        lines.append(f'dmsetup create log --table "0 $(blockdev --getsz {device}) log-writes {device} {log}"')
        lines.append("mount /dev/mapper/log /disk")
        for verb, arguments in VERBS.items():
            lines.append(f"echo {kind}: {verb}; dmsetup message log 0 mark {verb}-begins")
            lines.append(f"python3 -m deltaimg {arguments} -q -r /disk/repo; dmsetup message log 0 mark {verb}-ends")
        lines.append("umount /disk; dmsetup remove log")
    return "\n".join(lines) + "\n"


# -- after ------------------------------------------------------------------------------------------------------------


def replay(folder: Path) -> None:
    """Lay out, mount and check what every flush could leave; print the counts."""
    chance = random.Random(20261124)
    image = SyntheticImage(IMAGE_BYTES)
    image.content[:] = (folder / "system" / "images" / "vm1.raw").read_bytes()
    image.allocated[:] = b"\1" * len(image.allocated)
    for kind in SIZES:
        tried: dict[str, int] = dict.fromkeys(VERBS, 0)
        promises = load(folder / kind)
        log = list(read_log(folder / f"{kind}.log"))
        new = find_new(folder / f"{kind}.before", log, promises)
        promises.contents[new] = bytes(image.content)
        with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
            device, trial = Path(scratch) / "device", Path(scratch) / "trial"
            copy_sparse(folder / f"{kind}.before", device)
            verb, unflushed = "", []
            for entry in log:
                if entry.flags & MARK:
                    verb = entry.mark.partition("-")[0]
                    advance(promises, entry.mark, new)
                    continue
                unflushed.append(entry)
                if not entry.flags & (FLUSH | FUA):
                    continue
                if verb:
                    copy_sparse(device, trial)
                    apply(trial, [each for each in unflushed[:-1] if chance.random() < 0.5])
                    check_device(trial, promises, image, f"{kind}, {verb}, before flush {tried[verb]}")
                apply(device, unflushed)
                unflushed = []
                if verb:
                    copy_sparse(device, trial)
                    check_device(trial, promises, image, f"{kind}, {verb}, at flush {tried[verb]}")
                    tried[verb] += 2
        counts = ", ".join(f"{count} in {verb}" for verb, count in tried.items())
        print(
            f"{kind}: {sum(tried.values())} states mounted, checked, restored and backed up into ({counts})", flush=True
        )


def advance(promises: Promises, mark: str, new: str) -> None:
    """Take note of what a mark of the guest says is promised from now on."""
    if mark == "backup-ends":
        promises.committed |= {new}
    elif mark == "forget-begins":
        *_, last = [each for each in promises.contents if each != new]
        promises.committed = frozenset({new, last})


def check_device(device: Path, promises: Promises, image: SyntheticImage, where: str) -> None:
    """Mount a device; what is promised must be there, and the next backup must succeed."""
    try:
        with mounted(device) as disk:
            store = LocalStore(str(disk / "repo"))
            assert_promises(store, promises)
            for found in list(store.list("locks/")):
                store.delete(found.name)  # of the guest, which the next run would watch for 90 s before it removes them
            world = World(store, {"vm1": image}, replace(promises, contents=dict(promises.contents)))
            world.edit()
            world.back_up()
            world.prune()
            assert_promises(store, world.promises)
    except Exception as error:
        raise AssertionError(f"{where}: {error!r}") from error


def find_new(image: Path, log: list[Entry], promises: Promises) -> str:
    """Return the id of the snapshot that the guest made, seen at the end of the log."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        device = Path(scratch) / "device"
        copy_sparse(image, device)
        apply(device, log)
        with mounted(device) as disk:
            listed = {ref.id for ref in Repository.open(LocalStore(str(disk / "repo"))).list_snapshots()}
    assert len(listed) == KEPT, "forget has kept other snapshots than the policy says"
    (new,) = listed - promises.contents.keys()
    return new


def read_log(path: Path) -> Iterator[Entry]:
    """Yield the entries of a log of dm-log-writes, version 1."""
    with open(path, "rb") as file:
        magic, version, count, sector_bytes = SUPER.unpack(file.read(SUPER.size))
        assert (magic, version) == (MAGIC, 1), "no log of dm-log-writes"
        position = sector_bytes
        for _ in range(count):
            file.seek(position)
            head = file.read(sector_bytes)
            sector, sectors, flags, data_bytes = ENTRY.unpack_from(head)
            position += sector_bytes
            mark = head[ENTRY.size :][:data_bytes].decode() if flags & MARK else ""
            data = b"" if flags & (DISCARD | MARK) else file.read(sectors * sector_bytes)
            position += len(data)
            yield Entry(sector * sector_bytes, data, flags, mark)


def apply(device: Path, entries: list[Entry]) -> None:
    with open(device, "r+b") as file:
        for entry in entries:
            file.seek(entry.offset)
            file.write(entry.data)


def copy_sparse(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


@contextmanager
def mounted(device: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=device.parent, prefix="mounted-"))
    subprocess.run(["mount", "-o", "loop", device, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def keep(stem: Path, promises: Promises) -> None:
    """Write down what a repository holds: ids in the order of time, and a file of each content."""
    stem.with_suffix(".json").write_text(json.dumps(list(promises.contents)))
    for number, content in enumerate(promises.contents.values()):
        Path(f"{stem}-{number}.raw").write_bytes(content)


def load(stem: Path) -> Promises:
    ids = json.loads(stem.with_suffix(".json").read_text())
    contents = {each: Path(f"{stem}-{number}.raw").read_bytes() for number, each in enumerate(ids)}
    return Promises(contents, frozenset(ids), is_made=True)


if __name__ == "__main__":
    main()
