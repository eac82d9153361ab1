# SPDX-License-Identifier: Apache-2.0
"""A pool's metadata snapshot is ours for as long as it is read, and nobody else's is released.

`dmsetup` and LVM are scripts that print what the real ones printed in the virtual machine of scripts/lvm-guest.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from msgspec.structs import replace

from deltaimg.errors import FreezeFailed
from deltaimg.freeze.lvm_commands import Volume
from deltaimg.freeze.owner import name_owner
from deltaimg.freeze.thin_pool import PoolState, hold_metadata, parse_status, release_left_over
from tests.support.guests import install

FREE = "0 524288 thin-pool 9 125/1024 1275/4096 - rw discard_passdown queue_if_no_space - 256 "
HELD = "0 524288 thin-pool 9 126/1024 1275/4096 118 rw discard_passdown queue_if_no_space - 256 "


class Pool:
    """A pool as the commands have it, and what they were told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.status, self.log, self.metadata = folder / "status", folder / "log", folder / "tmeta"
        self.status.write_text(FREE)
        dmsetup = f"""
case "$1 $4" in
"status ") cat '{self.status}' ;;
"message reserve_metadata_snap") echo reserve >> '{self.log}'
    grep -q ' 118 ' '{self.status}' && {{ echo 'Device or resource busy' >&2; exit 1; }}
    echo '{HELD}' > '{self.status}' ;;
"message release_metadata_snap") echo release >> '{self.log}'; echo '{FREE}' > '{self.status}' ;;
esac
[ "$2" = vg-pool-tpool ]
"""
        scripts = {
            "dmsetup": dmsetup,
            "lvchange": f"echo \"$3 $4\" >> '{self.log}'",
        }
        install(monkeypatch, folder / "bin", scripts)

    def volume(self, *tags: str) -> Volume:
        return Volume(
            "vg", "pool", "twi-aot---", 1 << 28, tags, "", "", 0, 4 << 20, 31.0, 12.0, 0.0,
            chunk_bytes=65536, metadata="pool_tmeta", node="/dev/mapper/vg-pool",
        )  # fmt: skip

    def release(self, *tags: str) -> list[str]:
        return release_left_over(
            [self.volume(*tags), replace(self.volume(), name="pool_tmeta", node=str(self.metadata))]
        )

    def told(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.replace(name_owner(), "US") for line in lines]

    def write_metadata(self, transaction: int, magic: int = 27022010) -> None:
        """Put a metadata snapshot at block 118, as the kernel writes it."""
        self.metadata.write_bytes(
            bytes(118 * 4096) + struct.pack("<IIQ16xQIIQ", 0, 0, 118, magic, 2, 6, transaction).ljust(4096, b"\0")
        )


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    return Pool(tmp_path, monkeypatch)


DEAD = "deltaimg-00000000.00000000.0000000000000000-1-1"
OURS_BUT_DEAD = name_owner().rsplit("-", 2)[0] + "-4000000-1"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (FREE, PoolState(9)),
        (HELD, PoolState(9, 118)),
        (
            FREE.replace("queue_if_no_space -", "queue_if_no_space needs_check"),
            "has damaged metadata, which needs repair",
        ),
        (FREE.replace(" rw ", " ro "), "can only be read: its metadata is damaged or full"),
        (FREE.replace(" rw ", " out_of_data_space "), "is full"),
        ("0 524288 thin-pool Fail", "has failed"),
        ("0 524288 thin-pool Error", "is in an unknown state"),
        ("0 524288 linear ", "is none that device mapper knows"),
        ("", "is none that device mapper knows"),
        (FREE.replace(" 9 ", " nine "), "is in an unknown state"),
        (FREE.replace(" - rw", " ? rw"), "is in an unknown state"),
    ],
)
def test_a_status_line_is_read(status: str, state: PoolState | str) -> None:
    found = parse_status(status)
    assert found.problem == state if isinstance(state, str) else found == state


def test_the_tag_is_there_before_it_is_reserved_and_gone_after_it_is_released(pool: Pool) -> None:
    with hold_metadata(pool.volume(), "/dev/vg/root"):
        assert pool.told() == ["--addtag held-US.t9", "reserve"]
    assert pool.told()[2:] == ["release", "--deltag held-US.t9"]


def test_it_is_released_after_an_error(pool: Pool) -> None:
    with pytest.raises(KeyboardInterrupt), hold_metadata(pool.volume(), "/dev/vg/root"):
        raise KeyboardInterrupt
    assert pool.told()[2:] == ["release", "--deltag held-US.t9"]


def test_one_of_another_program_is_not_touched(pool: Pool) -> None:
    pool.status.write_text(HELD)
    with (
        pytest.raises(FreezeFailed, match="another program holds the metadata snapshot of thin pool vg/pool") as caught,
        hold_metadata(pool.volume(), "/dev/vg/root"),
    ):
        pass
    assert "dmsetup message vg-pool-tpool 0 release_metadata_snap" in str(caught.value.hint)
    assert pool.told() == []


def test_one_that_another_program_reserves_at_the_same_moment_is_not_released(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "bin" / "lvchange").write_text(
        f"#!/bin/sh\necho \"$3\" >> '{pool.log}'; echo '{HELD}' > '{pool.status}'\n"
    )
    with pytest.raises(FreezeFailed, match="Device or resource busy"), hold_metadata(pool.volume(), "/dev/vg/root"):
        pass
    assert pool.told() == ["--addtag", "reserve", "--deltag"]


@pytest.mark.parametrize("status", ["0 524288 thin-pool Fail", FREE.replace("space -", "space needs_check")])
def test_a_pool_that_needs_repair_is_not_touched(pool: Pool, status: str) -> None:
    pool.status.write_text(status)
    with pytest.raises(FreezeFailed, match="thin pool vg/pool has"), hold_metadata(pool.volume(), "/dev/vg/root"):
        pass
    assert pool.told() == []


def test_what_a_dead_process_reserved_is_released(pool: Pool) -> None:
    pool.status.write_text(HELD)
    pool.write_metadata(transaction=9)
    tag = f"held-{OURS_BUT_DEAD}.t9"
    assert pool.release("a-tag", tag) == ["the metadata snapshot of vg/pool"]
    assert pool.told() == ["release", f"--deltag {tag}"]


@pytest.mark.parametrize(("transaction", "magic"), [(10, 27022010), (9, 1)])
def test_what_was_reserved_in_another_transaction_is_another_programs(pool: Pool, transaction: int, magic: int) -> None:
    pool.status.write_text(HELD)
    pool.write_metadata(transaction, magic)
    tag = f"held-{OURS_BUT_DEAD}.t9"
    assert pool.release(tag) == []
    assert pool.told() == [f"--deltag {tag}"]


def test_a_process_that_died_before_it_reserved_leaves_a_tag_alone(pool: Pool) -> None:
    assert pool.release(f"held-{OURS_BUT_DEAD}.t9") == []
    assert pool.told() == [f"--deltag held-{OURS_BUT_DEAD}.t9"]


@pytest.mark.parametrize(
    "tag", [f"held-{DEAD}.t9", "held-" + name_owner(), OURS_BUT_DEAD, "held-", "held-x.t9"], ids=list("abcde")
)
def test_what_a_living_process_or_another_host_holds_stays(pool: Pool, tag: str) -> None:
    pool.status.write_text(HELD)
    pool.write_metadata(transaction=9)
    assert pool.release(tag) == []
    assert pool.told() == []
    assert os.path.exists(pool.status)
