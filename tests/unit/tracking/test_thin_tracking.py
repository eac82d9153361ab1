# SPDX-License-Identifier: Apache-2.0
"""Which kept volume is compared, and how one is kept: LVM is scripts that print what the real commands printed.

Recorded from LVM 2.03.16 and thin-provisioning-tools 0.9.0 in the virtual machine of scripts/lvm-guest, which tests the rest.
"""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deltaimg.errors import FreezeFailed, UnsupportedImage
from deltaimg.format.manifest import Manifest
from deltaimg.freeze.freeze import PointInTime, Writers
from deltaimg.freeze.hooks import Hooks
from deltaimg.freeze.interface import FreezeRequest, Unfrozen
from deltaimg.freeze.owner import name_owner
from deltaimg.image.open_source import open_source
from deltaimg.model import KIB
from deltaimg.options.backup import BackupOptions
from deltaimg.tracking.choose import choose_tracker
from deltaimg.tracking.interface import Tracker
from deltaimg.tracking.thin import ThinTracker, find_obstacle, remove_kept_volumes
from tests.golden.samples import FULL
from tests.support.guests import install

KEY, BASE = "0123456789abcdef", "00000000000000aa"
KEPT = f"root-deltaimg-{KEY}-{BASE}"
DELTA = """<superblock uuid="" time="6" transaction="9" data_block_size="128" nr_data_blocks="0">
  <diff left="2" right="3">
    <same begin="0" length="100"/>
    <right_only begin="100" length="50"/>
  </diff>
</superblock>"""
STATUS = "0 524288 thin-pool 9 125/1024 1275/4096 - rw discard_passdown queue_if_no_space - 256 "


def row(name: str, attributes: str, **fields: str) -> dict[str, str]:
    """Return a row of `lvs` as it was printed, of a volume of 64 MiB in a pool of 256 MiB."""
    return {
        "vg_name": "vg", "lv_name": name, "lv_attr": attributes, "lv_size": "67108864", "lv_tags": "", "origin": "",
        "pool_lv": "pool", "vg_free": "1866465280", "vg_extent_size": "4194304", "data_percent": "14.65",
        "metadata_percent": "", "snap_percent": "14.65", "lv_kernel_major": "253", "lv_kernel_minor": "4", "thin_id": "1",
        "chunk_size": "0", "metadata_lv": "", "lv_dm_path": f"/dev/mapper/vg-{name}", "lv_uuid": f"uuid-of-{name}",
    } | fields  # fmt: skip


class Lvm:
    """The volumes of a group, and what the commands were told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.image, self.log, self._rows, self._status = (
            folder / "root",
            folder / "log",
            folder / "rows",
            folder / "status",
        )
        self.image.touch()
        self.rows = {
            "root": row("root", "Vwi-aot---"),
            "now": row("root-deltaimg-00000001", "Vri-aot---", origin="root", thin_id="3", lv_tags=name_owner()),
            "kept": row(
                KEPT, "Vri-a-t---", origin="root", thin_id="2", lv_tags=f"deltaimg.kept.uuid-of-{KEPT}"
            ),
            "pool": row(
                "pool", "twi-aot---", pool_lv="", thin_id="", lv_size="268435456", metadata_percent="12.21",
                chunk_size="65536", metadata_lv="[pool_tmeta]",
            ),
            "metadata": row("[pool_tmeta]", "ewi-ao----", pool_lv="", thin_id="", lv_dm_path="/dev/mapper/vg-pool_tmeta"),
        }  # fmt: skip
        self.write()
        log = f"echo \"$(basename $0) $*\" >> '{self.log}'"
        scripts = {
            "lvs": f"""case "$*" in
