# SPDX-License-Identifier: Apache-2.0
"""`deltaimg mount` as a process, on a real FUSE."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.support.components import skip_without
from tests.support.program import command, environment

_PATIENCE_S = 60.0


def requires_fuse() -> None:
    """Skip unless a file system can be mounted here."""
    if find_spec("mfusepy") is None:
        skip_without("mfusepy", "is not installed")
    if shutil.which("fusermount3") is None and shutil.which("fusermount") is None:
        skip_without("fuse3", "is not installed")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        skip_without("fuse", "/dev/fuse cannot be opened")


@dataclass
class Mounted:
    """A process that has mounted `folder`."""

    process: subprocess.Popen[str]
    folder: Path
    printed: str
    """The first line that it printed."""

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Unmount, or send a signal; return exit code and what was said on the standard error."""
        if number is None:
            subprocess.run(["umount", str(self.folder)], check=True, capture_output=True)
        else:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=_PATIENCE_S)
        return self.process.returncode, said


@contextmanager
def mounted(repo: Path, folder: Path, *arguments: object, library: str | None = None) -> Iterator[Mounted]:
    """Mount the snapshots of a repository; nothing of it is left at the end.

    Args:
        library: the path of libfuse; without it, mfusepy takes what it finds.
    """
    requires_fuse()
    folder.mkdir()
    process = subprocess.Popen(
        command("mount", folder, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(repo) | ({} if library is None else {"FUSE_LIBRARY_PATH": library}),
    )
    assert process.stdout is not None
    try:
        printed = process.stdout.readline()
        assert printed, process.communicate(timeout=_PATIENCE_S)[1]
        yield Mounted(process, folder, printed)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def wait_until_there(path: Path) -> None:
    """Wait for a file that is to appear; raises AssertionError."""
    deadline = time.monotonic() + _PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.2)
