# SPDX-License-Identifier: Apache-2.0
"""A guest of Xen that writes one number after another to each of its two disks; scripts/xen-guest has what that needs."""

from __future__ import annotations

import mmap
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deltaimg.model import KIB, MIB
from tests.support.components import skip_without
from tests.support.lvm import GROUP, run

DISK_BYTES = 64 * MIB
FILE_SYSTEM_BYTES = 48 * MIB
"""Of the first disk. The number is behind it, and at the same place on the second."""
_BLOCK_BYTES = 4 * KIB
_KERNEL, _FIRST_SYSTEM = "/boot/vmlinuz", "/boot/first.gz"
_CONSOLES = Path("/var/log/xen")
_LIMIT_S = 120

_INSIDE = f"""#!/bin/busybox sh
b=/bin/busybox place={FILE_SYSTEM_BYTES // _BLOCK_BYTES}
read_number() {{ $b dd if=/dev/$1 bs={_BLOCK_BYTES} skip=$place count=1 2>/dev/null | $b tr -d ' \\000'; }}
count=$(read_number xvda)
echo "GUEST: found ${{count:-0}} and $(read_number xvdb), $($b wc -l </log) lines"
while count=$((count + 1)); do
    echo $count >>/log
    $b usleep 50000
    for disk in xvda xvdb; do
        printf '%-{_BLOCK_BYTES}s' $count | $b dd of=/dev/$disk bs={_BLOCK_BYTES} seek=$place conv=notrunc,fsync 2>/dev/null
    done
done
"""
"""What it runs: the number on the first disk is that on the second, or the next one, at any moment."""


def requires_xen() -> None:
    """Skip unless this is the first domain of a Xen."""
    if shutil.which("xl") is None or subprocess.run(["xl", "info"], capture_output=True, check=False).returncode:
        skip_without("xen", "this is no first domain: see scripts/xen-guest")


class Guest:
    """A paravirtual guest, its configuration in /etc/xen, its first disk with a system on it."""

    def __init__(self, name: str, *disks: str) -> None:
        """Args: disks: as its configuration has them, in the place of the path of each: `phy:/dev/vg/web1,xvda,w`."""
        self.name, self.config = name, Path("/etc/xen", f"{name}.cfg")
        self._console = _CONSOLES / f"guest-{name}.log"
        listed = ", ".join(f"'{each}'" for each in disks)
        self.config.write_text(
            f"# of the tests\nname = '{name}'\ntype = 'pv'\nkernel = '{_KERNEL}'\nramdisk = '{_FIRST_SYSTEM}'\n"
            f"cmdline = 'console=hvc0 quiet root=/dev/xvda'\nmemory = 192\nvcpus = 1\ndisk = [ {listed} ]\n"
        )

    def start(self, config: Path | None = None) -> str:
        """Start it, wait until it counts, and return what it says it has found."""
        seen = self._console.stat().st_size if self._console.exists() else 0
        command = ["xl", "create", str(config or self.config)]
        # xl gives its own scripts 40 s, which an emulated machine beside other work may take: once more.
        if subprocess.run(command, capture_output=True, check=False, timeout=300).returncode:
            self.destroy()
            run(*command)
        said = ""

        def has_said_it() -> bool:
            nonlocal said
            said = self._console.read_bytes()[seen:].decode(errors="replace") if self._console.exists() else ""
            return "GUEST: found" in said and said.endswith("\n")

        wait_for(has_said_it, f"{self.name} boots")
        [line] = [each for each in said.splitlines() if "GUEST: found" in each]
        return line.partition("found ")[2]

    def is_paused(self) -> bool:
        return "p" in run("xl", "list", self.name).splitlines()[1].split()[-2]

    def destroy(self) -> None:
        subprocess.run(["xl", "destroy", self.name], capture_output=True, check=False, timeout=300)


@contextmanager
def running(guest: Guest) -> Iterator[Guest]:
    """Have a guest run for the time of a context."""
    try:
        guest.start()
        yield guest
    finally:
        guest.destroy()


def make_system(path: str, folder: Path) -> None:
    """Make a file or volume a disk that a guest boots from."""
    system = folder / "system"
    for each in ("bin", "dev", "proc", "sys"):
        (system / each).mkdir(parents=True)
    shutil.copy("/bin/busybox", system / "bin")
    (system / "inside").write_text(_INSIDE)
    (system / "inside").chmod(0o755)
    (system / "log").touch()
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", system, path, f"{FILE_SYSTEM_BYTES >> 10}k")
    shutil.rmtree(system)


def make_volumes(*names: str) -> list[str]:
    """Make volumes of zeros; return their devices."""
    for name in names:
        run("lvcreate", "--yes", "--size", f"{DISK_BYTES}b", "--name", name, GROUP)
        run("blkdiscard", "--zeroout", f"/dev/{GROUP}/{name}")
    return [f"/dev/{GROUP}/{name}" for name in names]


def read_number(path: str | Path) -> int:
    """Return the number on a disk; of a device past the page cache, which has not what a guest writes to it."""
    with mmap.mmap(-1, _BLOCK_BYTES) as page:
        descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if stat.S_ISBLK(os.stat(path).st_mode) else 0))
        try:
            os.preadv(descriptor, [page], FILE_SYSTEM_BYTES)
        finally:
            os.close(descriptor)
        return int(page[:].strip(b" \0") or b"0")


def wait_for(happens: Callable[[], bool], what: str) -> None:
    """Wait until something has happened; it must within two minutes."""
    end_s = time.monotonic() + _LIMIT_S
    while not happens():
        assert time.monotonic() < end_s, f"waited in vain until {what}"
        time.sleep(0.2)


def assert_goes_on(guest: Guest, path: str) -> None:
    """A guest counts, now."""
    assert not guest.is_paused()
    before = read_number(path)
    wait_for(lambda: read_number(path) > before, f"{guest.name} goes on")
