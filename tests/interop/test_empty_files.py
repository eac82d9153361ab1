# SPDX-License-Identifier: Apache-2.0
"""Empty files, old, new or both: in all formats, made and read by us and by the other programs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from deltaimg.api.files import delta_file, patch_file, sign_file
from deltaimg.errors import IntegrityError
from deltaimg.options.files import DeltaOptions, PatchOptions, SignatureOptions
from tests.support.components import requires_program

PAIRS = [
    (b"", b"new content"),
    (b"old content", b""),
    (b"", b""),
    (b"", bytes(10_000)),
    (bytes(10_000), b""),
    (b"", bytes(5000) + b"x" * 5000),
]


@dataclass
class Files:
    """The files of a trial, in one folder."""

    folder: Path
    format_name: str

    def __getattr__(self, name: str) -> Path:
        return self.folder / name

    def make(self) -> None:
        """Make a signature, a delta, and the new file again."""
        if self.format_name != "vcdiff":
            sign_file(str(self.old), str(self.first), options=SignatureOptions(format=self.format_name))
        else:
            self.first.symlink_to("old")
        delta_file(str(self.first), str(self.new), str(self.delta), options=DeltaOptions(format=self.format_name))
        self.patch("delta")

    def patch(self, delta: str) -> bytes:
        """Return what a delta makes of the old file."""
        patch_file(
            str(self.old),
            str(self.folder / delta),
            str(self.made),
            options=PatchOptions(format=self.format_name, is_forced=True),
        )
        return self.made.read_bytes()


@pytest.fixture(params=["deltaimg", "rdiff", "vcdiff"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return Files(tmp_path, request.param)


def run(program: str, *arguments: object) -> None:
    subprocess.run([requires_program(program), *map(str, arguments)], check=True, timeout=60)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "")
def test_an_empty_file_is_a_file(files: Files, pair: tuple[bytes, bytes]) -> None:
    files.old.write_bytes(pair[0])
    files.new.write_bytes(pair[1])
    files.make()
    assert files.made.read_bytes() == pair[1]
    if files.format_name == "rdiff":
        run("rdiff", "signature", files.old, files.theirs)
        assert files.theirs.read_bytes() == files.first.read_bytes()
        run("rdiff", "patch", files.old, files.delta, files.they_made)
        run("rdiff", "delta", files.first, files.new, files.their_delta)
    elif files.format_name == "vcdiff":
        run("xdelta3", "-q", "-d", "-s", files.old, files.delta, files.they_made)
        run("xdelta3", "-q", "-e", "-s", files.old, files.new, files.their_delta)
    else:
        return
    assert files.they_made.read_bytes() == pair[1]
    assert files.patch("their_delta") == pair[1]


@pytest.mark.parametrize("pair", PAIRS[:3], ids=["old", "new", "both"])
def test_what_is_made_of_an_empty_file_and_then_cut_is_refused_wherever_it_is_cut(
    files: Files, pair: tuple[bytes, bytes]
) -> None:
    """A VCDIFF file that was cut before its first window gave an empty file, and exit code 0."""
    files.old.write_bytes(pair[0])
    files.new.write_bytes(pair[1])
    files.make()
    whole, signature = files.delta.read_bytes(), files.first.read_bytes()
    for end in range(len(whole)):
        files.cut.write_bytes(whole[:end])
        with pytest.raises(IntegrityError):
            files.patch("cut")
    for end in range(len(signature) if files.format_name != "vcdiff" else 0):
        if files.format_name == "rdiff" and end == 12:
            continue  # the signature of an empty file is no more than a head
        files.cut.write_bytes(signature[:end])
        with pytest.raises(IntegrityError):
            delta_file(str(files.cut), str(files.new), str(files.never), options=DeltaOptions(format=files.format_name))
    assert not files.never.exists()


def test_a_delta_of_xdelta3_that_is_cut_before_its_first_window_is_refused(tmp_path: Path) -> None:
    files = Files(tmp_path, "vcdiff")
    files.old.write_bytes(b"old content")
    files.new.write_bytes(b"new content")
    for options in ((), ("-n",), ("-A=",), ("-A",)):
        run("xdelta3", "-q", "-f", "-e", *options, "-s", files.old, files.new, files.delta)
        whole = files.delta.read_bytes()
        for end in range(len(whole)):
            files.cut.write_bytes(whole[:end])
            with pytest.raises(IntegrityError):
                files.patch("cut")
