# SPDX-License-Identifier: Apache-2.0
"""A guest's image, mounted, with commands run inside its root.

Always  the image is at rest when the context ends: file systems synced, processes of the guest ended, all unmounted.
        The caller runs in a mount and process namespace of its own (`guests.py`), so that even a killed build
        leaves no mount, no loop device and no database server behind.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from guest.machine import CommandError, run

_ENVIRONMENT = [
    "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "HOME=/root", "TZ=UTC",
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Guest:
    """A mounted root; paths of the guest are given from its own `/`."""

    root: Path

    def run(self, *command: str, text_in: str | None = None) -> str:
        """Run a command inside the guest as root and return its output."""
        return run([*self.inside(), *command], text_in=text_in)

    def shell(self, script: str) -> str:
        """Run a shell script inside the guest; the first error ends it."""
        return self.run("sh", "-euc", script)

    def inside(self) -> list[str]:
        """The command prefix that enters the guest."""
        return ["chroot", str(self.root), "env", "-i", *_ENVIRONMENT]

    def path(self, inner: str) -> Path:
        """Where a path of the guest lies on the machine."""
        return self.root / inner.lstrip("/")

    def write(self, inner: str, content: str | bytes, *, append: bool = False) -> None:
        """Write or extend a file of the guest; folders are made."""
        path = self.path(inner)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if append else "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)

    def trim(self) -> None:
        """Give freed blocks back to the sparse image, as a guest's nightly fstrim does."""
        run(["fstrim", str(self.root)])


@contextmanager
def mounted(image: Path, root: Path) -> Iterator[Guest]:
    """Mount the bare file system of an image; nothing runs inside yet."""
    root.mkdir(parents=True, exist_ok=True)
    run(["mount", "-o", "loop", str(image), str(root)])
    try:
        yield Guest(root)
    finally:
        run(["sync", "-f", str(root)])
        _unmount(root)
        root.rmdir()


@contextmanager
def alive(guest: Guest) -> Iterator[Guest]:
    """Make the guest fit to run programs: /proc, /dev, /run, the machine's resolver, and no services by themselves."""
    root = guest.root
    mounts = [
        ["-t", "proc", "proc", f"{root}/proc"],
        ["--bind", "/dev", f"{root}/dev"],
        ["-t", "tmpfs", "tmpfs", f"{root}/dev/shm"],
        ["-t", "tmpfs", "tmpfs", f"{root}/run"],
    ]
    guest.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
    guest.path("/usr/sbin/policy-rc.d").chmod(0o755)
    for name in ("resolv.conf", "hosts"):
        guest.path(f"/etc/{name}").touch()
        mounts.append(["--bind", f"/etc/{name}", f"{root}/etc/{name}"])
    done: list[Path] = []
    try:
        for mount in mounts:
            run(["mount", *mount])
            done.append(Path(mount[-1]))
        yield guest
    finally:
        _end_processes(root)
        for place in reversed(done):
            _unmount(place)


def _end_processes(root: Path) -> None:
    """End whatever still runs inside the guest: first asked, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(50):
            inside = [pid for pid in _processes() if _root_of(pid) == str(root)]
            if not inside:
                return
            for pid in inside:
                _send(pid, number)
            time.sleep(0.2)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _root_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/root")
    except OSError:
        return ""


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _unmount(place: Path) -> None:
    """Unmount, patiently: a file system may be busy for a moment after its last process ended."""
    for attempt in range(50):
        try:
            run(["umount", str(place)])
            return
        except CommandError:
            if attempt == 49:
                raise
            time.sleep(0.2)
