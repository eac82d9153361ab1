# SPDX-License-Identifier: Apache-2.0
"""`deltaimg mirror`: here, and over a real OpenSSH server."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from deltaimg.errors import FarSideUnusable, ImageError, SourceShrank, TargetExists, UsageError
from tests.support.components import loop_device
from tests.support.images import SyntheticImage, make_mixed_image
from tests.support.program import deltaimg, fail, read_tree, succeed
from tests.support.sshd import HOST, SshServer

ROOT = Path(__file__).parents[2]
REMOTE = shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "deltaimg"])


@pytest.fixture
def image() -> SyntheticImage:
    return make_mixed_image(3_000_001)


def mirror(*arguments: object) -> dict[str, int]:
    return succeed("mirror", *arguments, "--json").json


def test_a_copy_is_made_and_kept_current(image: SyntheticImage, tmp_path: Path) -> None:
    source, copy = tmp_path / "image", tmp_path / "copy"
    image.save(source)
    assert mirror(source, copy)["mode"] == "new"
    image.write(500_000, b"some new bytes")
    image.save(source)
    assert "1 block would change" in succeed("mirror", source, copy, "--dry-run").text
    said = succeed("mirror", source, copy, "-v", "--verify", "--in-place").text
    assert "1 block changed" in said
    assert "in-place" in said
    assert copy.read_bytes() == source.read_bytes()
    assert "nothing to recover" in succeed("mirror", "--recover", copy).text


def test_bad_input_is_refused_and_changes_nothing(image: SyntheticImage, tmp_path: Path) -> None:
    source, copy = tmp_path / "image", tmp_path / "copy"
    image.save(source)
    (tmp_path / "other").write_bytes(b"of somebody")
    before = read_tree(tmp_path)
    for code, arguments, said in (
        (UsageError.exit_code, (source,), "needed"),
        (UsageError.exit_code, ("--recover", source, copy), "the copy alone"),
        (UsageError.exit_code, (source, copy, "--bwlimit", "fast"), "is no rate"),
        (TargetExists.exit_code, (source, tmp_path / "other"), "is no mirror"),
    ):
        assert said in fail(code, "mirror", *arguments)
    assert read_tree(tmp_path) == before


def test_names_of_copies_need_not_be_text(image: SyntheticImage, tmp_path: Path) -> None:
    """It was an internal error."""
    source, copy = tmp_path / os.fsdecode(b"image\xff"), tmp_path / os.fsdecode(b"copy\xfe\n")
    image.save(source)
    assert mirror(source, copy)["mode"] == "new"
    assert copy.read_bytes() == source.read_bytes()
    assert "nothing to recover" in succeed("mirror", "--recover", copy).text
    assert "is a directory" in fail(11, "mirror", source, tmp_path / os.fsdecode(b".copy\xfe\n.mirror"))


def test_an_image_is_not_mirrored_onto_itself(image: SyntheticImage, tmp_path: Path) -> None:
    """What a guest writes between the reading and the writing would be taken back."""
    source = tmp_path / "image"
    image.save(source)
    (tmp_path / "same").hardlink_to(source)
    for copy in (source, tmp_path / "." / "image", tmp_path / "same"):
        assert "is the image itself" in fail(2, "mirror", source, copy, "--force", "--allow-live")
    assert sorted(os.listdir(tmp_path)) == ["image", "same"]


def test_what_is_kept_under_another_name_of_a_copy_stays_as_it_is(image: SyntheticImage, tmp_path: Path) -> None:
    """`cp -al` of a folder of copies, as rsnapshot does: further names of the same files, not further files."""
    source, copy, kept = tmp_path / "image", tmp_path / "copy", tmp_path / "kept"
    image.save(source)
    mirror(source, copy)
    kept.hardlink_to(copy)
    before = kept.read_bytes()
    image.write(500_000, b"some new bytes")
    image.save(source)
    said = fail(TargetExists.exit_code, "mirror", source, copy, "--in-place", "--force")
    assert "has 2 names (hard links)" in said
    assert kept.read_bytes() == copy.read_bytes() == before
    copy.unlink()
    copy.write_bytes(before)
    mirror(source, copy, "--in-place")
    assert copy.read_bytes() == source.read_bytes()
    assert kept.read_bytes() == before


@pytest.mark.parametrize("left", [b"", b"x" * 30_000])
def test_an_image_of_which_nearly_nothing_is_left_does_not_empty_its_only_copy(
    image: SyntheticImage, tmp_path: Path, left: bytes
) -> None:
    source, copy = tmp_path / "image", tmp_path / "copy"
    image.save(source)
    mirror(source, copy)
    source.write_bytes(left)
    before = read_tree(tmp_path)
    assert "may be the wrong one" in fail(SourceShrank.exit_code, "mirror", source, copy)
    assert read_tree(tmp_path) == before
    mirror(source, copy, "--force")
    assert copy.read_bytes() == left
    source.write_bytes(b"x" * 31_000)
    mirror(source, copy)
    source.write_bytes(b"x" * 400)
    mirror(source, copy)
    assert copy.read_bytes() == b"x" * 400


# -- over ssh ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ssh_options(sshd: SshServer) -> tuple[object, ...]:
    return (
        "--remote-command",
        REMOTE,
        "--ssh",
        f"ssh -F {sshd.home}/.ssh/config -o UserKnownHostsFile={sshd.known_hosts}",
    )


def test_a_copy_on_another_host(
    image: SyntheticImage, tmp_path: Path, sshd: SshServer, ssh_options: tuple[object, ...]
) -> None:
    source, copy = tmp_path / "image", sshd.root / "a copy.img"
    copy.unlink(missing_ok=True)
    image.save(source)
    place = f"{HOST}:{copy}"
    assert mirror(source, place, *ssh_options)["mode"] == "new"
    assert copy.read_bytes() == source.read_bytes()
    image.write(500_000, os.urandom(100))
    image.save(source)
    done = mirror(source, place, *ssh_options)
    assert copy.read_bytes() == source.read_bytes()
    assert (done["changed_blocks"], done["copy_read_bytes"]) == (1, 0)
    # This host has kept what the copy holds, so that nothing is asked for.
    assert done["received_bytes"] < 500
    assert mirror(source, place, *ssh_options, "--verify", "--bwlimit", "1M")["verified_bytes"] == 3_000_001
    assert succeed("mirror", "--recover", place, *ssh_options, "--json").json == {"recovered": "nothing"}


def test_an_image_is_not_mirrored_onto_itself_by_a_name_of_this_host(
    image: SyntheticImage, tmp_path: Path, sshd: SshServer, ssh_options: tuple[object, ...]
) -> None:
    source = sshd.root / "image"
    image.save(source)
    for copy in (source, sshd.root / "." / "image"):
        said = fail(2, "mirror", source, f"{HOST}:{copy}", "--force", "--allow-live", *ssh_options)
        assert "is the image itself" in said
    with loop_device(source) as device:
        assert "lies on it" in fail(2, "mirror", device, f"{HOST}:{source}", "--force", "--allow-live", *ssh_options)
    assert not (sshd.root / ".image.mirror").exists()


def test_errors_of_another_host_are_its_own(
    image: SyntheticImage, tmp_path: Path, sshd: SshServer, ssh_options: tuple[object, ...]
) -> None:
    image.save(tmp_path / "image")
    place = f"{HOST}:{sshd.root}/none/copy.img"
    assert "No such file" in fail(ImageError.exit_code, "mirror", tmp_path / "image", place, *ssh_options)
    options = (*ssh_options[2:], "--remote-command", "no-such-program")
    run = deltaimg("mirror", tmp_path / "image", f"{HOST}:{sshd.root}/copy.img", *options)
    assert run.code == FarSideUnusable.exit_code
    assert "no-such-program" in run.err
    assert "--remote-command" in run.err
