# SPDX-License-Identifier: Apache-2.0
"""A real OpenSSH server for tests: on a port of its own of 127.0.0.1, with keys and configuration below one folder.

The client's side is a home folder with `.ssh/config`, which names the server `backup.test`: `home` goes into HOME.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.components import skip_without

HOST = "backup.test"


@dataclass
class SshServer:
    """An sshd of ours. `folder` is where its files are, `root` what clients may write to."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def known_hosts(self) -> Path:
        return self.home / ".ssh" / "known_hosts"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def url(self, path: str | Path = "repository") -> str:
        """Return the address of a folder below `root`, or of an absolute one."""
        return f"sftp://{HOST}{self.root / path}"

    def environment(self) -> dict[str, str]:
        """Return what a program needs to reach the server, and no agent of the tester's."""
        return {"HOME": str(self.home), "SSH_AUTH_SOCK": ""}

    def configure_client(self, extra: str = "") -> None:
        """Write the client's configuration: `extra` stands before what every host has."""
        (self.home / ".ssh" / "config").write_text(
            f"{extra}\nHost {HOST}\n  HostName 127.0.0.1\n  Port {self.port}\n  User {_find_user()}\n"
            f"  IdentityFile {self.home}/.ssh/id_ed25519\n"
        )

    @contextmanager
    def reached(self) -> Iterator[SshServer]:
        """Let this process be a client of the server."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment().items():
                patch.setenv(name, value)
            yield self

    def find_children(self) -> list[int]:
        """Return the processes that serve connections, parents before what they started."""
        listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        children: dict[int, list[int]] = {}
        for line in listed.splitlines():
            pid, parent = map(int, line.split())
            children.setdefault(parent, []).append(pid)
        found = [self.process.pid]
        for each in found:
            found += children.get(each, [])
        return found[1:]

    def cut_connections(self) -> None:
        """Kill what serves connections, in the middle of what it does."""
        for each in self.find_children():
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    def stop(self) -> None:
        """Kill the server and all its connections."""
        self.process.send_signal(signal.SIGSTOP)  # no new connection between the two
        self.cut_connections()
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start the server again, on the same port."""
        self.process = _start(self.folder)
        _wait_for(self.port, self.process)


@contextmanager
def ssh_server(folder: Path, *, subsystem: str = "internal-sftp", extra: str = "") -> Iterator[SshServer]:
    """Run a server with its files in `folder`; skip where OpenSSH is not installed.

    Args:
        subsystem: what serves SFTP. extra: more lines for its configuration.
    """
    if not Path("/usr/sbin/sshd").exists() or shutil.which("ssh-keygen") is None:
        skip_without("sshd", "OpenSSH's server is not installed")
    server = _set_up(folder, subsystem, extra)
    try:
        _wait_for(server.port, server.process)
        yield server
    finally:
        server.stop()


def make_key(path: Path) -> str:
    """Make a key pair without a passphrase; return the public key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


def _set_up(folder: Path, subsystem: str, extra: str) -> SshServer:
    for each in ("root", "home/.ssh"):
        (folder / each).mkdir(parents=True)
    (folder / "home" / ".ssh").chmod(0o700)
    host_key = make_key(folder / "host_key")
    (folder / "authorized_keys").write_text(make_key(folder / "home" / ".ssh" / "id_ed25519"))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = _find_port()
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin prohibit-password\nMaxStartups 100\nMaxSessions 100\nUseDNS no\nSubsystem sftp {subsystem}\n{extra}\n"
    )
    server = SshServer(folder, port, _start(folder))
    server.known_hosts.write_text(f"[127.0.0.1]:{port} {host_key}")
    server.configure_client()
    return server


def _start(folder: Path) -> subprocess.Popen[bytes]:
    with open(os.devnull, "w") as null:
        return subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-f", str(folder / "config"), "-E", str(folder / "log")], stdout=null, stderr=null
        )


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    skip_without("sshd", f"does not start: exit code {process.poll()}")


def _find_user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
