# SPDX-License-Identifier: Apache-2.0
"""Signatures and deltas cut and flipped at every byte, of the wrong sort, and with the wrong files around them.

Always  an error of the family, of one line, with an exit code; or the new file, as it should be.
Always  nothing else is there afterwards than before: no target, nothing with a temporary name.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from deltaimg import errors
from deltaimg.api.files import delta_file, patch_file, sign_file
from deltaimg.errors import DeltaimgError
from deltaimg.options.files import DeltaOptions, PatchOptions, SignatureOptions
from tests.support.program import read_tree

FORMATS = ("deltaimg", "rdiff", "vcdiff")
WITH_SIGNATURES = ("deltaimg", "rdiff")
VERIFIED = {"deltaimg": True, "vcdiff": True, "rdiff": False}
"""Whether the result is compared with a digest or checksum."""
OLD = b"".join(b"line %d of the old file\n" % number for number in range(150)) + bytes(2000)
NEW = OLD[:2048] + b"inserted" + OLD[2048:5000] + bytes(900) + OLD[300:400]
BLOCK_BYTES = {"deltaimg": 1024, "rdiff": 512}


@dataclass(frozen=True, slots=True)
class Files:
    """A folder with an old file, a new one, and what lies between them in one format."""

    folder: Path
    format_name: str

    @property
    def old(self) -> Path:
        return self.folder / "old"

    @property
    def new(self) -> Path:
        return self.folder / "new"

    @property
    def first(self) -> Path:
        """What a delta is made with: the signature, or OLD itself."""
        return self.old if self.format_name == "vcdiff" else self.folder / "signature"

    @property
    def delta(self) -> Path:
        return self.folder / "delta"

    @property
    def made(self) -> Path:
        return self.folder / "made"

    def try_delta(
        self, *, first: Path | str | None = None, new: Path | str | None = None, to: Path | None = None
    ) -> None:
        delta_file(
            str(first or self.first),
            str(new or self.new),
            str(to or self.made),
            options=DeltaOptions(format=self.format_name),
        )

    def try_patch(
        self, *, old: Path | str | None = None, delta: Path | str | None = None, to: Path | None = None
    ) -> None:
        patch_file(
            str(old or self.old),
            str(delta or self.delta),
            str(to or self.made),
            options=PatchOptions(format=self.format_name),
        )


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Signatures and deltas of all formats, `rdiff signature` and so on."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "old").write_bytes(OLD)
    (folder / "new").write_bytes(NEW)
    found = {}
    for name in FORMATS:
        files = Files(folder, name)
        if name in WITH_SIGNATURES:
            sign_file(
                str(files.old),
                str(files.first),
                options=SignatureOptions(format=name, block_bytes=BLOCK_BYTES[name], is_forced=True),
            )
            found[f"{name} signature"] = files.first.read_bytes()
        delta_file(str(files.first), str(files.new), str(files.delta), DeltaOptions(name, is_forced=True))
        found[f"{name} delta"] = files.delta.read_bytes()
    return found


@pytest.fixture(params=FORMATS)
def files(request: pytest.FixtureRequest, tmp_path: Path, originals: dict[str, bytes]) -> Files:
    made = Files(tmp_path, request.param)
    made.old.write_bytes(OLD)
    made.new.write_bytes(NEW)
    if made.format_name in WITH_SIGNATURES:
        made.first.write_bytes(originals[f"{made.format_name} signature"])
    made.delta.write_bytes(originals[f"{made.format_name} delta"])
    return made


def attempt(files: Files, action: Callable[[], None]) -> DeltaimgError | None:
    """Return what an action is refused with, nothing being changed by it; None if it is not."""
    before, names = read_tree(files.folder), set(os.listdir(files.folder))
    try:
        action()
    except DeltaimgError as error:
        refusal = error
    else:
        return None
    assert not isinstance(refusal, errors.NativeError)
    assert type(refusal).exit_code not in (0, 1)
    assert "\n" not in str(refusal)
    assert read_tree(files.folder) == before
    assert set(os.listdir(files.folder)) == names
    return refusal


def refused(files: Files, action: Callable[[], None], kind: type[DeltaimgError] = DeltaimgError, says: str = "") -> str:
    """Return what an action says, which must be refused for a reason of this kind."""
    refusal = attempt(files, action)
    assert isinstance(refusal, kind), refusal
    assert says in str(refusal)
    return str(refusal)


# -- the files themselves ----------------------------------------------------------------------------------------------


def damages(data: bytes) -> Iterator[bytes]:
    """Yield `data` with one bit of each byte flipped, now this one, now that."""
    for place, byte in enumerate(data):
        yield data[:place] + bytes([byte ^ 1 << place % 8]) + data[place + 1 :]


def test_a_delta_that_ends_early_is_refused_wherever_it_ends(files: Files) -> None:
    whole = files.delta.read_bytes()
    for length in range(len(whole)):
        files.delta.write_bytes(whole[:length])
        refused(files, files.try_patch, errors.IntegrityError)


def test_a_delta_with_any_bit_flipped_is_refused_or_makes_the_new_file(files: Files) -> None:
    for damaged in damages(files.delta.read_bytes()):
        files.delta.write_bytes(damaged)
        if attempt(files, files.try_patch):
            continue
        if VERIFIED[files.format_name]:
            assert files.made.read_bytes() == NEW
        files.made.unlink()


@pytest.mark.parametrize("files", WITH_SIGNATURES, indirect=True)
def test_a_signature_that_ends_early_is_refused_unless_it_is_one_of_fewer_blocks(files: Files) -> None:
    whole = files.first.read_bytes()
    for length in range(len(whole)):
        files.first.write_bytes(whole[:length])
        if files.format_name == "rdiff" and length >= 12 and (length - 12) % 36 == 0:
            continue  # nothing in it says how many blocks there are
        refused(files, files.try_delta, errors.Truncated)


@pytest.mark.parametrize("files", WITH_SIGNATURES, indirect=True)
def test_a_signature_with_any_bit_flipped_costs_room_in_the_delta_and_no_more(files: Files) -> None:
    whole = files.first.read_bytes()
    rows = 84  # the head and two blocks of rdiff's; all others are like these
    for damaged in damages(whole[:rows]):
        files.first.write_bytes(damaged + whole[rows:])
        if attempt(files, files.try_delta):
            continue
        assert files.format_name == "rdiff", "deltaimg's own have a digest"
        files.try_patch(delta=files.made, to=files.folder / "patched")
        assert (files.folder / "patched").read_bytes() == NEW
        (files.folder / "patched").unlink()
        files.made.unlink()


def test_each_sort_of_file_is_refused_as_any_other(files: Files, originals: dict[str, bytes]) -> None:
    others = originals | {"text": b"some text\n" * 100, "an image": OLD, "zeros": bytes(5000)}
    path = files.folder / "other"
    for sort, content in others.items():
        path.write_bytes(content)
        if sort != f"{files.format_name} delta":
            said = refused(files, partial(files.try_patch, delta=path), errors.Malformed)
            assert "is no" in said or "not a delta" in said, (sort, said)
        if files.format_name in WITH_SIGNATURES and sort != f"{files.format_name} signature":
            said = refused(files, partial(files.try_delta, first=path), errors.Malformed)
            assert "is no" in said or "not a signature" in said, (sort, said)


def test_an_empty_file_is_no_signature_and_no_delta(files: Files) -> None:
    path = files.folder / "empty"
    path.touch()
    refused(files, partial(files.try_patch, delta=path), errors.Truncated)
    if files.format_name in WITH_SIGNATURES:
        refused(files, partial(files.try_delta, first=path), errors.Truncated)


def test_bytes_behind_the_end_are_refused(files: Files) -> None:
    with open(files.delta, "ab") as file:
        file.write(b"\0more")
    refused(files, files.try_patch, errors.IntegrityError)


# -- another old file --------------------------------------------------------------------------------------------------


def test_an_old_file_that_was_cut_is_found(files: Files) -> None:
    for length in (1, 1000, len(OLD) // 2):
        files.old.write_bytes(OLD[:length])
        refused(files, files.try_patch, errors.WrongOldFile, str(length))


def test_an_old_file_that_has_grown_is_found_or_makes_the_new_file_all_the_same(files: Files) -> None:
    files.old.write_bytes(OLD + b"more")
    if files.format_name == "deltaimg":
        refused(files, files.try_patch, errors.WrongOldFile, f"has {len(OLD) + 4} bytes")
    else:
        files.try_patch()
        assert files.made.read_bytes() == NEW


@pytest.mark.parametrize("files", [name for name in FORMATS if VERIFIED[name]], indirect=True)
def test_an_old_file_that_was_changed_is_found_or_makes_the_new_file_all_the_same(files: Files) -> None:
    found = 0
    for place in range(0, len(OLD), 250):
        files.old.write_bytes(OLD[:place] + b"?" + OLD[place + 1 :])
        if refusal := attempt(files, files.try_patch):
            assert isinstance(refusal, errors.WrongOldFile)
            found += 1
        else:
            assert files.made.read_bytes() == NEW, "what was changed was not copied from"
            files.made.unlink()
    assert found > 8
    files.old.write_bytes(NEW[: len(OLD)].ljust(len(OLD), b"\0"))
    refused(files, files.try_patch, errors.WrongOldFile)


# -- what is no file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def oddities(tmp_path: Path) -> dict[str, str]:
    """Paths at which there is something else than a file, or nothing."""
    folder = tmp_path / "odd"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    (folder / "nowhere").symlink_to("gone")
    (folder / "file").write_bytes(b"x")
    return {
        "a folder": str(folder), "a pipe": str(folder / "pipe"), "a socket": str(folder / "socket"),
        "a link to nowhere": str(folder / "nowhere"), "nothing": str(folder / "missing"), "a device": "/dev/null",
        "in a file": str(folder / "file" / "below"), "too long": str(folder / ("x" * 300)), "no path": "a\0b",
    }  # fmt: skip


def test_an_old_or_new_file_that_is_none_is_refused_by_name(files: Files, oddities: dict[str, str]) -> None:
    for what, path in oddities.items():
        kind = errors.UsageError if what == "a pipe" else errors.ImageError
        assert path in refused(files, partial(files.try_patch, old=path), kind)
        if what != "a pipe":  # which may be the new file, as the output of another program
            assert path in refused(files, partial(files.try_delta, new=path), errors.ImageError)


def test_a_signature_or_delta_that_is_none_is_refused_by_name(files: Files, oddities: dict[str, str]) -> None:
    for what, path in oddities.items():
        if what == "a pipe":
            continue  # which is read, as the output of another program
        said = refused(files, partial(files.try_patch, delta=path))
        assert path in said
        assert path in refused(files, partial(files.try_delta, first=path))


def test_nothing_is_written_to_what_is_no_file(files: Files, oddities: dict[str, str]) -> None:
    for what, path in oddities.items():
        if what in ("nothing", "a pipe"):
            continue
        for action in (partial(files.try_patch, to=Path(path)), partial(files.try_delta, to=Path(path))):
            assert path in refused(files, action, errors.ImageError)


def test_a_file_that_is_there_or_a_link_to_it_is_not_replaced_unasked(files: Files) -> None:
    other = files.folder / "other"
    other.write_bytes(b"precious")
    (files.folder / "link to other").symlink_to("other")
    refused(files, partial(files.try_patch, to=other), errors.TargetExists)
    refused(files, partial(files.try_delta, to=other), errors.TargetExists)
    for is_forced in (False, True):
        with pytest.raises(errors.TargetExists, match="symbolic link"):
            patch_file(
                str(files.old),
                str(files.delta),
                str(files.folder / "link to other"),
                options=PatchOptions(format=files.format_name, is_forced=is_forced),
            )
    assert other.read_bytes() == b"precious"


def test_what_is_read_is_never_written_to_by_any_of_its_names(files: Files) -> None:
    """`signature -f k k` replaced the image by its signature."""
    names = {}
    for path in {files.old, files.new, files.delta, files.first}:
        symbolic, hard = path.with_name(f"{path.name}.symbolic"), path.with_name(f"{path.name}.hard")
        symbolic.symlink_to(path.name)
        hard.hardlink_to(path)
        names[path] = [path, symbolic, hard, path.parent / ".." / path.parent.name / path.name]
    before = {path: path.read_bytes() for path in names}
    for target in [*names[files.old], *names[files.delta]]:
        with pytest.raises(errors.UsageError, match="which is read here"):
            patch_file(str(files.old), str(files.delta), str(target), PatchOptions(files.format_name, is_forced=True))
    for target in [*names[files.first], *names[files.new]]:
        with pytest.raises(errors.UsageError, match="which is read here"):
            delta_file(str(files.first), str(files.new), str(target), DeltaOptions(files.format_name, is_forced=True))
    if files.format_name in WITH_SIGNATURES:
        for target in names[files.old]:
            with pytest.raises(errors.UsageError, match="which is read here"):
                sign_file(str(files.old), str(target), SignatureOptions(files.format_name, is_forced=True))
    assert {path: path.read_bytes() for path in names} == before
