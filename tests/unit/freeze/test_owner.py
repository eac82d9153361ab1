# SPDX-License-Identifier: Apache-2.0
"""Names of what a process made: left over only if that process is certainly dead."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deltaimg.freeze import owner
from deltaimg.freeze.owner import is_left_over, name_owner


def test_what_this_process_made_is_not_left_over() -> None:
    assert not is_left_over(name_owner())
    assert not is_left_over(f"{name_owner()}-0badcafe")


def test_what_a_process_that_ended_made_is_left_over() -> None:
    program = "from deltaimg.freeze.owner import name_owner; print(name_owner())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert is_left_over(done.stdout.strip())
    assert is_left_over(f"{done.stdout.strip()}-0badcafe")


def test_what_was_made_before_the_last_boot_of_this_host_is_left_over() -> None:
    host, _, process = name_owner().split(".")
    place = owner.find_own_place()
    assert is_left_over(f"{host}.00000000.{process}") == bool(place.boot_id and place.machine)


def test_what_another_host_or_container_made_stays() -> None:
    host, boot, process = name_owner().split(".")
    assert not is_left_over(f"{owner.PREFIX}00000000.{boot}.{process}")
    assert not is_left_over(f"{owner.PREFIX}00000000.00000000.{process}")
    _, pid, start = process.split("-")
    assert not is_left_over(f"{host}.{boot}.{'0' * 16}-{pid}-{start}")


@pytest.mark.parametrize("text", ["", "deltaimg-", "deltaimg-old", "snapshot", "deltaimg-00000000.00000000.x"])
def test_what_has_no_such_name_stays(text: str) -> None:
    assert not is_left_over(text)
