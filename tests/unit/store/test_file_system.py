# SPDX-License-Identifier: Apache-2.0
"""What other hosts may reach, told from the type of the file system."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deltaimg.store.file_system import find_type, is_on_one_host


def test_a_file_system_of_the_kernel_itself_is_of_one_host() -> None:
    assert find_type("/proc") == "proc"
    assert not is_on_one_host("/proc")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount")
def test_the_last_of_several_mounts_counts_and_names_may_have_spaces(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        assert find_type(str(place)) == "tmpfs"
        assert is_on_one_host(str(tmp_path / "link"))
        subprocess.run(["mount", "-t", "proc", "none", place], check=True)
        assert not is_on_one_host(str(place / "self"))
        subprocess.run(["umount", place], check=True)
    finally:
        subprocess.run(["umount", place], check=True)
    assert not is_on_one_host("") or find_type("/")
