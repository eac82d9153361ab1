# SPDX-License-Identifier: Apache-2.0
"""Where signatures, deltas and patched files go to, and cannot: full disks, limits, pipes, and the device one reads from."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.api.files import delta_file, sign_file
from deltaimg.errors import OutOfResources, OutputError
from deltaimg.options.files import DeltaOptions, SignatureOptions
from tests.support.components import small_tmpfs
from tests.support.images import make_mixed_image
from tests.support.program import command, environment, fail, succeed

FORMATS = ("deltaimg", "rdiff", "vcdiff")
OLD_BYTES = 1 << 20


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old"
    path.write_bytes(os.urandom(OLD_BYTES))
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    path = tmp_path / "new"
    path.write_bytes(os.urandom(OLD_BYTES))
    return path


def make_delta(old: Path, new: Path, format_name: str) -> Path:
    """Return a delta, which has all of `new` in it."""
    delta, first = old.with_name("delta"), old
    if format_name != "vcdiff":
        first = old.with_name("signature")
        sign_file(str(old), str(first), options=SignatureOptions(format=format_name))
    delta_file(str(first), str(new), str(delta), options=DeltaOptions(format=format_name))
    return delta


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_full_disk_is_said_to_be_full_and_keeps_nothing(
    tmp_path: Path, old: Path, new: Path, format_name: str
) -> None:
    delta = make_delta(old, new, format_name)
    first = old if format_name == "vcdiff" else old.with_name("signature")
    with small_tmpfs(tmp_path / "disk", 1 << 18) as disk:
        for arguments in (("patch", old, delta), ("delta", first, new)):
            said = fail(14, *arguments, disk / "made", "--format", format_name)
            assert "no space left" in said
            assert not list(disk.iterdir())


def test_a_limit_of_the_size_of_files_is_named_and_keeps_nothing(tmp_path: Path, old: Path, new: Path) -> None:
    delta, made = make_delta(old, new, "deltaimg"), tmp_path / "made"
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 500 && exec "$@"', "sh", *command("patch", old, delta, made)],
        capture_output=True, text=True, env=environment(None), check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == OutOfResources.exit_code, done.stderr
    assert f"{made}: no file of 1048576 bytes can be made" in done.stderr
    assert "larger than is allowed" in done.stderr
    assert "ulimit -f" in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("made")]


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_standard_output_that_takes_no_more_is_an_error(old: Path, new: Path, format_name: str) -> None:
    delta = make_delta(old, new, format_name)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("patch", "--format", format_name, old, delta, "-"),
            stdout=full, stderr=subprocess.PIPE, text=True, env=environment(None), check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == OutputError.exit_code, done.stderr
    assert "standard output: cannot be written: No space left on device" in done.stderr


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_delta_is_read_from_a_named_pipe(tmp_path: Path, old: Path, new: Path, format_name: str) -> None:
    content, pipe = make_delta(old, new, format_name).read_bytes(), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    succeed("patch", "--format", format_name, old, pipe, tmp_path / "made", "-q")
    writer.join()
    assert (tmp_path / "made").read_bytes() == new.read_bytes()


def test_no_device_is_written_to_while_it_is_read(tmp_path: Path, make_loop: Callable[[Path], str]) -> None:
    device_file, new = tmp_path / "device", tmp_path / "new"
    make_mixed_image(OLD_BYTES, seed=3).save(device_file)
    before = device_file.read_bytes()
    new.write_bytes(before[1 << 19 :] + before[: 1 << 19])
    delta = make_delta(device_file, new, "deltaimg")
    device, link = make_loop(device_file), tmp_path / "link"
    link.symlink_to(device)
    for arguments in (
        ("patch", device, delta), ("patch", link, delta), ("signature", device), ("delta", tmp_path / "signature", link),
        ("delta", "--format", "vcdiff", device, new),
    ):  # fmt: skip
        assert "which is read here" in fail(2, *arguments, device, "--force")
    assert device_file.read_bytes() == before
