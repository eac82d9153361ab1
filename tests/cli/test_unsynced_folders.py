# SPDX-License-Identifier: Apache-2.0
"""File systems that refuse to sync a folder: WSL, some of FUSE, some network mounts."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

from tests.support.components import requires_program
from tests.support.program import Run, command, environment

_SHIM = r"""
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int fsync(int descriptor) {
    struct stat found;
    if (!fstat(descriptor, &found) && S_ISDIR(found.st_mode)) { errno = atoi(getenv("FOLDER_ERRNO")); return -1; }
    return syscall(SYS_fsync, descriptor);
}
"""
WARNING = "its file system cannot sync folders"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload that fails each fsync of a folder with FOLDER_ERRNO."""
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(_SHIM)
    made = folder / "shim.so"
    subprocess.run([requires_program("gcc"), "-shared", "-fPIC", "-o", made, folder / "shim.c"], check=True)
    return made


def run(shim: Path, number: int, *arguments: object) -> Run:
    variables = environment(None) | {"LD_PRELOAD": str(shim), "FOLDER_ERRNO": str(number)}
    done = subprocess.run(command(*arguments), capture_output=True, env=variables, check=False, timeout=60)
    return Run(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS])
def test_a_folder_that_cannot_be_synced_is_warned_of_once(shim: Path, tmp_path: Path, number: int) -> None:
    repo, image, target = tmp_path / "repo", tmp_path / "image", tmp_path / "target"
    content = bytes(range(256)) * 1000
    image.write_bytes(content)
    for verb in (
        ("init", "-r", repo),
        ("backup", image, "--image", "vm1", "-r", repo),
        ("forget", "vm1", "--keep-last", "1", "-r", repo),
        ("prune", "-r", repo),
        ("restore", "vm1", target, "--sync", "-r", repo),
        ("restore", "vm1", target, "--force", "-r", repo),
    ):
        found = run(shim, number, *verb)
        assert found.code == 0, found.err
        assert found.err.count(WARNING) == 1, (verb, found.err)
    assert target.read_bytes() == content


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, 54), (errno.ENOSPC, 53)])
def test_a_real_failure_still_is_one(shim: Path, tmp_path: Path, number: int, code: int) -> None:
    repo, image = tmp_path / "repo", tmp_path / "image"
    image.write_bytes(b"x" * 100_000)
    assert run(shim, number, "init", "-r", repo).code == code
    subprocess.run(command("init", "-r", tmp_path / "good"), check=True, capture_output=True, env=environment(None))
    backup = ("backup", image, "--image", "vm1", "-r", tmp_path / "good")
    assert run(shim, number, *backup).code == code
    subprocess.run(command(*backup), check=True, capture_output=True, env=environment(None))
    restored = run(shim, number, "restore", "vm1", tmp_path / "target", "--sync", "-r", tmp_path / "good")
    assert restored.code in (10, 14)