*lv_kernel_major=*) cat '{self._rows}.root' ;;
*lv_name=pool*) cat '{self._rows}.pool' ;;
*) cat '{self._rows}.all' ;;
esac""",
            "dmsetup": f"{log}; [ $1 = message ] || cat '{self._status}'",
            "thin_delta": f"[ $1 = -V ] && exec echo 0.9.0\n{log}\ncat <<'END'\n{DELTA}\nEND",
        }
        install(monkeypatch, folder / "bin", scripts | dict.fromkeys(("lvchange", "lvrename", "lvremove"), log))

    def write(self, status: str = STATUS) -> None:
        for name, rows in (
            ("all", list(self.rows.values())),
            ("root", [self.rows["root"]]),
            ("pool", [self.rows["pool"]]),
        ):
            Path(f"{self._rows}.{name}").write_text(json.dumps({"report": [{"lv": rows}]}))
        self._status.write_text(status)

    def tracker(self) -> ThinTracker:
        return ThinTracker.of(str(self.image), "/dev/vg/root-deltaimg-00000001", KEY)

    def told(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def lvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lvm:
    return Lvm(tmp_path, monkeypatch)


def base(**fields: Any) -> Manifest:
    return msgspec.structs.replace(FULL, id=BASE, size_bytes=67108864, **fields)


def test_the_kept_volume_of_the_base_is_compared_while_the_metadata_snapshot_is_held(lvm: Lvm) -> None:
    claim = lvm.tracker().find_changes(base())
    assert claim.changed is not None
    assert claim.changed.tolist() == [[100 * 64 * KIB, 150 * 64 * KIB]]
    verbs = [" ".join(line.split()[:1] + line.split()[-2:]) for line in lvm.told()]
    tag = f"held-{name_owner()}.t9"
    assert verbs == [
        "dmsetup status vg-pool-tpool",
        f"lvchange {tag} vg/pool",
        "dmsetup 0 reserve_metadata_snap",
        "thin_delta 3 /dev/mapper/vg-pool_tmeta",
        "dmsetup 0 release_metadata_snap",
        f"lvchange {tag} vg/pool",
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"origin": "other"}, "is of another volume than vg/root"),
        ({"origin": ""}, "is of another volume than vg/root"),
        ({"pool_lv": "pool2"}, "is of another volume than vg/root"),
        ({"lv_attr": "Vwi-a-t---"}, "may have been written to, or is another one of its name"),
        ({"lv_uuid": "uuid-of-another"}, "may have been written to, or is another one of its name"),
        ({"lv_tags": ""}, "may have been written to, or is another one of its name"),
        ({"lv_size": "33554432"}, "has another size than that had"),
    ],
)
def test_one_that_is_no_longer_what_it_was_is_not(lvm: Lvm, fields: dict[str, str], problem: str) -> None:
    lvm.rows["kept"] |= fields
    lvm.write()
    claim = lvm.tracker().find_changes(base())
    assert claim.changed is None
    assert claim.is_surprising
    assert claim.reason.endswith(problem)
    assert lvm.told() == []


def test_where_there_is_none_that_is_no_surprise(lvm: Lvm) -> None:
    lvm.rows["kept"]["lv_name"] = KEPT.replace(BASE, "00000000000000bb")
    lvm.write()
    claim = lvm.tracker().find_changes(base())
    assert (claim.changed, claim.is_surprising) == (None, False)
    assert claim.reason.endswith("; the kept one is of another")
    lvm.rows["kept"]["lv_name"] = KEPT.replace(KEY, "1123456789abcdef")
    lvm.write()
    assert not lvm.tracker().find_changes(base()).reason.endswith("another")


def test_the_volume_that_was_read_is_renamed_before_it_is_no_longer_a_leftover(lvm: Lvm) -> None:
    tracker = lvm.tracker()
    assert tracker.keep("00000000000000cc") is None
    name = f"root-deltaimg-{KEY}-00000000000000cc"
    assert lvm.told() == [
        f"lvrename --quiet vg root-deltaimg-00000001 {name}",
        "lvchange --yes --quiet --addtag deltaimg.kept.uuid-of-root-deltaimg-00000001 --setactivationskip y "
        f"--deltag {name_owner()} vg/{name}",
    ]
    tracker.settle("00000000000000cc")
    assert lvm.told()[2:] == [f"lvremove --yes --quiet vg/{KEPT}"]


def test_nothing_is_kept_in_a_pool_that_is_nearly_full(lvm: Lvm) -> None:
    tracker = lvm.tracker()
    lvm.rows["pool"]["metadata_percent"] = "85.20"
    lvm.write()
    assert tracker.keep("00000000000000cc") == (
        "the volume is not kept, so that the next backup reads everything: thin pool vg/pool is full to 85 %"
    )
    assert lvm.told() == []


def test_what_is_in_the_way_is_said(lvm: Lvm) -> None:
    assert find_obstacle(str(lvm.image)) == ""
    lvm.write(STATUS.replace("1275/4096 -", "1275/4096 118"))
    assert find_obstacle(str(lvm.image)) == "another program holds the metadata snapshot of its thin pool"
    lvm.write(STATUS.replace("space -", "space needs_check"))
    assert find_obstacle(str(lvm.image)) == "thin pool vg/pool has damaged metadata, which needs repair"
    lvm.rows["root"]["lv_attr"] = "-wi-ao----"
    lvm.write()
    assert find_obstacle(str(lvm.image)) == "is no thin volume"
    with pytest.raises(FreezeFailed, match="is no thin volume"):
        lvm.tracker()


def test_without_tracking_what_was_kept_of_this_image_alone_is_removed(lvm: Lvm) -> None:
    lvm.rows["other"] = lvm.rows["kept"] | {"lv_name": KEPT.replace(KEY, "1123456789abcdef")}
    lvm.write()
    remove_kept_volumes(str(lvm.image), KEY)
    assert lvm.told() == [f"lvremove --yes --quiet vg/{KEPT}"]


def choose(lvm: Lvm, track: str) -> Tracker | None:
    """Return what a backup would ask, of a volume that was frozen by LVM."""
    options = BackupOptions(track=track)
    request = FreezeRequest(str(lvm.image), options.freezing)
    held, writers = Unfrozen("/dev/vg/root-deltaimg-00000001"), Writers(Hooks(options.freezing, {}), 1)
    with closing(open_source(str(lvm.image))) as source:
        return choose_tracker(
            options, source, str(lvm.image), PointInTime(request, held, "lvm", "", writers), KEY, None
        )


def test_what_is_not_installed_is_said_and_nothing_else_that_has_the_word(lvm: Lvm, tmp_path: Path) -> None:
    assert isinstance(choose(lvm, "thin"), ThinTracker)
    program = tmp_path / "bin" / "thin_delta"
    program.write_text("#!/bin/sh\necho 'nothing is installed' >&2\nexit 1\n")
    with pytest.raises(UnsupportedImage, match="nothing is installed: --track thin cannot be used") as refused:
        choose(lvm, "thin")
    assert refused.value.hint == "--track auto takes what works here"
    program.unlink()
    if shutil.which("thin_delta", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        pytest.skip("thin_delta: it is installed")
    with pytest.raises(UnsupportedImage, match="thin_delta is not installed: --track thin cannot be used") as refused:
        choose(lvm, "thin")
    assert refused.value.hint == "it is in Debian's package thin-provisioning-tools"
    chosen = choose(lvm, "auto")
    assert chosen is not None
    assert chosen.find_changes(base()).reason == "LVM: thin_delta is not installed"
