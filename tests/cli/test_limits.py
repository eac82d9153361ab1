# SPDX-License-Identifier: Apache-2.0
"""Limits of memory, threads, open files and the size of files: fewer threads, or one error that says what to do."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest

from deltaimg.errors import OutOfResources
from tests.cli.conftest import Backups
from tests.support.components import requires_program, requires_root
from tests.support.program import Run, command, environment, succeed

MIB = 1 << 20


def limited(limits: dict[int, int], *arguments: object, repo: Path) -> Run:
    """Run deltaimg under limits of the system, by the names that `resource` has for them."""

    def set_limits() -> None:
        for kind, value in limits.items():
            resource.setrlimit(kind, (value, value))

    done = subprocess.run(
        command(*arguments), capture_output=True, env=environment(repo), preexec_fn=set_limits, check=False, timeout=120
    )
    run = Run(done.returncode, done.stdout, done.stderr.decode())
    assert run.code in (0, OutOfResources.exit_code), (run.code, run.err)
    for sign in ("Traceback", "internal error", "OpenBLAS", "Segmentation"):
        assert sign not in run.err
    return run


@pytest.mark.parametrize("mib", [60, 90, 120, 160, 190])
def test_too_little_memory_is_one_error_that_says_what_helps(backups: Backups, tmp_path: Path, mib: int) -> None:
    """A library ended the process with a riddle, and a buffer that could not be allocated was called a defect."""
    image = tmp_path / "large.raw"
    image.write_bytes(os.urandom(24 * MIB))
    for arguments in (("backup", image, "--image", "large"), ("restore", "vm1", tmp_path / "out"), ("verify",)):
        run = limited({resource.RLIMIT_AS: mib * MIB}, *arguments, repo=backups.repo)
        if run.code:
            assert "there is not enough memory" in run.err, mib
            assert "raise the limit (ulimit -v" in run.err
        if run.code and arguments[0] == "backup" and mib >= 160:
            assert ": there is not enough memory" in run.err
            assert "--match-memory 16M --delta-memory 16M --threads 1" in run.err
    assert not list((backups.repo / "locks").glob("*/*"))
    assert mib > 120 or run.code == OutOfResources.exit_code


def test_few_open_files_are_enough(backups: Backups, tmp_path: Path) -> None:
    for arguments in (("backup", backups.image, "-i", "a"), ("restore", "vm1", tmp_path / "out"), ("verify",)):
        assert limited({resource.RLIMIT_NOFILE: 10}, *arguments, repo=backups.repo).code == 0


def test_a_limit_on_the_size_of_files_is_named(backups: Backups, tmp_path: Path) -> None:
    limits = {resource.RLIMIT_FSIZE: 100_000}
    for arguments in (("backup", backups.image, "-i", "a", "--delta", "none"), ("restore", "vm1", tmp_path / "out")):
        run = limited(limits, *arguments, repo=backups.repo)
        if run.code:
            assert "ulimit -f" in run.err
    assert run.code == OutOfResources.exit_code
    assert not (tmp_path / "out").exists()


def test_a_limit_of_threads_is_lived_with_or_named(backups: Backups, tmp_path: Path) -> None:
    """The thread of the heartbeat cannot be done without: others would consider the run dead."""
    requires_root()
    requires_program("setpriv")
    for folder in (backups.repo, *(path for path in backups.repo.rglob("*") if path.is_dir())):
        folder.chmod(0o777)
    (tmp_path / "outs").mkdir(mode=0o777)
    (tmp_path / "outs").chmod(0o777)
    user = ("--reuid=23456", "--regid=23456", "--clear-groups")
    reads_all = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    for threads in (1, 2):
        prefix = ("setpriv", *user, *reads_all, "prlimit", f"--nproc={threads}")
        for arguments in (("backup", backups.image, "-i", "a"), ("restore", "vm1", tmp_path / "outs" / str(threads))):
            done = subprocess.run(
                [*prefix, *command(*arguments)],
                capture_output=True,
                text=True,
                env=environment(backups.repo),
                check=False,
            )
            assert "internal error" not in done.stderr
            if threads == 1 and arguments[0] == "backup":
                assert done.returncode == OutOfResources.exit_code, done.stderr
                assert "ulimit -u" in done.stderr
                assert not list((backups.repo / "locks").glob("*/*"))
            else:
                assert done.returncode == 0, done.stderr
    succeed("verify", "a", "-q", repo=backups.repo)


def test_threads_can_be_limited_before_and_after_the_command(backups: Backups) -> None:
    found = succeed("backup", backups.image, "-i", "a", "-v", "--threads", "1", repo=backups.repo)
    assert "by 1 thread\n" in found.text
    assert "by 1 thread\n" in succeed("--threads=1", "-v", "backup", backups.image, "-i", "a", repo=backups.repo).text
