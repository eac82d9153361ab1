# SPDX-License-Identifier: Apache-2.0
"""signature, delta and patch: between any two files, with the rdiff program at either end, and from bad input."""

from __future__ import annotations

import io
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaimg.format.vcdiff import parse_vcdiff
from tests.support.components import requires_program
from tests.support.images import SyntheticImage, edit_at_random, make_mixed_image
from tests.support.program import deltaimg, fail, succeed

FORMATS = ("deltaimg", "rdiff")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """An image, and the same image after edits, insertions that move all that follows, and growth."""
    image: SyntheticImage = make_mixed_image(3_000_001, seed=7)
    old, new = tmp_path / "old.raw", tmp_path / "new.raw"
    image.save(old)
    edit_at_random(image)
    content = bytes(image.content)
    new.write_bytes(content[:700_000] + b"inserted" * 100 + content[700_000:] + random.Random(1).randbytes(20_000))
    return old, new


def make(folder: Path, old: Path, new: Path, *options: str) -> tuple[Path, Path]:
    """Return a signature of `old` and a delta from it to `new`."""
    signature, delta = folder / "sig", folder / "delta"
    succeed("signature", *options, old, signature, "-q")
    succeed("delta", *options, signature, new, delta, "-q")
    return signature, delta


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_patched_file_is_the_new_file(pair, tmp_path, format_name):
    old, new = pair
    signature, delta = make(tmp_path, old, new, "--format", format_name)
    said = succeed("patch", "--format", format_name, old, delta, tmp_path / "made", "--json").json
    assert (tmp_path / "made").read_bytes() == new.read_bytes()
    assert said["is_verified"] is (format_name == "deltaimg")
    assert said["image_bytes"] == new.stat().st_size
    assert delta.stat().st_size < new.stat().st_size / 3
    assert signature.stat().st_size < old.stat().st_size / 10


@pytest.mark.parametrize("format_name", FORMATS)
def test_everything_passes_through_streams(pair, format_name):
    old, new = pair
    options = ("--format", format_name)
    signature = succeed("signature", *options, "-", stdin=old.read_bytes()).out
    delta = succeed("delta", *options, "-", new, stdin=signature).out
    assert succeed("patch", *options, old, "-", "-", stdin=delta).out == new.read_bytes()
    sig = old.with_name("sig")
    sig.write_bytes(signature)
    delta = succeed("delta", *options, sig, "-", stdin=new.read_bytes()).out
    assert succeed("patch", *options, old, "-", "-", stdin=delta).out == new.read_bytes()


@pytest.mark.parametrize("format_name", FORMATS)
def test_holes_stay_holes(tmp_path, format_name):
    old, new, made = tmp_path / "old", tmp_path / "new", tmp_path / "made"
    for path, text in ((old, b"old"), (new, b"new")):
        with open(path, "wb") as file:
            file.truncate(1 << 28)
            file.seek(100 << 20)
            file.write(text * 20_000)
    _, delta = make(tmp_path, old, new, "--format", format_name)
    succeed("patch", "--format", format_name, old, delta, made, "-q")
    assert subprocess.run(["cmp", new, made], check=False).returncode == 0
    assert made.stat().st_blocks * 512 < 1 << 20
    # The program cannot say that much old content is zero but by copies, and a delta must not hold the zeros themselves.
    assert delta.stat().st_size < 100_000


EDGES: dict[str, tuple[bytes, bytes]] = {
    "nothing to something": (b"", b"x" * 10_000),
    "a byte to a byte": (b"a", b"b"),
    "equal": (os.urandom(70_000), b""),
    "shorter than a block": (b"abc" * 50, b"zabc" * 50),
    "all zero": (bytes(50_001), bytes(30_000)),
    "cut in a block": (b"0123456789" * 9999, b"0123456789" * 5003 + b"012"),
}


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("case", EDGES)
def test_edges(tmp_path, case, format_name):
    before, after = EDGES[case]
    after = after or before
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(before)
    new.write_bytes(after)
    _, delta = make(tmp_path, old, new, "--format", format_name)
    succeed("patch", "--format", format_name, old, delta, tmp_path / "made", "-q")
    assert (tmp_path / "made").read_bytes() == after


# -- the rdiff program -------------------------------------------------------------------------------------------------


def rdiff(*arguments: object) -> None:
    subprocess.run([requires_program("rdiff"), *map(os.fspath, arguments)], check=True, timeout=120)


