# SPDX-License-Identifier: Apache-2.0
"""What `thin_delta` prints is read as it printed it, and nothing else is taken for it.

Recorded from thin-provisioning-tools 0.9.0 on Linux 6.1, in the virtual machine of scripts/lvm-guest.
"""

from __future__ import annotations

from pathlib import Path
from xml.parsers.expat import ExpatError

import pytest

from deltaimg.errors import FreezeFailed
from deltaimg.model import KIB
from deltaimg.tracking import thin_delta
from deltaimg.tracking.thin_delta import check_version, compare_volumes, parse_delta
from tests.support.guests import install

CHUNK = 64 * KIB
RECORDED = b"""<superblock uuid="" time="6" transaction="9" data_block_size="128" nr_data_blocks="0">
  <diff left="5" right="6">
    <same begin="0" length="500"/>
    <different begin="500" length="1"/>
    <same begin="501" length="399"/>
    <left_only begin="900" length="30"/>
    <same begin="930" length="94"/>
  </diff>
</superblock>
"""
APPENDED = b"""<superblock uuid="" time="6" transaction="9" data_block_size="128" nr_data_blocks="0">
  <diff left="2" right="3">
    <same begin="0" length="100"/>
    <right_only begin="100" length="50"/>
  </diff>
</superblock>
"""
EQUAL = b"""<superblock uuid="" time="6" transaction="9" data_block_size="128" nr_data_blocks="0" metadata_snap="118">
  <diff left="5" right="6">
  </diff>
</superblock>
"""


def read(output: bytes, left: int = 5, right: int = 6, chunk: int = CHUNK) -> list[list[int]]:
    return [[start // chunk, end // chunk] for start, end in parse_delta(output, left, right, chunk).tolist()]


def test_what_differs_and_what_one_volume_alone_has_is_changed() -> None:
    assert read(RECORDED) == [[500, 501], [900, 930]]
    assert read(APPENDED, 2, 3) == [[100, 150]]
    assert read(EQUAL) == []
    assert read(RECORDED.replace(b'"128"', b'"2048"'), chunk=1024 * KIB) == [[500, 501], [900, 930]]


def test_extents_that_touch_are_one() -> None:
    touching = RECORDED.replace(b'<same begin="501" length="399"/>', b'<right_only begin="501" length="399"/>')
    assert read(touching) == [[500, 930]]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'left="5"', b'left="4"'),
        (b'right="6"', b'right="5"'),
        (b'data_block_size="128"', b'data_block_size="256"'),
        (b'begin="500" length="1"', b'begin="500" length="2"'),
        (b'begin="900"', b'begin="5"'),
        (b'begin="500"', b'begin="-500"'),
        (b'begin="500"', 'begin="\u0665\u0660\u0660"'.encode()),
        (b'begin="500"', b'begin="5e2"'),
        (b'length="94"', b'length="99999999999999999999999"'),
        (b'length="94"', b""),
        (b"<left_only", b"<left"),
        (b"</superblock>", b""),
        (b"</diff>\n</superblock>\n", b""),
        (b"<superblock", b"<!DOCTYPE s [<!ENTITY a 'b'>]><superblock"),
        (b"<superblock", b"<block"),
        (b"<diff", b"<difference"),
        (b"<same begin", b"<same \x00begin"),
    ],
)
def test_output_that_makes_no_sense_is_refused(old: bytes, new: bytes) -> None:
    assert old in RECORDED
    with pytest.raises((ValueError, ExpatError)):
        read(RECORDED.replace(old, new, 1))


@pytest.mark.parametrize("output", [b"", b"<superblock/>", b"no current metadata snap", RECORDED[:200], RECORDED * 2])
def test_output_that_is_something_else_is_refused(output: bytes) -> None:
    with pytest.raises((ValueError, ExpatError)):
        read(output)


@pytest.mark.parametrize(
    ("said", "is_right"),
    [
        ("0.9.0", True),
        ("0.7.0-rc1", True),
        ("0.6.3", False),
        ("thin_delta 1.0.4", False),
        ("1.0.5", False),
        ("thin_delta 1.0.6", True),
        ("1.1.0", True),
        ("2.0", True),
        ("", False),
    ],
)
def test_versions_that_leave_changes_out_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, is_right: bool
) -> None:
    install(monkeypatch, tmp_path / "bin", {"thin_delta": f"echo '{said}'"})
    if is_right:
        check_version("/dev/vg/root")
    else:
        with pytest.raises(FreezeFailed, match=r"leaves changes out|does not say of which version"):
            check_version("/dev/vg/root")


def compare(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> list[list[int]]:
    install(monkeypatch, folder / "bin", {"thin_delta": script})
    return compare_volumes("/dev/vg/root", "/dev/mapper/vg-pool_tmeta", 5, 6, CHUNK).tolist()


def test_the_command_is_asked_for_two_volumes_of_the_metadata_snapshot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "recorded").write_bytes(RECORDED)
    found = compare(monkeypatch, tmp_path, f"echo \"$*\" > '{tmp_path}/asked'; cat '{tmp_path}/recorded'")
    assert found == [[500 * CHUNK, 501 * CHUNK], [900 * CHUNK, 930 * CHUNK]]
    asked = (tmp_path / "asked").read_text().strip()
    assert asked == "--metadata-snap --thin1 5 --thin2 6 /dev/mapper/vg-pool_tmeta"


def test_what_the_command_says_is_the_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = "echo 'Unable to find mapping tree for snap1 (5)' >&2; echo 'Usage: thin_delta' >&2; exit 1"
    with pytest.raises(FreezeFailed, match=r"thin_delta: Unable to find mapping tree for snap1 \(5\)$"):
        compare(monkeypatch, tmp_path, script)


def test_output_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(thin_delta, "MAX_OUTPUT_BYTES", 100_000)
    with pytest.raises(FreezeFailed, match="printed more than"):
        compare(monkeypatch, tmp_path, "exec cat /dev/zero")
    monkeypatch.undo()


def test_what_is_no_list_of_differences_names_the_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(FreezeFailed, match=r"^/dev/vg/root: thin_delta printed what is no list of differences"):
        compare(monkeypatch, tmp_path, "echo '<superblock>'")
