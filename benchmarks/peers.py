#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deltaimg and those it is measured against, each as a few commands.

A peer keeps all it has below one folder, its *state*: `repo/` is what counts as stored, `cache/` is what it keeps on
the client. A night's image always lies at the same path, as a guest's disk does, with another inode and time each
night, so that every peer scans it. Compression is zstd at level 3 (restic: `auto`, which is zstd's default level).
Nothing is encrypted where a peer can do without: borg uses `-e none`; restic always encrypts and cannot be told not to.

    python benchmarks/peers.py      lists the peers, their versions, and what is missing
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring.files import remove
from measuring.process import Command

CHECKOUT = Path(__file__).resolve().parent.parent
IMAGE_NAME = "guest"


@dataclass(frozen=True, slots=True)
class Night:
    """One night of a guest: its image, that of the night before, and the newest night that is kept."""

    number: int
    image: Path
    previous: Path
    tip: int


class Peer(ABC):
    """One way to keep a guest's nights."""

    name: str
    program: str
    package: str
    version_arguments: tuple[str, ...] = ("--version",)
    needs_previous = False  # reads the image of the night before

    def is_missing(self) -> bool:
        """Whether its program is not installed."""
        return shutil.which(self.program) is None

    def version(self) -> str:
        """The first line that it prints about itself."""
        return _output_of([self.program, *self.version_arguments]).splitlines()[0].strip("* ")

    def prepare(self, state: Path) -> None:
        """Make a fresh, empty repository; not timed."""
        remove(state)
        (state / "repo").mkdir(parents=True)
        (state / "cache").mkdir()

    def make_room(self, state: Path) -> None:  # noqa: B027 - most peers keep every night
        """Remove what a peer would not keep beside the coming night; not timed."""

    @abstractmethod
    def backup(self, state: Path, at: Night) -> Command:
        """Back a night up."""

    @abstractmethod
    def restore(self, state: Path, target: Path, at: Night) -> Command:
        """Restore a night into the empty folder `target`."""

    @staticmethod
    def restored(target: Path) -> Path:
        """The image that a restore has written: the only file below its target."""
        (found,) = [path for path in target.rglob("*") if path.is_file()]
        return found


class Deltaimg(Peer):
    """deltaimg through its command line, a process a command."""

    name = "deltaimg"
    program = sys.executable
    package = ""

    def version(self) -> str:
        return _output_of(self.command("version")).splitlines()[0]

    def is_missing(self) -> bool:
        return subprocess.run(self.command("version"), cwd=CHECKOUT, capture_output=True, check=False).returncode != 0

    @staticmethod
    def command(*arguments: str) -> tuple[str, ...]:
        """A command line of deltaimg."""
        return (sys.executable, "-m", "deltaimg", *arguments)

    @staticmethod
    def environment(state: Path) -> dict[str, str]:
        """The cache stays in the state."""
        return {"XDG_CACHE_HOME": str(state / "cache"), "PYTHONPATH": str(CHECKOUT)}

    def prepare(self, state: Path) -> None:
        super().prepare(state)
        (state / "repo").rmdir()
        environment = {**os.environ, **self.environment(state)}
        command = self.command("init", "-r", str(state / "repo"))
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

    def backup(self, state: Path, at: Night) -> Command:
        options = ("--image", IMAGE_NAME, "-r", str(state / "repo"), "--json")
        return Command(self.command("backup", str(at.image), *options), state, self.environment(state))

    def restore(self, state: Path, target: Path, at: Night) -> Command:
        snapshot = f"{IMAGE_NAME}@latest" + (f"~{at.tip - at.number}" if at.tip > at.number else "")
        command = self.command("restore", snapshot, str(target / "guest.raw"), "-r", str(state / "repo"), "--json")
        return Command(command, state, self.environment(state))


class Restic(Peer):
    """restic: content-defined chunks of about 1 MiB, always encrypted."""

    name = "restic"
    program = package = "restic"
    version_arguments = ("version",)

    def prepare(self, state: Path) -> None:
        super().prepare(state)
        self._run_now(state, "init")

    def backup(self, state: Path, at: Night) -> Command:
        arguments = self._command(state, "backup", "--tag", f"night{at.number}", at.image.name)
        return Command(arguments, at.image.parent, self._environment())

    def restore(self, state: Path, target: Path, at: Night) -> Command:
        arguments = self._command(state, "restore", "latest", "--tag", f"night{at.number}", "--target", str(target))
        return Command(arguments, state, self._environment())

    def _run_now(self, state: Path, *arguments: str) -> None:
        environment = {**os.environ, **self._environment()}
        subprocess.run(self._command(state, *arguments), env=environment, check=True, stdout=subprocess.DEVNULL)

    @staticmethod
    def _command(state: Path, verb: str, *arguments: str) -> tuple[str, ...]:
        return ("restic", "-q", "-r", str(state / "repo"), "--cache-dir", str(state / "cache"), verb, *arguments)

    @staticmethod
    def _environment() -> dict[str, str]:
        return {"RESTIC_PASSWORD": "benchmark"}


class Borg(Peer):
    """BorgBackup, unencrypted, with the chunker given."""

    program = "borg"
    package = "borgbackup"

    def __init__(self, name: str, *create_options: str) -> None:
        self.name = name
        self._create_options = create_options

    def prepare(self, state: Path) -> None:
        super().prepare(state)
        environment = {**os.environ, **self._environment(state)}
        command = ["borg", "init", "-e", "none", str(state / "repo")]
        subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)

    def backup(self, state: Path, at: Night) -> Command:
        archive = f"{state / 'repo'}::night{at.number}"
        command = ("borg", "create", "--compression", "zstd,3", *self._create_options, archive, at.image.name)
        return Command(command, at.image.parent, self._environment(state))

    def restore(self, state: Path, target: Path, at: Night) -> Command:
        command = ("borg", "extract", "--sparse", f"{state / 'repo'}::night{at.number}")
        return Command(command, target, self._environment(state))

    @staticmethod
    def _environment(state: Path) -> dict[str, str]:
        return {
            "BORG_BASE_DIR": str(state / "cache"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }


class Zstd(Peer):
    """The whole image through `zstd -3 -T0`, every night anew."""

    name = "zstd"
    program = package = "zstd"

    def backup(self, state: Path, at: Night) -> Command:
        output = str(state / "repo" / f"night{at.number}.zst")
        return Command(("zstd", "-3", "-T0", "-q", "-f", str(at.image), "-o", output), state)

    def restore(self, state: Path, target: Path, at: Night) -> Command:
        source = str(state / "repo" / f"night{at.number}.zst")
        return Command(("zstd", "-d", "--sparse", "-q", source, "-o", str(target / "guest.raw")), state)


class Copy(Peer):
    """`cp --sparse=always`: what reading and writing the image costs. Keeps the newest night only."""

    name = "cp"
    program = "cp"
    package = "coreutils"

    def make_room(self, state: Path) -> None:
        remove(state / "repo" / "guest.raw")

    def backup(self, state: Path, at: Night) -> Command:
        return self._copy(at.image, state / "repo" / "guest.raw", state)

    def restore(self, state: Path, target: Path, at: Night) -> Command:
        return self._copy(at.image, target / "guest.raw", state)

    @staticmethod
    def _copy(source: Path, target: Path, folder: Path) -> Command:
        return Command(("cp", "--sparse=always", "--reflink=never", str(source), str(target)), folder)


class Xdelta3(Peer):
    """`xdelta3 -1` over the whole image with a 2 GiB source window; the first night is zstd's."""

    name = "xdelta3"
    program = package = "xdelta3"
    version_arguments = ("-V",)
    needs_previous = True

    def backup(self, state: Path, at: Night) -> Command:
        if at.number == 0:
            return Zstd().backup(state, at)
        command = ("xdelta3", "-e", "-f", "-1", "-B", "2147483648", "-s", str(at.previous), str(at.image))
        return Command((*command, str(state / "repo" / f"night{at.number}.vcdiff")), state)

    def restore(self, state: Path, target: Path, at: Night) -> Command:
        if at.number == 0:
            return Zstd().restore(state, target, at)
        delta = str(state / "repo" / f"night{at.number}.vcdiff")
        command = ("xdelta3", "-d", "-B", "2147483648", "-s", str(at.previous), delta, str(target / "guest.raw"))
        return Command(command, state)


class Rdiff(Peer):
    """`rdiff -b 4096` against the night before, its delta through `zstd -3`; the first night is zstd's."""

    name = "rdiff"
    program = package = "rdiff"
    version_arguments = ("-V",)
    needs_previous = True

    def backup(self, state: Path, at: Night) -> Command:
        if at.number == 0:
            return Zstd().backup(state, at)
        signature, delta = state / "cache" / "signature", state / "repo" / f"night{at.number}.rdiff.zst"
        script = (
            f"rdiff -f -b 4096 signature {_quoted(at.previous)} {_quoted(signature)}"
            f" && rdiff delta {_quoted(signature)} {_quoted(at.image)} - | zstd -3 -q -f -o {_quoted(delta)}"
        )
        return Command(("sh", "-c", script), state)

    def restore(self, state: Path, target: Path, at: Night) -> Command:
        if at.number == 0:
            return Zstd().restore(state, target, at)
        delta, output = state / "repo" / f"night{at.number}.rdiff.zst", target / "guest.raw"
        script = f"zstd -dcq {_quoted(delta)} | rdiff patch {_quoted(at.previous)} - {_quoted(output)}"
        return Command(("sh", "-c", script), state)


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Deltaimg(),
        Restic(),
        Borg("borg-fixed", "--chunker-params", "fixed,65536", "--sparse"),
        Borg("borg-default"),
        Zstd(),
        Copy(),
        Xdelta3(),
        Rdiff(),
    )
}
USUAL_PEERS = ("deltaimg", "restic", "borg-fixed", "borg-default", "zstd", "cp")


def install_missing(peers: Sequence[Peer]) -> list[Peer]:
    """Install what is missing by apt, where we may, and return those that are missing still."""
    packages = sorted({peer.package for peer in peers if peer.package and peer.is_missing()})
    if packages and os.geteuid() == 0:
        subprocess.run(["apt-get", "-qy", "--no-install-recommends", "install", *packages], check=False)
    return [peer for peer in peers if peer.is_missing()]


def _output_of(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, cwd=CHECKOUT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout.strip()


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def main() -> None:
    """List the peers."""
    for peer in PEERS.values():
        print(f"{peer.name:14}{'missing' if peer.is_missing() else peer.version()}")


if __name__ == "__main__":
    main()
