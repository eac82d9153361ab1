# SPDX-License-Identifier: Apache-2.0
"""A qemu-storage-daemon that has a disk open, with a monitor, and an export on which a guest could write."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class LiveQemu:
    """The daemon, and where it listens."""

    folder: Path
    process: subprocess.Popen[bytes]
    guest: str
    """Where the guest writes: a file, or the address of an export."""

    @property
    def address(self) -> str:
        """Of the disk, for a backup."""
        server = "" if self.guest.startswith("/") else f"&nbd={self.folder}/guest.sock"
        return f"qmp+unix:///disk?socket={self.folder}/qmp.sock{server}"

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
        exports = [each["id"] for each in self.ask("query-block-exports") if each["id"] != "guest"]
        files = [each.name for each in self.folder.iterdir() if each.name.startswith(".")]
        return [each for each in nodes if each not in ("disk", "file")] + jobs + exports + files

    def bitmaps(self) -> list[dict[str, Any]]:
        nodes = {each["node-name"]: each for each in self.ask("query-named-block-nodes")}
        found: list[dict[str, Any]] = nodes["disk"].get("dirty-bitmaps", [])
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


@contextmanager
def live_qemu(
    folder: Path, disk: Path, *, kind: str = "qcow2", has_server: bool = True, options: Sequence[str] = ()
) -> Iterator[LiveQemu]:
    """Run the daemon. Its guest writes to an NBD export, or to a file (FUSE), so that no NBD server runs in it."""
    program, monitor = requires_program("qemu-storage-daemon"), folder / "qmp.sock"
    command = [
        program, "--chardev", f"socket,id=qmp,path={monitor},server=on,wait=off", "--monitor", "chardev=qmp",
        "--blockdev", f"driver=file,node-name=file,filename={disk}",
        "--blockdev", f"driver={kind},node-name=disk,file=file", *options,
    ]  # fmt: skip
    if has_server:
        guest = f"nbd+unix:///live?socket={folder}/guest.sock"
        command += ["--nbd-server", f"addr.type=unix,addr.path={folder}/guest.sock"]
        command += ["--export", "nbd,id=guest,node-name=disk,name=live,writable=on"]
    else:
        (folder / "guest").touch()
        guest = str(folder / "guest")
        command += ["--export", f"fuse,id=guest,node-name=disk,mountpoint={guest},writable=on"]
    with serving(monitor, *command) as process:
        try:
            yield LiveQemu(folder, process, guest)
        finally:
            if not has_server:
                subprocess.run(["umount", "--lazy", guest], check=False, capture_output=True)
