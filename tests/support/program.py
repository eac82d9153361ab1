# SPDX-License-Identifier: Apache-2.0
"""Run the real program, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forking import run_forked

TIMEOUT_S = 120
AFTER_PROGRAM = 3
"""How many words of a command line name the program."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a finished command said."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


def command(*arguments: object) -> list[str]:
    """Return the command line that runs deltaimg with `arguments`."""
    return [sys.executable, "-m", "deltaimg", *(os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments)]


def environment(repo: Path | None) -> dict[str, str]:
    """Return this process's environment with, or without, a repository named in it; of other settings the kernels only."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DELTAIMG_") or name == "DELTAIMG_KERNELS"
    }
    return kept | ({"DELTAIMG_REPO": str(repo)} if repo else {})


def deltaimg(*arguments: object, repo: Path | None = None, stdin: bytes | None = None) -> Run:
    """Run deltaimg; no traceback and no message of several kinds may ever come out of it."""
    line, variables = command(*arguments), environment(repo)
    done = run_forked(line[AFTER_PROGRAM:], variables, stdin, TIMEOUT_S)
    if done is None:
        done = subprocess.run(line, input=stdin, capture_output=True, env=variables, check=False, timeout=TIMEOUT_S)
    run = Run(done.returncode, done.stdout, done.stderr.decode())
    assert "Traceback" not in run.err, run.err
    assert "internal error" not in run.err, run.err
    return run


def succeed(*arguments: object, repo: Path | None = None, stdin: bytes | None = None) -> Run:
    """Run deltaimg, which must succeed."""
    run = deltaimg(*arguments, repo=repo, stdin=stdin)
    assert run.code == 0, run.err
    return run


def fail(code: int, *arguments: object, repo: Path | None = None, stdin: bytes | None = None) -> str:
    """Run deltaimg, which must fail with `code` and one line, whose text is returned; a hint may follow."""
    run = deltaimg(*arguments, repo=repo, stdin=stdin)
    assert run.code == code, (run.code, run.err)
    said = [line for line in run.err.splitlines() if line.startswith("deltaimg: ") and "warning:" not in line]
    assert len(said) == 1, run.err
    return said[0]


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder, to show that nothing changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
