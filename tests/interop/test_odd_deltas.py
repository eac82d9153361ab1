# SPDX-License-Identifier: Apache-2.0
"""What the rdiff and xdelta3 programs write with their odder options is read, or refused by the name of what is not."""

from __future__ import annotations

import random
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from deltaimg.api.files import delta_file, patch_file
from deltaimg.errors import IntegrityError, Malformed, UnsupportedFormat, WrongOldFile
from deltaimg.options.files import DeltaOptions, PatchOptions
from tests.support.components import requires_program

LINES = b"".join(b"line %d of the old file\n" % number for number in range(4000))
OLD = LINES + random.Random(3).randbytes(30_000)
NEW = OLD[:50_001] + b"inserted " * 30 + OLD[50_001:] + b"".join(b"more of it, %d\n" % number for number in range(8000))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old"
    path.write_bytes(OLD)
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    path = tmp_path / "new"
    path.write_bytes(NEW)
    return path


def run(program: str, *arguments: object) -> None:
    subprocess.run([requires_program(program), *map(str, arguments)], check=True, timeout=60, capture_output=True)


def patched(old: Path, delta: Path, format_name: str) -> bytes:
    """Return what we make of a delta, if anything."""
    made = old.with_name("made")
    patch_file(str(old), str(delta), str(made), options=PatchOptions(format=format_name))
    return made.read_bytes()


# -- rdiff -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rolling", ["rollsum", "rabinkarp"])
@pytest.mark.parametrize(
    "options",
    [("-b", 16), ("-b", 333, "-S", 5), ("-b", 1 << 20), ("-S", 3), ("-S", 32), ("-b", 4096, "-S", 12)],
    ids=lambda options: " ".join(map(str, options)),
)
def test_signatures_of_rdiff_of_any_block_size_and_length_of_sums(old: Path, new: Path, rolling: str, options) -> None:
    signature, ours, theirs = (old.with_name(name) for name in ("signature", "ours", "theirs"))
    run("rdiff", "-H", "blake2", "-R", rolling, *options, "signature", old, signature)
    delta_file(str(signature), str(new), str(ours), options=DeltaOptions(format="rdiff"))
    run("rdiff", "patch", old, ours, old.with_name("theirs-made"))
    assert old.with_name("theirs-made").read_bytes() == NEW
    run("rdiff", "delta", signature, new, theirs)
    assert patched(old, theirs, "rdiff") == NEW


@pytest.mark.parametrize("rolling", ["rollsum", "rabinkarp"])
def test_signatures_with_md4_are_refused_by_name_and_deltas_made_with_them_are_read(
    old: Path, new: Path, rolling: str
) -> None:
    signature, ours, theirs = (old.with_name(name) for name in ("signature", "ours", "theirs"))
    run("rdiff", "-H", "md4", "-R", rolling, "signature", old, signature)
    with pytest.raises(UnsupportedFormat, match="MD4") as caught:
        delta_file(str(signature), str(new), str(ours), options=DeltaOptions(format="rdiff"))
    assert "--hash blake2" in str(caught.value.hint)
    assert not ours.exists()
    run("rdiff", "delta", signature, new, theirs)
    assert patched(old, theirs, "rdiff") == NEW


def test_rdiff_deltas_to_an_empty_file_and_from_one(tmp_path: Path, old: Path) -> None:
    empty, signature, delta = tmp_path / "empty", tmp_path / "signature", tmp_path / "delta"
    empty.touch()
    run("rdiff", "-H", "blake2", "signature", old, signature)
    run("rdiff", "delta", signature, empty, delta)
    assert patched(old, delta, "rdiff") == b""
    run("rdiff", "-f", "-H", "blake2", "signature", empty, signature)
    delta.unlink()
    delta_file(str(signature), str(old), str(delta), options=DeltaOptions(format="rdiff"))
    run("rdiff", "patch", empty, delta, tmp_path / "theirs")
    assert (tmp_path / "theirs").read_bytes() == OLD


# -- xdelta3 -----------------------------------------------------------------------------------------------------------


def xdelta3(old: Path, new: Path, *options: object) -> Path:
    """Return a delta of the program's."""
    delta = old.with_name("delta")
    run("xdelta3", "-q", "-f", "-e", *options, "-s", old, new, delta)
    return delta


@pytest.mark.parametrize(
    "options",
    [
        ("-n",), ("-A=",), ("-A=an application's words",), ("-n", "-A", "-0"), ("-W", 16384),
        ("-W", 1 << 24), ("-B", 1 << 19), ("-B", 1 << 30), ("-I", 0), ("-P", 1 << 15), ("-9", "-n"), ("-D",),
    ],
    ids=lambda options: " ".join(map(str, options)),
)  # fmt: skip
def test_deltas_of_xdelta3_with_any_header_checksum_and_window(old: Path, new: Path, options) -> None:
    assert patched(old, xdelta3(old, new, "-S", "none", *options), "vcdiff") == NEW


