# SPDX-License-Identifier: Apache-2.0
"""What docs/schedule.md offers to copy works: the script backs up and goes on after an error, systemd accepts the units."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.components import requires_program
from tests.support.images import make_mixed_image
from tests.support.program import environment, succeed

DOCUMENT = (Path(__file__).parents[2] / "docs" / "schedule.md").read_text()
UNITS = re.findall(r"`/etc/systemd/system/([\w.-]+)`.*?```ini\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script, and a deltaimg that it finds."""
    found = re.search(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    path, program = tmp_path / "bin" / "back-up-images", tmp_path / "bin" / "deltaimg"
    path.parent.mkdir()
    path.write_text(found[1])
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m deltaimg "$@"\n')
    for each in (path, program):
        each.chmod(0o755)
    return path


def run(script: Path, images: Path, repo: Path) -> subprocess.CompletedProcess[str]:
    variables = environment(repo) | {"PATH": f"{script.parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [str(script), str(images)], env=variables, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_script_is_silent_and_an_image_that_fails_costs_no_other(script: Path, tmp_path: Path) -> None:
    images, repo = tmp_path / "images", tmp_path / "repo"
    images.mkdir()
    succeed("init", repo=repo)
    for name in ("vm1.raw", "vm 2.raw"):
        make_mixed_image(200_000).save(images / name)
    done = run(script, images, repo)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (images / "a.raw").write_bytes(b"")
    done = run(script, images, repo)
    assert (done.returncode, done.stdout) == (11, "")
    assert "a.raw: is empty" in done.stderr
    listed = [each["image"] for each in succeed("snapshots", "--json", repo=repo).json]
    assert sorted(listed) == ["vm 2.raw", "vm 2.raw", "vm1.raw", "vm1.raw"]


def test_systemd_accepts_the_units(script: Path, tmp_path: Path) -> None:
    requires_program("systemd-analyze")
    assert [name for name, _ in UNITS] == ["deltaimg.service", "deltaimg.timer", "deltaimg-failed.service"]
    for name, content in UNITS:
        (tmp_path / name).write_text(content.replace("/usr/local/sbin/back-up-images", str(script)))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name, _ in UNITS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not [line for line in done.stderr.splitlines() if str(tmp_path) in line or "deltaimg" in line], done.stderr
