# SPDX-License-Identifier: Apache-2.0
"""Starting up loads what a command needs: help texts load neither NumPy nor what works on repositories."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deltaimg.cli.app import COMMANDS

_OTHER_SOURCES = (
    "cffi",
    "deltaimg.freeze.lvm",
    "deltaimg.freeze.qmp",
    "deltaimg.image.nbd.client",
    "deltaimg.image.qemu.server",
    "deltaimg.image.rbd.library",
)
_HEAVY = ("numpy", "zstandard", "deltaimg.engine", "deltaimg.repo", "deltaimg.store", "deltaimg.api")


def modules_of(*arguments: str) -> list[str]:
    """Return the modules that a command line imports."""
    command = [sys.executable, "-X", "importtime", "-m", "deltaimg", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return [line.rpartition("|")[2].strip() for line in lines]


def heavy(modules: list[str]) -> list[str]:
    return [name for name in modules if any(name == each or name.startswith(f"{each}.") for each in _HEAVY)]


@pytest.mark.parametrize("arguments", [("--help",), ("version",), ("--version",)])
def test_what_needs_no_repository_loads_nothing_for_one(arguments: tuple[str, ...]) -> None:
    assert heavy(modules_of(*arguments)) == []


def test_the_help_of_a_command_loads_nothing_for_its_work() -> None:
    """One process for all: what the modules of the commands import at their beginnings."""
    code = f"""import sys
from deltaimg.cli.app import find_function
for name in {COMMANDS!r}: find_function(name)
print(*sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "deltaimg.cli.backup" in done.stdout.split()
    assert heavy(done.stdout.split()) == []


def test_signals_are_handled_before_anything_that_takes_time_is_loaded() -> None:
    """Until then CTRL-C shows the traceback of what is being imported."""
    modules = modules_of("version")
    assert modules.index("deltaimg") < modules.index("typing")
    assert modules.index("signal") < modules.index("typing")


def test_the_list_of_commands_loads_none_of_them() -> None:
    assert {"deltaimg.cli.app"} == {f"deltaimg.cli.{each}" for each in (*COMMANDS, "app")} & set(modules_of("--help"))


def test_a_backup_of_an_unchanged_flat_image_loads_no_other_source_and_no_encoder(tmp_path: Path) -> None:
    image, repository = tmp_path / "vm1.raw", str(tmp_path / "repo")
    image.write_bytes(bytes(range(256)) * 1024)
    arguments = ("backup", str(image), "--image", "vm1", "-r", repository, "--no-cache")
    modules_of("init", "-r", repository)
    changed, unchanged = modules_of(*arguments), modules_of(*arguments)
    assert "deltaimg.delta.encode" in changed
    assert not {*_OTHER_SOURCES, "deltaimg.delta.encode"} & set(unchanged)
