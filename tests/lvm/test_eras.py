# SPDX-License-Identifier: Apache-2.0
"""dm-era through `--hints`, by the script that docs/sources.md prints."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaimg.api.backup import backup
from deltaimg.errors import HookFailed
from deltaimg.format.manifest import Manifest
from deltaimg.model import MIB
from deltaimg.options.backup import BackupOptions
from tests.support.lvm import GROUP, Disk, list_made, run, volume_group

pytestmark = pytest.mark.lvm

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "sources.md"
SIZE_BYTES = 24 * MIB
ERA, METADATA, VOLUME = "deltaimg-era", f"/dev/{GROUP}/era", f"/dev/{GROUP}/root"


class EraDisk(Disk):
    """What is written to a device over a volume, and the script that says what that was."""

    def __init__(self, folder: Path) -> None:
        super().__init__("root", SIZE_BYTES)
        self.path = f"/dev/mapper/{ERA}"
        self.state, self.hints, self.script = folder / "state", folder / "hints", folder / "era-hints"
        [text] = re.findall(r"```sh\n(#!/bin/sh -e\n# era-hints .*?)```", DOCUMENT.read_text(), re.DOTALL)
        self.script.write_text(text)
        self.script.chmod(0o755)

    def call(self, verb: str) -> str:
        return f"{self.script} {verb} {ERA} {METADATA} {self.state}"

    def back_up_volume(self, *, has_hints: bool = True) -> Manifest:
        options = BackupOptions(
            freeze="lvm",
            pre_freeze=self.call("begin"),
            post_freeze=f"{self.call('list')} > {self.hints}" if has_hints else None,
            hints=str(self.hints) if has_hints else None,
            workers=1,
        )
        manifest = backup(self.repository, VOLUME, "vm1", options, progress=self.progress)
        run(*self.call("keep").split(), manifest.id)
        return manifest


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[EraDisk]:
    with volume_group():
        run("lvcreate", "--yes", "-L", f"{SIZE_BYTES}b", "-n", "root", GROUP)
        run("lvcreate", "--yes", "-L", "4M", "-n", "era", GROUP)
        run("dd", "if=/dev/zero", f"of={METADATA}", "bs=4k", "count=1")
        run("dmsetup", "create", ERA, "--table", f"0 {SIZE_BYTES // 512} era {METADATA} {VOLUME} 128")
        try:
            made = EraDisk(tmp_path)
            made.fill(12 * MIB)
            yield made
        finally:
            run("dmsetup", "remove", ERA)


def is_held() -> bool:
    return run("dmsetup", "status", ERA).split()[6] != "-"


def test_what_was_written_since_the_era_of_the_last_snapshot_is_read(disk: EraDisk, tmp_path: Path) -> None:
    disk.back_up_volume(has_hints=False)
    for change in (disk.write, lambda: None, lambda: disk.fill(MIB, 20 * MIB), lambda: disk.write(30)):
        change()
        manifest = disk.back_up_volume()
        assert manifest.tracking is not None
        assert (manifest.tracking.method, manifest.tracking.refuted_blocks) == ("hints", 0), manifest.tracking.reason
        assert manifest.tracking.unchanged_bytes > SIZE_BYTES - 31 * (64 + 32) * 1024 - MIB
        disk.assert_restores(manifest, tmp_path)
        assert not is_held()
        assert list_made() == []


def test_a_run_that_fails_loses_nothing_and_what_others_hold_stays(disk: EraDisk, tmp_path: Path) -> None:
    disk.back_up_volume(has_hints=False)
    disk.write()
    run("dmsetup", "message", ERA, "0", "take_metadata_snap")
    with pytest.raises(HookFailed):
        disk.back_up_volume()
    assert is_held()
    # The mark of a run of ours that was killed: now it is ours.
    Path(f"{disk.state}.held").touch()
    disk.write()
    manifest = disk.back_up_volume()
    assert manifest.tracking is not None
    assert manifest.tracking.method == "hints"
    disk.assert_restores(manifest, tmp_path)
    assert not is_held()
    assert not os.path.exists(f"{disk.state}.held")
