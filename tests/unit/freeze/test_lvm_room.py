# SPDX-License-Identifier: Apache-2.0
"""What LVM reports, as it printed it, and the room that a snapshot gets. The commands themselves run in scripts/lvm-guest."""

from __future__ import annotations

import pytest

from deltaimg.errors import FreezeFailed
from deltaimg.freeze.interface import FreezeRequest
from deltaimg.freeze.lvm import choose_room
from deltaimg.freeze.lvm_commands import Volume, parse_report
from deltaimg.model import GIB, MIB
from deltaimg.options.freeze import FreezeOptions

REPORT = b"""
  {
      "report": [
          {
              "lv": [
                  {"vg_name":"vg", "lv_name":"root", "lv_attr":"owi-aos---", "lv_size":"268435456", "lv_tags":"", "origin":"",
                   "pool_lv":"", "vg_free":"1807745024", "vg_extent_size":"4194304", "data_percent":"", "metadata_percent":"",
                   "snap_percent":"", "lv_kernel_major":"253", "lv_kernel_minor":"0"},
                  {"vg_name":"vg", "lv_name":"snap", "lv_attr":"sri-I-s---", "lv_size":"67108864", "lv_tags":"a,b",
                   "origin":"root", "pool_lv":"", "vg_free":"1807745024", "vg_extent_size":"4194304", "data_percent":"100.00",
                   "metadata_percent":"", "snap_percent":"100.00", "lv_kernel_major":"253", "lv_kernel_minor":"3"},
                  {"vg_name":"vg", "lv_name":"[pool_tdata]", "lv_attr":"Twi-ao----", "lv_size":"67108864", "lv_tags":"",
                   "origin":"", "pool_lv":"", "vg_free":"0", "vg_extent_size":"4194304", "data_percent":"",
                   "metadata_percent":"", "snap_percent":"", "lv_kernel_major":"253", "lv_kernel_minor":"4"}
              ]
          }
      ]
  }
"""


def make_volume(size_bytes: int, free_bytes: int) -> Volume:
    return Volume("vg", "root", "-wi-ao----", size_bytes, (), "", "", free_bytes, 4 * MIB, 0.0, 0.0, 0.0)


def choose(size_bytes: int, free_bytes: int, *used: int, asked: int | None = None) -> int:
    request = FreezeRequest("/dev/vg/root", FreezeOptions(freeze="lvm", snapshot_bytes=asked), used)
    return choose_room(request, make_volume(size_bytes, free_bytes))


def test_a_report_is_read() -> None:
    root, snap, data = parse_report(REPORT)
    assert (root.full_name, root.size_bytes, root.free_bytes) == ("vg/root", 256 * MIB, 1807745024)
    assert (snap.tags, snap.origin, snap.snap_percent) == (("a", "b"), "root", 100.0)
    assert (root.is_snapshot, snap.is_snapshot, root.is_invalid, snap.is_invalid) == (False, True, False, True)
    assert data.name == "pool_tdata"
    assert not data.is_thin


def test_the_first_snapshot_gets_a_tenth_of_the_volume_in_whole_extents() -> None:
    assert choose(100 * GIB, 50 * GIB) == 10 * GIB
    assert choose(4 * GIB + 1, 50 * GIB) == -(-(4 * GIB // 10) // (4 * MIB)) * 4 * MIB
    assert choose(100 * MIB, 50 * GIB) == 64 * MIB


def test_later_ones_get_three_times_what_the_last_took_at_most() -> None:
    assert choose(100 * GIB, 50 * GIB, 0, GIB, 2 * GIB) == 6 * GIB
    assert choose(100 * GIB, 50 * GIB, *[0] * 5, 9 * GIB) == 10 * GIB
    assert choose(100 * GIB, 50 * GIB, MIB) == 64 * MIB


def test_no_more_than_the_group_has_free_unless_asked() -> None:
    assert choose(100 * GIB, GIB) == GIB
    assert choose(100 * GIB, 50 * GIB, asked=GIB + 1) == GIB + 4 * MIB
    with pytest.raises(FreezeFailed, match="has 60 MiB free"):
        choose(100 * GIB, 60 * MIB)
    with pytest.raises(FreezeFailed, match="a snapshot of 2048 MiB does not fit"):
        choose(100 * GIB, GIB, asked=2 * GIB)
