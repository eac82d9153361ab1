# SPDX-License-Identifier: Apache-2.0
"""Programs called `xl` and `virsh` that print what the real ones printed once: see README.md beside this file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def read_captured(name: str, paths: Mapping[str, object] | None = None) -> str:
    """Return what a program printed, with other paths in it."""
    text = (FOLDER / name).read_text()
    for old, new in (paths or {}).items():
        assert old in text
        text = text.replace(old, str(new))
    return text


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, scripts: Mapping[str, str]) -> None:
    """Put shell scripts on the PATH under these names, before all else; of the real programs of these names there is none."""
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def make_xl(listed: Path, log: Path, state: str = "------") -> str:
    """Return a script that knows one guest, web1, as `xl` does; what it is told goes to `log`."""
    return f"""
case "$*" in
"list -l web1") cat '{listed}' ;;
"list web1") sed 's/------/{state}/' '{FOLDER / "xl-list.txt"}' ;;
"list "*) echo "$2 is an invalid domain identifier (rc=-6)" >&2; exit 1 ;;
*) echo "xl $*" >> '{log}' ;;
esac
"""


def make_virsh(dumped: Path, log: Path, state: str = "running") -> str:
    """Return the same for `virsh`."""
    return f"""
case "$*" in
"dumpxml web1") cat '{dumped}' ;;
"domstate web1") echo '{state}'; echo ;;
"dumpxml "*|"domstate "*) echo "error: failed to get domain '$2'" >&2; exit 1 ;;
*) echo "virsh $*" >> '{log}' ;;
esac
"""
