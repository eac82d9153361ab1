# SPDX-License-Identifier: Apache-2.0
"""pyrsync2 0.2.6, against which `deltaimg.rsync` is held, as pip installs it.

Its setup.py gives the licence as a list, which no current setuptools takes. So pip builds it with the setuptools of this
environment, which a module that Python loads by itself at its start teaches to take the list's first entry.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

VERSION = "0.2.6"
_TIMEOUT_S = 120
_TEACH_SETUPTOOLS = """
import setuptools.dist

original = setuptools.dist.Distribution.__init__

def take_first_licence(self, attrs=None):
    attrs = dict(attrs or {})
    if isinstance(attrs.get("license"), list):
        attrs["license"] = attrs["license"][0]
    original(self, attrs)

setuptools.dist.Distribution.__init__ = take_first_licence
"""


class CannotInstall(Exception):
    """There is no pyrsync2 here, and pip cannot get it; says why in one line."""


def load_pyrsync2(folder: Path) -> ModuleType:
    """Return pyrsync2, installed below `folder` unless it is there from another time."""
    home = folder / f"pyrsync2-{VERSION}"
    if not home.exists():
        _install(home)
    sys.path.insert(0, str(home))
    try:
        return importlib.import_module("pyrsync2")
    finally:
        sys.path.remove(str(home))


def _install(home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as trial:
        (Path(trial) / "teach").mkdir()
        (Path(trial) / "teach" / "sitecustomize.py").write_text(_TEACH_SETUPTOOLS)
        target = Path(trial) / "target"
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary", "pyrsync2",
            "--retries", "1", "--target", str(target), f"pyrsync2=={VERSION}",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(Path(trial) / "teach")}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise CannotInstall(f"pip had not installed it after {_TIMEOUT_S} seconds") from error
        if done.returncode:
            raise CannotInstall(f"pip cannot install it: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        try:
            target.rename(home)
        except OSError:
            # Another process was faster.
            if not home.exists():
                raise
