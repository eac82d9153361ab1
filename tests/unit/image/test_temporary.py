# SPDX-License-Identifier: Apache-2.0
"""Files that get their name once they are whole: nothing is left of a process that was killed, on any file system."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.image.temporary import TemporaryFile

_KILLED_WHILE_WRITING = """
import os, signal, sys
from deltaimg.image.temporary import TemporaryFile
if sys.argv[2] == "named":
    TemporaryFile._open_unnamed = lambda *_: -1
file = TemporaryFile(sys.argv[1], 0o600)
os.write(file.descriptor, b"half")
if sys.argv[2] == "replacing":
    file._rename = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    file.replace()
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_writer(path: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED_WHILE_WRITING, str(path), how], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


@pytest.fixture(params=["disk", "tmpfs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "tmpfs":
        make_tmpfs: Callable[[int], Path] = request.getfixturevalue("make_tmpfs")
        return make_tmpfs(1 << 20)
    return tmp_path


def test_nothing_is_left_of_a_killed_process(folder: Path) -> None:
    kill_writer(folder / "image.raw", "unnamed")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("how", ["named", "replacing"])
def test_what_a_killed_process_left_is_removed_by_the_next_run_to_the_same_place(folder: Path, how: str) -> None:
    (folder / "image.raw").write_bytes(b"old")
    kill_writer(folder / "image.raw", how)
    assert len(os.listdir(folder)) == 2
    TemporaryFile(str(folder / "other.raw"), 0o600).close()
    assert len(os.listdir(folder)) == 2, "a run to another place removes nothing"
    TemporaryFile(str(folder / "image.raw"), 0o600).close()
    assert os.listdir(folder) == ["image.raw"]
    assert (folder / "image.raw").read_bytes() == b"old"


def test_what_a_living_process_writes_is_not_taken_for_a_leftover(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TemporaryFile, "_open_unnamed", lambda *_: -1)
    first = TemporaryFile(str(folder / "image.raw"), 0o600)
    os.write(first.descriptor, b"first")
    second = TemporaryFile(str(folder / "image.raw"), 0o600)
    assert len(os.listdir(folder)) == 2
    second.close()
    first.publish()
    first.close()
    assert os.listdir(folder) == ["image.raw"]
    assert (folder / "image.raw").read_bytes() == b"first"


def test_files_of_another_host_or_of_similar_names_are_left_alone(folder: Path) -> None:
    kept = {"image.raw.00000000-12345678.partial", "image.raw.partial", "image.raw.bak.partial"}
    for name in kept:
        (folder / name).touch()
    TemporaryFile(str(folder / "image.raw"), 0o600).close()
    assert set(os.listdir(folder)) == kept


@pytest.mark.parametrize("is_named", [False, True])
def test_a_name_that_is_taken_is_not_overwritten(folder: Path, is_named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_named:
        monkeypatch.setattr(TemporaryFile, "_open_unnamed", lambda *_: -1)
    file = TemporaryFile(str(folder / "image.raw"), 0o600)
    (folder / "image.raw").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        file.publish()
    file.close()
    assert os.listdir(folder) == ["image.raw"]
    assert (folder / "image.raw").read_bytes() == b"precious"


def test_it_is_closed_once(folder: Path) -> None:
    """The descriptor was closed twice, and the second time it could have been anybody's."""
    file = TemporaryFile(str(folder / "image.raw"), 0o600)
    file.close()
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
    file.close()
    for each in others:
        os.fstat(each)
        os.close(each)
