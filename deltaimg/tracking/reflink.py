# SPDX-License-Identifier: Apache-2.0
"""Change tracking by clones: the clone that a backup read stays beside the image, and the next one compares where its own lies.

    .<image file>.deltaimg-<key>-<snapshot id>

The key stands for the repository and the image's name in it. A clone is given its name before its snapshot is committed, and
the one before it is removed afterwards: after a crash at any moment there is a clone of the newest snapshot, and perhaps
another, which the next backup removes. It costs the room of what is written to the image until then.

What is kept is sealed: an attribute has its inode and its time of change, so that a clone that was written to, or that was
copied there, is not used.

Invariant  a clone is compared only under the id of the snapshot that was read from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b

from deltaimg.format.manifest import Manifest
from deltaimg.freeze.methods import REFLINK
from deltaimg.tracking.fiemap import find_differences, read_file_map
from deltaimg.tracking.interface import ChangeClaim
from deltaimg.tracking.kept_file import KeptFile

_NAME = ".{file}.deltaimg-{key}-{snapshot}"
_PATTERN = r"\.{file}\.deltaimg-{key}-[0-9a-f]{{16}}"
_SEAL = "user.deltaimg.seal"
_MODE = 0o400


class ReflinkTracker:
    """Compares the clone that is read with the one that was kept of the base, and keeps it in turn."""

    method = REFLINK

    def __init__(self, image_path: str, clone_path: str, key: str) -> None:
        """Args: image_path: of the image file. clone_path: of its present clone. key: of `make_key`."""
        self._clone_path = clone_path
        self._clones = KeptClones(image_path, key)

    def find_changes(self, base: Manifest) -> ChangeClaim:
        """Return where the image's clone does not share its content with the one of `base`."""
        try:
            kept = os.open(self._clones.name(base.id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            others = "; the kept one is of another snapshot" if self._clones.find() else ""
            return ChangeClaim(None, f"no clone was kept of snapshot {base.label}{others}")
        except OSError as error:
            return _surprise(base, f"cannot be opened: {os.strerror(error.errno or 0)}")
        try:
            if os.fstat(kept).st_size != base.size_bytes or not is_sealed(kept):
                return _surprise(base, "was written to, or is a copy")
            return self._compare(kept, base)
        except OSError as error:
            return _surprise(base, f"cannot be compared: {os.strerror(error.errno or 0)}")
        finally:
            os.close(kept)

    def open_image(self, base: Manifest) -> KeptFile | None:
        """Return the clone that was kept of `base`, None if there is none; as `KeepsImages` has it."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(OSError):
            return KeptFile(os.open(self._clones.name(base.id), flags))
        return None

    def _compare(self, kept: int, base: Manifest) -> ChangeClaim:
        with _opened(self._clone_path, os.O_RDONLY) as present:
            before, new, after = read_file_map(kept), read_file_map(present), read_file_map(kept)
        if not before.is_same(after):
            return _surprise(base, "was moved by the file system meanwhile")
        return ChangeClaim(find_differences(before, new))

    def keep(self, snapshot: str) -> str | None:
        """Give the present clone its name, under which a snapshot that is about to be committed finds it."""
        try:
            os.chmod(self._clone_path, _MODE)
            seal(self._clone_path)
            with _opened(self._clones.folder, os.O_RDONLY | os.O_DIRECTORY) as folder:
                with _opened(self._clone_path, os.O_RDONLY) as clone:
                    os.fsync(clone)
                # Only with a folder's descriptor does Python follow the link that the path of a nameless file is.
                os.link(self._clone_path, self._clones.name(snapshot), src_dir_fd=folder, follow_symlinks=True)
                os.fsync(folder)
        except OSError as error:
            return (
                f"the clone cannot be kept, so that the next backup reads everything: {os.strerror(error.errno or 0)}"
            )
        return None

    def settle(self, snapshot: str) -> None:
        """Remove all other clones, now that the snapshot is committed."""
        self._clones.remove(except_for=snapshot)


class KeptClones:
    """The clones of one image file for one image of one repository."""

    def __init__(self, image_path: str, key: str) -> None:
        self.folder, self._file = os.path.split(os.path.realpath(image_path))
        self._key = key

    def name(self, snapshot: str) -> str:
        """Return the path of the clone that a snapshot was read from."""
        return os.path.join(self.folder, _NAME.format(file=self._file, key=self._key, snapshot=snapshot))

    def find(self) -> list[str]:
        """Return the paths of those that are there; none where the folder cannot be read."""
        pattern = re.compile(_PATTERN.format(file=re.escape(self._file), key=self._key), re.DOTALL)
        with suppress(OSError):
            return [os.path.join(self.folder, name) for name in os.listdir(self.folder) if pattern.fullmatch(name)]
        return []

    def remove(self, *, except_for: str | None = None) -> list[str]:
        """Remove them, all but that of one snapshot; return which."""
        removed = []
        for path in self.find():
            if except_for is None or path != self.name(except_for):
                with suppress(OSError):
                    os.unlink(path)
                    removed.append(path)
        return removed


def make_key(repository_id: str, image: str) -> str:
    """Return what stands for an image of a repository in the names of its clones."""
    return blake2b(f"{repository_id}\0{image}".encode(errors="surrogatepass"), digest_size=8).hexdigest()


def seal(path: str) -> None:
    """Note in a file what it would not have after it is written to or copied; raises OSError."""
    os.setxattr(path, _SEAL, _describe(os.stat(path)))


def is_sealed(descriptor: int) -> bool:
    """Return whether a file is as it was when it was sealed."""
    try:
        return os.getxattr(descriptor, _SEAL) == _describe(os.fstat(descriptor))
    except OSError:
        return False


def _describe(found: os.stat_result) -> bytes:
    return f"1 {found.st_ino} {found.st_size} {found.st_mtime_ns}".encode()


def _surprise(base: Manifest, problem: str) -> ChangeClaim:
    return ChangeClaim(None, f"the clone that was kept of snapshot {base.label} {problem}", is_surprising=True)


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
