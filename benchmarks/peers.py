#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deltaimg and all that it is measured against; here are those that keep a file for each backup, and the table of all.

python benchmarks/peers.py      lists the peers, their versions, and what is missing
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from keepers import Borg, Deltaimg, Keeper, Restic
from measuring.files import remove
from measuring.process import Command
from peer import GuestImage, Peer


class Zstd(Peer):
    """The whole image through `zstd -3 -T0`, for every backup."""

    name = "zstd"
    program = package = "zstd"

    def backup(self, state: Path, at: GuestImage) -> Command:
        output = str(state / "repo" / f"backup{at.number}.zst")
        return Command(("zstd", "-3", "-T0", "-q", "-f", str(at.image), "-o", output), state)

    def restore(self, state: Path, target: Path, at: GuestImage) -> Command:
        source = str(state / "repo" / f"backup{at.number}.zst")
        return Command(("zstd", "-d", "--sparse", "-q", source, "-o", str(target / "guest.raw")), state)


class Copy(Peer):
    """`cp --sparse=always`: what reading and writing the image costs. Keeps the newest backup only."""

    name = "cp"
    program = "cp"
    package = "coreutils"

    def make_room(self, state: Path) -> None:
        remove(state / "repo" / "guest.raw")

    def backup(self, state: Path, at: GuestImage) -> Command:
        return self._copy(at.image, state / "repo" / "guest.raw", state)

    def restore(self, state: Path, target: Path, at: GuestImage) -> Command:
        return self._copy(at.image, target / "guest.raw", state)

    @staticmethod
    def _copy(source: Path, target: Path, folder: Path) -> Command:
        return Command(("cp", "--sparse=always", "--reflink=never", str(source), str(target)), folder)


class Xdelta3(Peer):
    """`xdelta3 -1` over the whole image with a 2 GiB source window; the first backup is zstd's."""

    name = "xdelta3"
    program = package = "xdelta3"
    version_arguments = ("-V",)
    needs_previous = True

    def backup(self, state: Path, at: GuestImage) -> Command:
        if at.number == 0:
            return Zstd().backup(state, at)
        command = ("xdelta3", "-e", "-f", "-1", "-B", "2147483648", "-s", str(at.previous), str(at.image))
        return Command((*command, str(state / "repo" / f"backup{at.number}.vcdiff")), state)

    def restore(self, state: Path, target: Path, at: GuestImage) -> Command:
        if at.number == 0:
            return Zstd().restore(state, target, at)
        delta = str(state / "repo" / f"backup{at.number}.vcdiff")
        command = ("xdelta3", "-d", "-B", "2147483648", "-s", str(at.previous), delta, str(target / "guest.raw"))
        return Command(command, state)


class Rdiff(Peer):
    """`rdiff -b 4096` against the backup before, its delta through `zstd -3`; the first backup is zstd's."""

    name = "rdiff"
    program = package = "rdiff"
    version_arguments = ("-V",)
    needs_previous = True

    def backup(self, state: Path, at: GuestImage) -> Command:
        if at.number == 0:
            return Zstd().backup(state, at)
        signature, delta = state / "cache" / "signature", state / "repo" / f"backup{at.number}.rdiff.zst"
        script = (
            f"rdiff -f -b 4096 signature {_quoted(at.previous)} {_quoted(signature)}"
            f" && rdiff delta {_quoted(signature)} {_quoted(at.image)} - | zstd -3 -q -f -o {_quoted(delta)}"
        )
        return Command(("sh", "-c", script), state)

    def restore(self, state: Path, target: Path, at: GuestImage) -> Command:
        if at.number == 0:
            return Zstd().restore(state, target, at)
        delta, output = state / "repo" / f"backup{at.number}.rdiff.zst", target / "guest.raw"
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

YEAR_PEERS = tuple(name for name, peer in PEERS.items() if isinstance(peer, Keeper) and name != "borg-default")


def install_missing(peers: Sequence[Peer]) -> list[Peer]:
    """Install what is missing by apt, where we may, and return those that are missing still."""
    packages = sorted({peer.package for peer in peers if peer.package and peer.is_missing()})
    if packages and os.geteuid() == 0:
        subprocess.run(["apt-get", "-qy", "--no-install-recommends", "install", *packages], check=False)
    return [peer for peer in peers if peer.is_missing()]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def main() -> None:
    """List the peers."""
    for peer in PEERS.values():
        print(f"{peer.name:14}{'missing' if peer.is_missing() else peer.version()}")


if __name__ == "__main__":
    main()
