# SPDX-License-Identifier: Apache-2.0
"""Images of guests for tests of what is on them: made by the tools of each file system, and read by ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.source_bytes import SourceBytes
from deltaimg.guest.window import Window
from deltaimg.image.open_source import open_source
from deltaimg.model import KIB
from tests.support.components import requires_program


def run(*command: object, given: str | None = None, codes: tuple[int, ...] = (0,)) -> str:
    """Run a tool, or skip where it is not installed."""
    requires_program(str(command[0]))
    done = subprocess.run(
        [str(word) for word in command], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in codes, (command, done.stdout, done.stderr)
    return done.stdout


def free_blocks(path: Path, find_free: Callable[[Window], FreeBlocks | str]) -> FreeBlocks | str:
    source = open_source(str(path))
    try:
        return find_free(Window(SourceBytes(source), 0, source.size_bytes or 0))
    finally:
        source.close()


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def overwrite(image: Path, free: FreeBlocks) -> None:
    """Write to all that is free."""
    with open(image, "r+b") as file:
        for start, end in free.bounds.tolist():
            file.seek(start)
            file.write((b"\xa5" * 4095 + bytes([end % 251])) * ((end - start) // KIB // 4) or b"\xa5" * (end - start))