@pytest.mark.parametrize("options", [(), ("-b", "512"), ("-b", "1000", "-S", "8"), ("-R", "rollsum")])
def test_we_read_what_rdiff_writes(pair, tmp_path, options):
    old, new = pair
    rdiff("-H", "blake2", *options, "signature", old, tmp_path / "sig")
    succeed("delta", "--format", "rdiff", tmp_path / "sig", new, tmp_path / "ours", "-q")
    rdiff("patch", old, tmp_path / "ours", tmp_path / "theirs.raw")
    assert (tmp_path / "theirs.raw").read_bytes() == new.read_bytes()
    rdiff("delta", tmp_path / "sig", new, tmp_path / "theirs")
    succeed("patch", "--format", "rdiff", old, tmp_path / "theirs", tmp_path / "ours.raw", "-q")
    assert (tmp_path / "ours.raw").read_bytes() == new.read_bytes()
    assert (tmp_path / "ours").stat().st_size <= (tmp_path / "theirs").stat().st_size


@pytest.mark.parametrize("block_bytes", ["256", "2K", "4K", "5000"])
def test_rdiff_reads_our_signatures_which_are_its_own_byte_for_byte(pair, tmp_path, block_bytes):
    old, new = pair
    size = {"2K": "2048", "4K": "4096"}.get(block_bytes, block_bytes)
    succeed("signature", "--format", "rdiff", "-b", block_bytes, old, tmp_path / "ours", "-q")
    rdiff("-H", "blake2", "-R", "rabinkarp", "-b", size, "-S", "32", "signature", old, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    rdiff("delta", tmp_path / "ours", new, tmp_path / "delta")
    succeed("patch", "--format", "rdiff", old, tmp_path / "delta", tmp_path / "made", "-q")
    assert (tmp_path / "made").read_bytes() == new.read_bytes()


# -- the xdelta3 program -----------------------------------------------------------------------------------------------


def xdelta3(*arguments: object) -> None:
    subprocess.run([requires_program("xdelta3"), "-q", "-f", *map(os.fspath, arguments)], check=True, timeout=120)


def test_xdelta3_reads_our_vcdiff(pair, tmp_path):
    old, new = pair
    said = succeed("delta", "--format", "vcdiff", old, new, tmp_path / "ours", "--json").json
    assert said["copied_bytes"] + said["zero_bytes"] + said["literal_bytes"] == new.stat().st_size
    assert said["delta_bytes"] == (tmp_path / "ours").stat().st_size < new.stat().st_size / 3
    xdelta3("-d", "-s", old, tmp_path / "ours", tmp_path / "theirs.raw")
    assert (tmp_path / "theirs.raw").read_bytes() == new.read_bytes()
    succeed("patch", "--format", "vcdiff", old, tmp_path / "ours", tmp_path / "ours.raw", "-q")
    assert (tmp_path / "ours.raw").read_bytes() == new.read_bytes()


@pytest.mark.parametrize("options", [(), ("-0",), ("-9", "-n"), ("-1", "-W", "16384"), ("-A",), ("-B", "1048576")])
def test_we_read_what_xdelta3_writes(pair, tmp_path, options):
    old, new = pair
    xdelta3("-e", "-S", "none", *options, "-s", old, new, tmp_path / "theirs")
    succeed("patch", "--format", "vcdiff", old, tmp_path / "theirs", tmp_path / "ours.raw", "-q")
    assert (tmp_path / "ours.raw").read_bytes() == new.read_bytes()


def test_secondary_compression_is_refused_with_the_way_out(pair, tmp_path):
    old, _ = pair
    new = tmp_path / "text"
    new.write_bytes(b"".join(b"%d lines of text\n" % number for number in range(90_000)))
    xdelta3("-e", "-S", "djw", "-s", old, new, tmp_path / "theirs")
    problem = fail(34, "patch", "--format", "vcdiff", old, tmp_path / "theirs", tmp_path / "made")
    assert "secondary compression (DJW)" in problem
    assert not (tmp_path / "made").exists()
    xdelta3("recode", "-S", "none", tmp_path / "theirs", tmp_path / "plain")
    succeed("patch", "--format", "vcdiff", old, tmp_path / "plain", tmp_path / "made", "-q")
    assert (tmp_path / "made").read_bytes() == new.read_bytes()


def test_what_xdelta3_writes_as_it_comes_is_read(pair, tmp_path):
    old, _ = pair
    new = tmp_path / "text"
    new.write_bytes(old.read_bytes() + b"".join(b"%d lines of text\n" % number for number in range(90_000)))
    xdelta3("-e", "-s", old, new, tmp_path / "theirs")
    succeed("patch", "--format", "vcdiff", old, tmp_path / "theirs", tmp_path / "made", "-q")
    assert (tmp_path / "made").read_bytes() == new.read_bytes()


def test_holes_and_growth_in_vcdiff(tmp_path):
    old, new, made = tmp_path / "old", tmp_path / "new", tmp_path / "made"
    for path, text, size in ((old, b"old", 30 << 20), (new, b"new", 70 << 20)):
        with open(path, "wb") as file:
            file.truncate(size)
            file.seek(20 << 20)
            file.write(text * 20_000)
    succeed("delta", "--format", "vcdiff", old, new, tmp_path / "delta", "-q")
    assert (tmp_path / "delta").stat().st_size < 1000
    for way in (lambda: succeed("patch", "--format", "vcdiff", old, tmp_path / "delta", made, "-q"),
                lambda: xdelta3("-d", "-s", old, tmp_path / "delta", made)):  # fmt: skip
        made.unlink(missing_ok=True)
        way()
        assert subprocess.run(["cmp", new, made], check=False).returncode == 0
    succeed("patch", "--format", "vcdiff", old, tmp_path / "delta", made, "-q", "--force")
    assert made.stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("case", [name for name in EDGES if EDGES[name][0]])
def test_edges_in_vcdiff(tmp_path, case):
    before, after = EDGES[case]
    old, new, delta = tmp_path / "old", tmp_path / "new", tmp_path / "delta"
    old.write_bytes(before)
    new.write_bytes(after or before)
    succeed("delta", "--format", "vcdiff", old, new, delta, "-q")
    succeed("patch", "--format", "vcdiff", old, delta, tmp_path / "made", "-q")
    xdelta3("-d", "-s", old, delta, tmp_path / "theirs")
    assert (tmp_path / "made").read_bytes() == (tmp_path / "theirs").read_bytes() == new.read_bytes()


def test_vcdiff_finds_another_old_file_and_has_no_signatures(pair, tmp_path):
    old, new = pair
    succeed("delta", "--format", "vcdiff", old, new, tmp_path / "delta", "-q")
    other = tmp_path / "other"
    other.write_bytes(bytes(byte ^ 1 for byte in old.read_bytes()))
    assert "checksum" in fail(16, "patch", "--format", "vcdiff", other, tmp_path / "delta", tmp_path / "made")
    other.write_bytes(old.read_bytes()[:1000])
    assert "1000 bytes" in fail(16, "patch", "--format", "vcdiff", other, tmp_path / "delta", tmp_path / "made")
    assert not (tmp_path / "made").exists()
    assert "no signatures" in fail(2, "signature", "--format", "vcdiff", old, tmp_path / "sig")
    assert "here and there" in fail(2, "delta", "--format", "vcdiff", "-", new, tmp_path / "made")


# -- bad input ---------------------------------------------------------------------------------------------------------


def damage(path: Path, change: Callable[[bytes], bytes]) -> Path:
    bad = path.with_name(path.name + ".bad")
    bad.write_bytes(change(path.read_bytes()))
    return bad


def test_another_old_file_is_found_and_no_wrong_new_file_is_left(pair, tmp_path):
    old, new = pair
    _, delta = make(tmp_path, old, new)
    changed = damage(old, lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    assert "not the file that the delta is for" in fail(16, "patch", changed, delta, tmp_path / "made")
    shorter = damage(old, lambda data: data[:-1])
    assert "the delta is for a file of" in fail(16, "patch", shorter, delta, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    assert not list(tmp_path.glob("*made*"))


def test_an_existing_file_is_kept_when_a_patch_fails(pair, tmp_path):
    old, new = pair
    _, delta = make(tmp_path, old, new)
    made = tmp_path / "made"
    made.write_text("precious")
    assert "exists" in fail(13, "patch", old, delta, made)
    fail(16, "patch", "--force", new, delta, made)
    assert made.read_text() == "precious"
    succeed("patch", "--force", old, delta, made, "-q")
    assert made.read_bytes() == new.read_bytes()


@pytest.mark.parametrize("format_name", FORMATS)
def test_truncated_files_are_refused_wherever_they_end(pair, tmp_path, format_name):
    old, new = pair
    options = ("--format", format_name)
    signature, delta = make(tmp_path, old, new, *options)
    size = delta.stat().st_size
    for length in (0, 3, 4, 63, 64, 150, size // 2, size - 1):
        fail(41, "patch", *options, old, damage(delta, lambda data, n=length: data[:n]), tmp_path / "made")
    for length in (0, 11, size_cut(signature)):
        fail(41, "delta", *options, damage(signature, lambda data, n=length: data[:n]), new, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def size_cut(path: Path) -> int:
    return path.stat().st_size - 1


def test_files_of_the_wrong_sort_are_named_as_such(pair, tmp_path):
    old, new = pair
    (tmp_path / "own").mkdir()
    (tmp_path / "rdiff").mkdir()
    signature, delta = make(tmp_path / "own", old, new)
    rdiff_signature, rdiff_delta = make(tmp_path / "rdiff", old, new, "--format", "rdiff")
    made = tmp_path / "made"
    short = tmp_path / "short"
    short.write_bytes(rdiff_signature.read_bytes()[:40])
    for wrong in (rdiff_signature, short, old):
        assert f"{wrong}: is no signature of deltaimg" in fail(42, "delta", wrong, new, made)
        assert f"{wrong}: is no delta of deltaimg" in fail(42, "patch", old, wrong, made)
    assert "is it the right file?" in deltaimg("delta", short, new, made).err
    assert "is a delta of deltaimg, not a signature" in fail(42, "delta", delta, new, made)
    assert "is a signature of deltaimg, not a delta" in fail(42, "patch", old, signature, made)
    assert "not a signature" in fail(42, "delta", "--format", "rdiff", rdiff_delta, new, made)
    assert "not a delta" in fail(42, "patch", "--format", "rdiff", old, rdiff_signature, made)
    assert "is no rdiff delta" in fail(42, "patch", "--format", "rdiff", old, delta, made)
    assert "--format tar: it must be one of" in fail(2, "signature", "--format", "tar", old, made)
    assert "a block size of 5000 bytes" in fail(2, "signature", "-b", "5000", old, made)
    assert "standard input" in fail(2, "delta", "-", "-", made)
    assert "standard input" in fail(2, "patch", "-", delta, made)
    assert not made.exists()


def test_md4_is_refused_with_the_way_out(pair, tmp_path):
    old, new = pair
    rdiff("-H", "md4", "signature", old, tmp_path / "sig")
    run = deltaimg("delta", "--format", "rdiff", tmp_path / "sig", new, tmp_path / "made")
    assert run.code == 34
    assert "with MD4" in run.err
    assert "--hash blake2" in run.err


def test_a_copy_past_the_end_of_the_old_file_is_refused(pair, tmp_path):
    old, _ = pair
    delta = tmp_path / "delta"
    for command, code, said in (
        ("54 0000000000000000 7fffffffffffffff", 16, "the delta copies bytes 0 to 9223372036854775807"),
        ("54 ffffffffffffffff ffffffffffffffff", 42, "copies 18446744073709551615 bytes"),
        ("44 ffffffffffffffff", 42, "a literal of 18446744073709551615 bytes"),
        ("44 7fffffffffffffff", 41, "delta"),
        ("45 00 00", 42, "copies 0 bytes"),
        ("99", 42, "an unknown command"),
    ):
        delta.write_bytes(bytes.fromhex("72730236" + command + "00"))
        assert said in fail(code, "patch", "--format", "rdiff", old, delta, tmp_path / "made")
        assert not (tmp_path / "made").exists()


def test_vcdiff_of_ours_that_is_cut_between_windows_is_refused_and_xdelta3_reads_it_whole(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    content = random.Random(8).randbytes(5 << 20)
    old.write_bytes(content)
    new.write_bytes(content[: 1 << 20] + b"new" + content[(1 << 20) + 3 :])
    delta, cut, made = tmp_path / "delta", tmp_path / "cut", tmp_path / "made"
    succeed("delta", "--format", "vcdiff", old, new, delta)
    data = delta.read_bytes()
    windows = list(parse_vcdiff(io.BytesIO(data).read, "delta"))
    assert len(windows) > 1
    for window in windows:
        cut.write_bytes(data[: window.position])
        assert "of the new file" in fail(42, "patch", "--format", "vcdiff", old, cut, made)
        assert not made.exists()
    xdelta3("-d", "-s", old, delta, made)
    assert made.read_bytes() == new.read_bytes()
