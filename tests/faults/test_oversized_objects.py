# SPDX-License-Identifier: Apache-2.0
"""Objects of terabytes, and things that are no files, under the names of objects: one error, no memory, no time."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Backups
from tests.support.locks import claim_of
from tests.support.program import Run, environment, succeed

SIZE_BYTES = 1 << 41
MEMORY_BYTES = 3 << 29
"""Of addresses: numpy and its like map more than half of this before anything is done."""

PATIENT = "import time; time.sleep = lambda seconds: None; from deltaimg.cli import main; main()"
"""The program in a world in which no time passes while it sleeps: what it watches for 90 seconds stands still all the same."""

READERS: dict[str, list[tuple[object, ...]]] = {
    "config": [("snapshots",), ("check",), ("repair",)],
    "verified": [("verify",), ("check",)],
    "index": [("restore", "vm1", "TARGET"), ("check",), ("prune",), ("repair",)],
    "maps": [("restore", "vm1", "TARGET"), ("check",), ("prune",), ("show", "vm1"), ("repair",)],
    "signatures": [("restore", "vm1", "TARGET"), ("check",), ("verify",), ("repair",)],
    "packs": [("restore", "vm1", "TARGET"), ("check", "--read-packs"), ("verify",), ("parity", "repair"), ("repair",)],
    "snapshots": [("snapshots",), ("check",), ("prune",), ("repair",)],
    "parity": [("parity", "show", "--check"), ("parity", "repair"), ("repair",)],
    "locks": [("unlock",), ("check",), ("backup", "IMAGE", "--image", "vm1")],
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Backups:
    folder = tmp_path_factory.mktemp("oversized")
    image, repo, content = folder / "vm1.raw", folder / "repo", os.urandom(300_000)
    image.write_bytes(content)
    succeed("init", "-r", repo)
    succeed("backup", image, "--image", "vm1", "--no-cache", repo=repo)
    succeed("parity", "add", repo=repo)
    succeed("verify", repo=repo)
    (repo / claim_of("vm1")).touch()
    return Backups(repo, image, content, content)


def run_small(arguments: list[object], repo: Path) -> Run:
    """Run the program with little memory; no traceback, no internal error, no end for want of memory."""
    done = subprocess.run(
        [sys.executable, "-c", PATIENT, *map(str, arguments)],
        capture_output=True,
        env=environment(repo),
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
    )
    run = Run(done.returncode, done.stdout, done.stderr.decode())
    assert "Traceback" not in run.err, run.err
    assert "internal error" not in run.err, run.err
    assert run.code != 73, run.err
    return run


@pytest.mark.parametrize("harm", ["sparse", "pipe", "folder", "link"])
@pytest.mark.parametrize("folder", READERS)
def test_every_reader_says_what_is_wrong_and_reads_none_of_it(
    template: Backups, tmp_path: Path, folder: str, harm: str
) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(template.repo, repo)
    place = repo / folder
    victim = place if place.is_file() else next(path for path in sorted(place.rglob("*")) if path.is_file())
    if harm == "sparse":
        os.truncate(victim, SIZE_BYTES)
    else:
        victim.unlink()
        {"pipe": os.mkfifo, "folder": os.mkdir, "link": lambda path: os.symlink("/dev/zero", path)}[harm](victim)
    places = {"IMAGE": template.image, "TARGET": tmp_path / "target"}
    name = str(victim.relative_to(repo))
    for verb in READERS[folder]:
        run = run_small([places.get(str(each), each) for each in verb], repo)
        is_named = name in run.err + run.text or name.rpartition("/")[2][:16] in run.err + run.text
        assert is_named or run.code == 0, (verb, run.err)
