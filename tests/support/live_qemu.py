# SPDX-License-Identifier: Apache-2.0
"""A qemu-storage-daemon that has disks open, with a monitor, and an export of each on which a guest could write."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaimg.image.qemu.monitor import Monitor
from tests.support.components import requires_program
from tests.support.nbd import serving

_OWN_NODE = re.compile(r"(disk|file)\d*")


@dataclass(frozen=True, slots=True)
class LiveQemu:
    """The daemon, and where it listens."""

    folder: Path
    process: subprocess.Popen[bytes]
    guest: str
    """Where the guest writes to its first disk: a file, or the address of an export. Of others: with their number."""
    count: int = 1
    """How many disks there are: the nodes `disk`, `disk1` and so on."""

    @property
    def address(self) -> str:
        """Of the first disk, for a backup."""
        return self.addresses[0]

    @property
    def addresses(self) -> list[str]:
        """Of the disks, for a backup."""
        server = "" if self.guest.startswith("/") else f"&nbd={self.folder}/guest.sock"
        return [f"qmp+unix:///disk{_number(each)}?socket={self.folder}/qmp.sock{server}" for each in range(self.count)]

    def ask(self, command: str, **arguments: Any) -> Any:
        with closing(Monitor(str(self.folder / "qmp.sock"))) as monitor:
            return monitor.execute(command, **arguments)

    def write(self, *commands: str) -> None:
        """Write as the guest."""
        arguments = [word for each in commands for word in ("-c", each)]
        subprocess.run(["qemu-io", "-f", "raw", *arguments, self.guest], check=True, capture_output=True)

    def find_traces(self) -> list[str]:
        """Return what a backup has begun in it, but for bitmaps, and beside its disk."""
        nodes = [each["node-name"] for each in self.ask("query-named-block-nodes")]
        jobs = [each["id"] for each in self.ask("query-jobs")]
        exports = [each["id"] for each in self.ask("query-block-exports") if not each["id"].startswith("guest")]
        files = [each.name for each in self.folder.iterdir() if each.name.startswith(".")]
        return [each for each in nodes if not _OWN_NODE.fullmatch(each)] + jobs + exports + files

    def bitmaps(self, number: int = 0) -> list[dict[str, Any]]:
        nodes = {each["node-name"]: each for each in self.ask("query-named-block-nodes")}
        found: list[dict[str, Any]] = nodes[f"disk{_number(number)}"].get("dirty-bitmaps", [])
        return [each for each in found if each.get("name")]

    @contextmanager
    def guest_that_counts(self) -> Iterator[None]:
        """Write 1, 2, 3 and so on to two places in turn, until the end of the context."""
        is_over = threading.Event()
        program = ["qemu-io", "-f", "raw", self.guest]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as guest:

            def write() -> None:
                assert guest.stdin is not None
                number = 1
                while not is_over.wait(0.001):
                    for place in ("0", "40M"):
                        guest.stdin.write(f"write -P {number} {place} 64k\n".encode())
                    guest.stdin.flush()
                    number = number % 250 + 1
                guest.stdin.close()

            thread = threading.Thread(target=write)
            thread.start()
            try:
                yield
            finally:
                is_over.set()
                thread.join()


def _number(number: int) -> str:
    return str(number or "")


@contextmanager
def live_qemu(
    folder: Path, *disks: Path, kind: str = "qcow2", has_server: bool = True, options: Sequence[str] = ()
) -> Iterator[LiveQemu]:
    """Run the daemon. Its guest writes to NBD exports, or to files (FUSE), so that no NBD server runs in it."""
    program, monitor = requires_program("qemu-storage-daemon"), folder / "qmp.sock"
    command = [
        program, "--chardev", f"socket,id=qmp,path={monitor},server=on,wait=off", "--monitor", "chardev=qmp",
        *options,
    ]  # fmt: skip
    guest = f"nbd+unix:///live?socket={folder}/guest.sock" if has_server else str(folder / "guest")
    if has_server:
        command += ["--nbd-server", f"addr.type=unix,addr.path={folder}/guest.sock"]
    mounts = []
    for number, disk in enumerate(disks):
        n = _number(number)
        command += ["--blockdev", f"driver=file,node-name=file{n},filename={disk}"]
        command += ["--blockdev", f"driver={kind},node-name=disk{n},file=file{n}"]
        if has_server:
            command += ["--export", f"nbd,id=guest{n},node-name=disk{n},name=live{n},writable=on"]
            continue
        (folder / f"guest{n}").touch()
        mounts.append(f"{guest}{n}")
        command += ["--export", f"fuse,id=guest{n},node-name=disk{n},mountpoint={mounts[-1]},writable=on"]
    with serving(monitor, *command) as process:
        try:
            yield LiveQemu(folder, process, guest, len(disks))
        finally:
            for each in mounts:
                subprocess.run(["umount", "--lazy", each], check=False, capture_output=True)