def test_deltas_of_xdelta3_without_an_old_file(old: Path, new: Path) -> None:
    delta = old.with_name("delta")
    run("xdelta3", "-q", "-e", "-S", "none", new, delta)
    assert patched(old, delta, "vcdiff") == NEW


@pytest.mark.parametrize(
    "options", [(), ("-9",), ("-1",), ("-W", 16384), ("-S", "lzma", "-B", 1 << 19), ("-n",)],
    ids=lambda options: " ".join(map(str, options)) or "as it comes",
)  # fmt: skip
def test_what_xdelta3_compresses_with_lzma_is_read(old: Path, new: Path, options) -> None:
    """That is what it does where it is not told otherwise; the streams go on from window to window."""
    text = b"".join(b"%d lines of text\n" % number for number in range(60_000))
    new.write_bytes(NEW + text)
    assert patched(old, xdelta3(old, new, *options), "vcdiff") == NEW + text


def test_a_section_that_is_damaged_or_too_long_is_refused(old: Path, new: Path) -> None:
    text = b"".join(b"%d lines of text\n" % number for number in range(20_000))
    new.write_bytes(text)
    whole = bytearray(xdelta3(old, new, "-S", "lzma", "-n").read_bytes())
    start = whole.index(b"\xfd7zXZ")
    for place in range(start - 3, len(whole), 61):
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        old.with_name("damaged").write_bytes(damaged)
        with suppress(IntegrityError, UnsupportedFormat, WrongOldFile):
            # There is no checksum, but for that of the .xz stream, which xdelta3 leaves out.
            assert len(patched(old, old.with_name("damaged"), "vcdiff")) == len(text)
        old.with_name("made").unlink(missing_ok=True)
    for end in range(start, len(whole), 97):
        old.with_name("damaged").write_bytes(whole[:end])
        with pytest.raises(IntegrityError):
            patched(old, old.with_name("damaged"), "vcdiff")


@pytest.mark.parametrize(
    "note", ["deltaimg new_bytes=", "deltaimg new_bytes=many", "deltaimg new_b", "deltaimg new_bytes=1"]
)
def test_a_note_of_the_length_that_is_damaged_is_refused(old: Path, new: Path, note: str) -> None:
    with pytest.raises(IntegrityError):
        patched(old, xdelta3(old, new, f"-A={note}"), "vcdiff")


def test_a_file_named_as_the_note_begins_is_no_note(old: Path, new: Path) -> None:
    named = new.rename(new.with_name("deltaimg new_bytes=7"))
    assert patched(old, xdelta3(old, named), "vcdiff") == NEW


@pytest.mark.parametrize("name", ["djw", "fgk"])
def test_secondary_compression_is_refused_by_its_name_and_read_where_it_was_not_used(
    old: Path, new: Path, name: str
) -> None:
    with pytest.raises(UnsupportedFormat, match=rf"secondary compression \({name.upper()}\)") as caught:
        patched(old, xdelta3(old, new, "-S", name), "vcdiff")
    assert "xdelta3 recode -S none" in str(caught.value.hint)
    assert not old.with_name("made").exists()
    new.write_bytes(OLD[:90_000] + b"few" + OLD[90_000:])
    assert patched(old, xdelta3(old, new, "-S", name), "vcdiff") == new.read_bytes()


def test_a_delta_that_was_compressed_later_is_refused_and_read_once_that_is_undone(old: Path, new: Path) -> None:
    delta = xdelta3(old, new, "-S", "none")
    compressed, plain = old.with_name("compressed"), old.with_name("plain")
    run("xdelta3", "-q", "recode", "-S", "djw", delta, compressed)
    with pytest.raises(UnsupportedFormat, match="DJW"):
        patched(old, compressed, "vcdiff")
    run("xdelta3", "-q", "recode", "-S", "none", compressed, plain)
    assert patched(old, plain, "vcdiff") == NEW


def test_two_deltas_that_xdelta3_merged_are_read_as_one(tmp_path: Path, old: Path, new: Path) -> None:
    third, merged = tmp_path / "third", tmp_path / "merged"
    third.write_bytes(NEW[70_000:] + NEW[:20_000])
    first = xdelta3(old, new, "-S", "none").rename(tmp_path / "first")
    second = xdelta3(new, third, "-S", "none").rename(tmp_path / "second")
    run("xdelta3", "-q", "merge", "-S", "none", "-m", first, second, merged)
    assert patched(old, merged, "vcdiff") == third.read_bytes()


def test_a_length_that_somebody_else_claims_in_our_words_is_held_against_the_file(old: Path, new: Path) -> None:
    delta = xdelta3(old, new, "-S", "none", "-A=deltaimg new_bytes=5")
    with pytest.raises(Malformed, match="of the 5 bytes of the new file"):
        patched(old, delta, "vcdiff")
