# SPDX-License-Identifier: Apache-2.0
"""How much memory an object may claim by what its header declares, and the error for one that claims more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deltaimg import memory
from deltaimg.arrays import RUN
from deltaimg.errors import MemoryLimitReached, UsageError
from deltaimg.format.index import parse_index
from deltaimg.format.map import RUN_MEMORY_BYTES, MapObject, build_map, parse_map
from tests.golden import forge
from tests.support.program import environment

MIB = 1 << 20


def limit_under(shell: str) -> int:
    script = f'{shell} && exec "{sys.executable}" -c "from deltaimg.memory import limit_bytes; print(limit_bytes())"'
    done = subprocess.run(["sh", "-c", script], env=environment(None), capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize(("text", "expected"), [("4096", 4096), ("16K", 2**14), ("3m", 3 * MIB), (" 2G ", 2**31)])
def test_the_setting_is_a_size(monkeypatch: pytest.MonkeyPatch, text: str, expected: int) -> None:
    monkeypatch.setenv(memory.SETTING, text)
    assert memory.limit_bytes() == expected


@pytest.mark.parametrize("text", ["much", "-1", "1.5G", "4 G", "4GG", "0x10"])
def test_a_setting_that_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(memory.SETTING, text)
    with pytest.raises(UsageError, match=memory.SETTING):
        memory.limit_bytes()


def test_half_of_what_a_limited_process_may_still_have_is_the_limit() -> None:
    assert 700 * MIB < limit_under("ulimit -v 2000000") < 1_024_000_000
    assert 100 * MIB < limit_under("ulimit -d 400000") < 204_800_000
    assert limit_under("true") > limit_under("ulimit -v 2000000")


def test_the_least_limit_of_the_groups_above_counts(tmp_path: Path) -> None:
    groups, top = tmp_path / "cgroup", tmp_path / "sys"
    (top / "a" / "b").mkdir(parents=True)
    (top / "memory" / "c").mkdir(parents=True)
    (top / "a" / "memory.max").write_text("300\n")
    (top / "a" / "b" / "memory.max").write_text("max\n")
    (top / "memory" / "c" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (top / "memory" / "memory.limit_in_bytes").write_text("500\n")
    groups.write_text("4:memory,hugetlb:/c\n3:cpuset:/d\n0::/a/b\n")
    assert sorted(memory._group_limits(top, groups)) == [300, 500, 9223372036854771712]
    groups.write_text("0::/../../outside\n")
    (top / "memory.max").write_text("700\n")
    assert list(memory._group_limits(top, groups)) == [700]
    assert list(memory._group_limits(top, tmp_path / "none")) == []


def test_a_map_or_an_index_beyond_the_limit_is_one_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = np.array([(at, 1, at % 2) for at in range(50_000)], RUN)
    data = build_map(MapObject(50_000, np.empty((0, 16), np.uint8), np.empty(0, np.uint16), runs))
    index = forge.forge_index(packs=3, entries=[{}] * 40_000)
    monkeypatch.setenv(memory.SETTING, str(RUN_MEMORY_BYTES * 50_000 - 1))
    with pytest.raises(MemoryLimitReached, match=r"^maps/x: what it says takes 4 MiB of memory; the limit is 4 MiB"):
        parse_map(data, "maps/x")
    with pytest.raises(MemoryLimitReached, match=r"^index/x: "):
        parse_index(index, "index/x")
    monkeypatch.setenv(memory.SETTING, "5M")
    assert len(parse_map(data, "maps/x").runs) == 50_000
    assert len(parse_index(index, "index/x").entries) == 40_000


def test_the_page_cache_has_what_is_free_and_no_more_than_the_groups_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:       24683956 kB\nMemFree:          100 kB\nMemAvailable:   3000 kB\n")
    assert memory._free_bytes(told) == 3000 << 10
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    assert memory._free_bytes(tmp_path / "none") == half
    told.write_text("MemTotal:       24683956 kB\n")
    assert memory._free_bytes(told) == half
    monkeypatch.setattr(memory, "_free_bytes", lambda: 700)
    for limits, found in (((), 700), ((900, 800), 700), ((900, 600), 600)):
        monkeypatch.setattr(memory, "_group_limits", lambda limits=limits: iter(limits))
        assert memory.page_cache_bytes() == found
