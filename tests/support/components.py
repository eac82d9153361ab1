# SPDX-License-Identifier: Apache-2.0
"""Parts of the machine that not every machine has: root, loop devices, mounts. A test without them is skipped, and says why.

A skip whose reason begins with a component's name and a colon fails instead when DELTAIMG_REQUIRE lists that name:
`DELTAIMG_REQUIRE=root,loop,tmpfs` in CI, so that nothing is left out there unseen. See `tests/conftest.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

REQUIRE_VARIABLE = "DELTAIMG_REQUIRE"


def required_components() -> set[str]:
    """Return the components that must not be missing here."""
    return {name.strip() for name in os.environ.get(REQUIRE_VARIABLE, "").split(",") if name.strip()}


def skip_without(component: str, problem: str) -> None:
    """End the test: `component` is missing, for this reason."""
    pytest.skip(f"{component}: {problem}")


def requires_root() -> None:
    """Skip unless the tests run as root."""
    if os.geteuid() != 0:
        skip_without("root", "the tests do not run as root")


def requires_program(name: str) -> str:
    """Return the path of a program, or skip."""
    path = shutil.which(name)
    if path is None:
        skip_without(name, "is not installed")
    assert path is not None
    return path


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Be somebody whom file modes stop: root becomes user 65534 for a while, others stay who they are."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


@contextmanager
def small_tmpfs(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a tmpfs of `size_bytes` at `folder`, which is made."""
    requires_root()
    folder.mkdir(exist_ok=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "deltaimg-test", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        skip_without("tmpfs", f"cannot be mounted: {_explain(error)}")
    try:
        yield folder
    finally:
        _run("umount", "--lazy", str(folder))


@dataclass(frozen=True, slots=True)
class LoopFileSystem:
    """A file system in a file, mounted at `folder`."""

    folder: Path
    backing: Path

    def remount(self) -> None:
        """Write all out and forget every cached page of it, as a restart does."""
        _run("umount", str(self.folder))
        _run("mount", "-o", "loop", str(self.backing), str(self.folder))


@contextmanager
def loop_file_system(kind: str, folder: Path, size_bytes: int) -> Iterator[LoopFileSystem]:
    """Mount a new file system of `size_bytes` at `folder`, from a file beside it.

    Args:
        kind: ext4; xfs, which takes 300 MiB at least; btrfs, 128 MiB.
    """
    requires_root()
    make = {
        "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0"),
        "xfs": ("mkfs.xfs", "-q", "-f"),
        "btrfs": ("mkfs.btrfs", "-q", "-f"),
    }[kind]
    if shutil.which(make[0]) is None:
        skip_without(kind, f"there is no {make[0]}")
    made = LoopFileSystem(folder, folder.with_suffix(f".{kind}"))
    with open(made.backing, "wb") as file:
        file.truncate(size_bytes)
    folder.mkdir(exist_ok=True)
    try:
        _run(*make, str(made.backing))
        _run("mount", "-o", "loop", str(made.backing), str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        skip_without("loop", f"an image cannot be mounted: {_explain(error)}")
    try:
        yield made
    finally:
        _run("umount", str(folder))


@contextmanager
def small_ext4(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a new ext4 of `size_bytes` at `folder`, from a file beside it."""
    with loop_file_system("ext4", folder, size_bytes) as made:
        yield made.folder


@contextmanager
def loop_device(backing: Path, *, sector_bytes: int = 512) -> Iterator[str]:
    """Attach `backing` to a loop device and yield its path."""
    requires_root()
    if shutil.which("losetup") is None:
        skip_without("loop", "there is no losetup")
    try:
        device = _run("losetup", "--find", "--show", "--sector-size", str(sector_bytes), str(backing)).strip()
    except (OSError, subprocess.CalledProcessError) as error:
        skip_without("loop", f"cannot be set up: {_explain(error)}")
    try:
        yield device
    finally:
        _run("losetup", "--detach", device)


def run_or_skip(component: str, *command: str) -> str:
    """Run a command that sets `component` up and return what it prints; skip where it fails."""
    try:
        return _run(*command)
    except (OSError, subprocess.CalledProcessError) as error:
        skip_without(component, f"cannot be set up: {_explain(error)}")
        raise


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def _explain(error: OSError | subprocess.CalledProcessError) -> str:
    return (getattr(error, "stderr", "") or str(error)).strip().replace("\n", " ")
