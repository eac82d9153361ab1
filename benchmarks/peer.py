# SPDX-License-Identifier: Apache-2.0
"""What a peer is: a way to keep backups of a guest, as a few commands.

A peer keeps all it has below one folder, its *state*: `repo/` is what counts as stored, `cache/` is what it keeps on
the client. An image always lies at the same path, as a guest's disk does, with another inode and time for each
backup, so that every peer scans it.
"""

from __future__ import annotations

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring.files import remove
from measuring.process import Command

CHECKOUT = Path(__file__).resolve().parent.parent
IMAGE_NAME = "guest"


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What one backup reads: its number, the image, that of the backup before, and the number of the newest backup."""

    number: int
    image: Path
    previous: Path
    tip: int


class Peer(ABC):
    """One way to keep backups of a guest."""

    name: str
    program: str
    package: str
    version_arguments: tuple[str, ...] = ("--version",)
    needs_previous = False  # reads the image of the backup before

    def is_missing(self) -> bool:
        """Whether its program is not installed."""
        return shutil.which(self.program) is None

    def version(self) -> str:
        """The first line that it prints about itself."""
        return output_of([self.program, *self.version_arguments]).splitlines()[0].strip("* ")

    def prepare(self, state: Path) -> None:
        """Make a fresh, empty repository; not timed."""
        remove(state)
        (state / "repo").mkdir(parents=True)
        (state / "cache").mkdir()

    def make_room(self, state: Path) -> None:  # noqa: B027 - most peers keep every backup
        """Remove what a peer would not keep beside the coming backup; not timed."""

    @abstractmethod
    def backup(self, state: Path, at: GuestImage) -> Command:
        """Back an image up."""

    @abstractmethod
    def restore(self, state: Path, target: Path, at: GuestImage) -> Command:
        """Restore a backup into the empty folder `target`."""

    def verify_commands(self, state: Path) -> dict[str, Command]:  # noqa: ARG002 - a plain file has nothing to verify it by
        """Commands that read and verify all that is stored, by the row that they are measured in."""
        return {}

    @staticmethod
    def new_bytes(output: str) -> list[int]:  # noqa: ARG004 - most peers do not say
        """How much of the image a backup says it encoded; empty when it does not say."""
        return []

    @staticmethod
    def restored(target: Path) -> Path:
        """The image that a restore has written: the only file below its target."""
        (found,) = [path for path in target.rglob("*") if path.is_file()]
        return found


def output_of(command: Sequence[str]) -> str:
    """All that a command prints, whatever its exit code."""
    done = subprocess.run(
        command, cwd=CHECKOUT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout.strip()
