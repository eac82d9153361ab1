# SPDX-License-Identifier: Apache-2.0
"""Peers that keep all backups in one repository and can forget some of them: deltaimg, restic and borg.

Compression is zstd at level 3 (restic: `auto`, which is zstd's default level). Nothing is encrypted where a keeper can do
without: borg uses `-e none`; restic always encrypts and cannot be told not to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from measuring.process import Command
from peer import CHECKOUT, IMAGE_NAME, GuestImage, Peer, output_of


class Keeper(Peer):
    """A peer that keeps all backups in one repository, from which any of them can be forgotten."""

    changes_files = False
    """Whether it writes into files of its repository, so that copies must not share any."""

    @abstractmethod
    def backup_kept(self, state: Path, at: GuestImage, *, is_kept: bool) -> Command:
        """Back an image up, marked as one that `forget` keeps or not."""

    @abstractmethod
    def listing(self, state: Path) -> Command:
        """Print all snapshots as JSON: a list, or an object with the list `archives`."""

    @abstractmethod
    def forget(self, state: Path, numbers: Sequence[int]) -> Command:
        """Forget these backups, all that were not marked as kept."""

    @abstractmethod
    def forget_all_but(self, state: Path, kept: int, backups: int) -> Command:
        """Forget all of so many backups but the newest `kept`."""

    @abstractmethod
    def prune(self, state: Path, *, may_repack: bool) -> Command:
        """Give back what no backup needs; without repacking only what can be deleted whole."""


class Deltaimg(Keeper):
    """deltaimg through its command line, a process a command."""

    name = "deltaimg"
    program = sys.executable
    package = ""
    init_options: tuple[str, ...] = ()

    def version(self) -> str:
        return output_of(self.command("version")).splitlines()[0]

    def is_missing(self) -> bool:
        return subprocess.run(self.command("version"), cwd=CHECKOUT, capture_output=True, check=False).returncode != 0

    @staticmethod
    def command(*arguments: str) -> tuple[str, ...]:
        """A command line of deltaimg."""
        return (sys.executable, "-m", "deltaimg", *arguments)

    @staticmethod
    def environment(state: Path) -> dict[str, str]:
        """The cache stays in the state, and so does what this host remembers of its runs.

        A state that is put back for another repetition is else a repository that lost what the host remembers.
        """
        folders = {"XDG_CACHE_HOME": str(state / "cache"), "XDG_STATE_HOME": str(state / "state")}
        return {**folders, "PYTHONPATH": str(CHECKOUT)}

    def prepare(self, state: Path) -> None:
        super().prepare(state)
        (state / "repo").rmdir()
        environment = {**os.environ, **self.environment(state)}
        command = self.command("init", *self.init_options, "-r", str(state / "repo"))
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

    def backup(self, state: Path, at: GuestImage) -> Command:
        options = ("--image", IMAGE_NAME, "-r", str(state / "repo"), "--json")
        return Command(self.command("backup", str(at.image), *options), state, self.environment(state))

    def restore(self, state: Path, target: Path, at: GuestImage) -> Command:
        snapshot = f"{IMAGE_NAME}@latest" + (f"~{at.tip - at.number}" if at.tip > at.number else "")
        command = self.command("restore", snapshot, str(target / "guest.raw"), "-r", str(state / "repo"), "--json")
        return Command(command, state, self.environment(state))

    @staticmethod
    def new_bytes(output: str) -> list[int]:
        objects = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        return [said["new_bytes"] for said in objects if "new_bytes" in said]

    def verify_commands(self, state: Path) -> dict[str, Command]:
        return {"all": self.on(state, "verify"), "tip": self.on(state, "verify", f"{IMAGE_NAME}@latest")}

    def backup_kept(self, state: Path, at: GuestImage, *, is_kept: bool) -> Command:
        options = ("--tag", "keep") if is_kept else ()
        return self.on(state, "backup", str(at.image), "--image", IMAGE_NAME, *options)

    def listing(self, state: Path) -> Command:
        return self.on(state, "snapshots")

    def forget(self, state: Path, numbers: Sequence[int]) -> Command:  # noqa: ARG002 - those that have no mark
        return self.on(state, "forget", IMAGE_NAME, "--keep-tag", "keep")

    def forget_all_but(self, state: Path, kept: int, backups: int) -> Command:  # noqa: ARG002 - it counts them itself
        return self.on(state, "forget", IMAGE_NAME, "--keep-last", str(kept))

    def prune(self, state: Path, *, may_repack: bool) -> Command:
        return self.on(state, "prune", *(() if may_repack else ("--max-repack", "0")))

    def on(self, state: Path, *arguments: str) -> Command:
        """A command line on the repository of a state."""
        command = self.command(*arguments, "-r", str(state / "repo"), "--json")
        return Command(command, state, self.environment(state))


class Restic(Keeper):
    """restic: content-defined chunks of about 1 MiB, always encrypted."""

    name = "restic"
    program = package = "restic"
    version_arguments = ("version",)

    def prepare(self, state: Path) -> None:
        super().prepare(state)
        self._run_now(state, "init")

    def backup(self, state: Path, at: GuestImage) -> Command:
        arguments = self._command(state, "backup", "--tag", f"backup{at.number}", at.image.name)
        return Command(arguments, at.image.parent, self._environment())

    def restore(self, state: Path, target: Path, at: GuestImage) -> Command:
        arguments = self._command(state, "restore", "latest", "--tag", f"backup{at.number}", "--target", str(target))
        return Command(arguments, state, self._environment())

    def verify_commands(self, state: Path) -> dict[str, Command]:
        return {"all": self.on(state, "check", "--read-data")}

    def backup_kept(self, state: Path, at: GuestImage, *, is_kept: bool) -> Command:
        arguments = ("backup", "--tag", "keep" if is_kept else "drop", at.image.name)
        return Command(self._command(state, *arguments), at.image.parent, self._environment())

    def listing(self, state: Path) -> Command:
        return self.on(state, "snapshots", "--json")

    def forget(self, state: Path, numbers: Sequence[int]) -> Command:  # noqa: ARG002 - those that have no mark
        return self.on(state, "forget", "--keep-tag", "keep")

    def forget_all_but(self, state: Path, kept: int, backups: int) -> Command:  # noqa: ARG002 - it counts them itself
        return self.on(state, "forget", "--group-by", "", "--keep-last", str(kept))

    def prune(self, state: Path, *, may_repack: bool) -> Command:
        return self.on(state, "prune", *(() if may_repack else ("--max-repack-size", "0")))

    def on(self, state: Path, *arguments: str) -> Command:
        """A command line on the repository of a state."""
        return Command(self._command(state, *arguments), state, self._environment())

    def _run_now(self, state: Path, *arguments: str) -> None:
        environment = {**os.environ, **self._environment()}
        subprocess.run(self._command(state, *arguments), env=environment, check=True, stdout=subprocess.DEVNULL)

    @staticmethod
    def _command(state: Path, verb: str, *arguments: str) -> tuple[str, ...]:
        return ("restic", "-q", "-r", str(state / "repo"), "--cache-dir", str(state / "cache"), verb, *arguments)

    @staticmethod
    def _environment() -> dict[str, str]:
        return {"RESTIC_PASSWORD": "benchmark"}


class Borg(Keeper):
    """BorgBackup, unencrypted, with the chunker given."""

    program = "borg"
    package = "borgbackup"
    encryption = "none"
    changes_files = True  # It truncates what it deletes, for file systems that need space to delete.

    def __init__(self, name: str, *create_options: str) -> None:
        self.name = name
        self._create_options = create_options

    def prepare(self, state: Path) -> None:
        super().prepare(state)
        environment = {**os.environ, **self._environment(state)}
        command = ["borg", "init", "-e", self.encryption, str(state / "repo")]
        subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)

    def backup(self, state: Path, at: GuestImage) -> Command:
        archive = f"{state / 'repo'}::backup{at.number}"
        command = ("borg", "create", "--compression", "zstd,3", *self._create_options, archive, at.image.name)
        return Command(command, at.image.parent, self._environment(state))

    def restore(self, state: Path, target: Path, at: GuestImage) -> Command:
        command = ("borg", "extract", "--sparse", f"{state / 'repo'}::backup{at.number}")
        return Command(command, target, self._environment(state))

    def verify_commands(self, state: Path) -> dict[str, Command]:
        return {"all": self.on(state, "check", "--verify-data", str(state / "repo"))}

    def backup_kept(self, state: Path, at: GuestImage, *, is_kept: bool) -> Command:  # noqa: ARG002 - archives have names
        return self.backup(state, at)

    def listing(self, state: Path) -> Command:
        return self.on(state, "list", "--json", str(state / "repo"))

    def forget(self, state: Path, numbers: Sequence[int]) -> Command:
        return self.on(state, "delete", str(state / "repo"), *(f"backup{number}" for number in numbers))

    def forget_all_but(self, state: Path, kept: int, backups: int) -> Command:
        return self.forget(state, range(backups - kept))

    def prune(self, state: Path, *, may_repack: bool) -> Command:
        return self.on(state, "compact", *(() if may_repack else ("--threshold", "99")), str(state / "repo"))

    def on(self, state: Path, *arguments: str) -> Command:
        """A command line with the settings of a state."""
        return Command(("borg", *arguments), state, self._environment(state))

    @staticmethod
    def _environment(state: Path) -> dict[str, str]:
        return {
            "BORG_BASE_DIR": str(state / "cache"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }
