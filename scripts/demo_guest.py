# SPDX-License-Identifier: Apache-2.0
"""A real ext4 image, changed and backed up five times, then restored and compared.

The image is changed through a mounted file system where that is allowed, else through debugfs. A copy of the image is kept
at each backup, so that a restored snapshot can be compared with it, byte for byte. All is done in one folder, the cache
included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE_MIB = 256
FILES_BYTES = 56 << 20
ROWS = 200_000
SEED = 20261123


class Guest:
    """An ext4 image and the ways to change the files in it."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "vm1.raw"
        self._mount = folder / "mnt"
        self._mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(IMAGE_MIB << 20)
        run("mkfs.ext4", "-q", "-F", "-L", "demo", self.image)
        self.can_mount = self._try_mount()

    @contextmanager
    def files(self, tree: Path) -> Iterator[Path]:
        """Yield a folder whose content becomes the image's: the mounted image, or `tree`, copied in by debugfs."""
        if not self.can_mount:
            yield tree
            self._copy_in(tree)
            return
        run("mount", "-o", "loop", self.image, self._mount)
        try:
            yield self._mount
        finally:
            run("umount", self._mount)

    def _try_mount(self) -> bool:
        if os.geteuid() != 0:
            return False
        done = subprocess.run(["mount", "-o", "loop", self.image, self._mount], capture_output=True, check=False)
        if done.returncode == 0:
            run("umount", self._mount)
        return done.returncode == 0

    def _copy_in(self, tree: Path) -> None:
        """Write what changed in `tree` since the last call; debugfs replaces a file by removing it first."""
        marker = tree.parent / "copied"
        since = marker.stat().st_mtime_ns if marker.exists() else 0
        commands = []
        for path in sorted(tree.rglob("*")):
            name = f"/{path.relative_to(tree)}"
            if path.is_dir():
                commands.append(f'mkdir "{name}"')
            elif path.stat().st_mtime_ns > since or path.stat().st_ctime_ns > since:
                commands += [f'rm "{name}"', f'write "{path}" "{name}"']
        subprocess.run(
            ["debugfs", "-w", "-f", "-", self.image],
            input="\n".join(commands),
            text=True,
            capture_output=True,
            check=True,
        )
        marker.touch()


def run(*command: object, quiet: bool = True) -> str:
    """Run a program; on failure show what it said and end."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(str(part) for part in command)}\n{done.stdout}{done.stderr}")
    if not quiet:
        print(done.stdout, end="")
    return done.stdout


def deltaimg(*arguments: object, quiet: bool = False) -> str:
    """Run deltaimg as a user would, showing the command."""
    if not quiet:
        print(f"$ {shlex.join(['deltaimg', *(str(part) for part in arguments)])}", flush=True)
    return run(sys.executable, "-m", "deltaimg", *arguments, quiet=quiet)


def base(root: Path, chance: random.Random) -> None:
    """A server's first day: real files of this machine, a data file, a log."""
    budget = FILES_BYTES
    (root / "usr").mkdir()
    for number, path in enumerate(sorted(Path("/usr/lib").rglob("*"))):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 8 << 20:
            budget -= path.stat().st_size
            if budget < 0:
                break
            shutil.copyfile(path, root / "usr" / f"{number:05d}-{path.name}")
    (root / "var").mkdir()
    rows = b"".join(f"{i:08d},{chance.random():.12f},pending\n".encode() for i in range(ROWS))
    (root / "var" / "table.db").write_bytes(rows)
    (root / "var" / "syslog").write_text(
        "".join(f"Nov 23 00:{i // 60 % 60:02d} host app[{i}]: started\n" for i in range(40_000))
    )


def ordinary(root: Path, chance: random.Random) -> None:
    """Rows change in place, the log grows."""
    with (root / "var" / "table.db").open("r+b") as table:
        for _ in range(3000):
            table.seek(chance.randrange(ROWS) * 32)
            table.write(f"{chance.randrange(10**8):08d},".encode())
    with (root / "var" / "syslog").open("a") as log:
        log.writelines(
            f"Nov 24 01:{i % 60:02d} host app[{i}]: request {chance.random():.6f} done\n" for i in range(20_000)
        )


def nothing(root: Path, chance: random.Random) -> None:
    """The guest was not used."""


def moved(root: Path, chance: random.Random) -> None:
    """A third of the files are written again elsewhere: the same content in other places."""
    (root / "archive").mkdir()
    files = sorted((root / "usr").iterdir())
    for path in chance.sample(files, len(files) // 3):
        shutil.copyfile(path, root / "archive" / path.name)


def new_data(root: Path, chance: random.Random) -> None:
    """An upload: half of it does not compress."""
    (root / "var" / "upload.bin").write_bytes(chance.randbytes(8 << 20) + b"report line\n" * 700_000)


CHANGES: tuple[tuple[str, Callable[[Path, random.Random], None]], ...] = (
    ("first backup", base),
    ("after an ordinary day", ordinary),
    ("nothing changed", nothing),
    ("files were copied", moved),
    ("new data arrived", new_data),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--keep", metavar="FOLDER", type=Path, help="work there, and leave images and repository behind"
    )
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="deltaimg-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DELTAIMG_CACHE_DIR"] = str(folder / "cache")
    try:
        show_backups(folder)
    finally:
        if options.keep is None:
            shutil.rmtree(folder)
            print(f"removed {folder}")


def show_backups(folder: Path) -> None:
    """Change the image and back it up, again and again; restore one snapshot, and compare."""
    chance = random.Random(SEED)
    print(f"making an ext4 image of {IMAGE_MIB} MiB in {folder}")
    guest = Guest(folder)
    how = "through a mounted file system" if guest.can_mount else "by debugfs, as mounting is not allowed here"
    print(f"its files are changed {how}\n")
    tree = folder / "tree"
    tree.mkdir()
    repo = folder / "repo"
    deltaimg("init", "-r", repo)
    sizes = []
    for number, (title, change) in enumerate(CHANGES):
        print(f"\n-- {title}", flush=True)
        with guest.files(tree) as root:
            change(root, chance)
        run("cp", "--sparse=always", guest.image, copy_of(folder, number))
        deltaimg("backup", guest.image, "--image", "vm1", "--tag", f"backup-{number}", "-r", repo)
        sizes.append(copy_of(folder, number).stat().st_blocks * 512)

    print("\n-- what is in the repository")
    deltaimg("snapshots", "vm1", "-r", repo)
    print("\n-- restore the second backup")
    restored = folder / "restored.raw"
    deltaimg("restore", "vm1@latest~3", restored, "-r", repo)
    run("cmp", restored, copy_of(folder, 1))
    allocated = restored.stat().st_blocks * 512
    print(
        f"equal to the image as it was, byte for byte; {allocated >> 20} MiB allocated of {IMAGE_MIB} MiB, "
        f"as the image had {sizes[1] >> 20}"
    )
    print("\n-- verify all snapshots")
    deltaimg("verify", "-r", repo)

    stored = json.loads(deltaimg("stats", "--json", "-r", repo, quiet=True))["stored_bytes"]
    packed = sum(
        int(run("sh", "-c", f"gzip -1 < {shlex.quote(str(copy_of(folder, number)))} | wc -c"))
        for number in range(len(CHANGES))
    )
    print(
        f"\n{len(CHANGES)} backups: {stored >> 20} MiB in the repository; "
        f"`gzip -1` of each image would be {packed >> 20} MiB."
    )


def copy_of(folder: Path, number: int) -> Path:
    """Return where the image is kept as it was at a backup."""
    return folder / f"backup-{number}.raw"


if __name__ == "__main__":
    main()
