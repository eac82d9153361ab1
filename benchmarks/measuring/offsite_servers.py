# SPDX-License-Identifier: Apache-2.0
"""The servers that offsite rows use: SeaweedFS and OpenSSH on this machine, and lines to them that are slow and counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server, seaweedfs
from tests.support.slow_line import SlowLine
from tests.support.sshd import HOST, SshServer, ssh_server

ROUND_TRIP_S = 0.05
LINE_BYTES_PER_S = 100_000_000 / 8
"""What offsite rows call a line: 50 ms a round trip, 100 Mbit/s."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Both servers, running."""

    s3: S3Server
    ssh: SshServer
    bucket: str

    @property
    def environment(self) -> Mapping[str, str]:
        """What clients need to reach them."""
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}
        # The servers speak plain HTTP, and some clients refuse a bundle of certificates then.
        return {**self.ssh.environment(), **keys, "AWS_CA_BUNDLE": "", "RESTIC_PASSWORD": "benchmark"}

    @property
    def ssh_command(self) -> str:
        """How peers call ssh."""
        return f"ssh -F {self.ssh.home}/.ssh/config -o UserKnownHostsFile={self.ssh.known_hosts} {HOST}"

    def s3_url(self, prefix: str, line: SlowLine | None = None) -> str:
        """Address of a repository of deltaimg in the bucket, perhaps over a line."""
        return self.s3.location(self.bucket, prefix, line.port if line else None)

    def restic_s3(self, prefix: str, line: SlowLine | None = None) -> str:
        """The same for restic."""
        return f"s3:http://127.0.0.1:{line.port if line else self.s3.port}/{self.bucket}/{prefix}"

    @contextmanager
    def line_to_s3(self, **options: float) -> Iterator[SlowLine]:
        """A counted line to the S3 server."""
        with SlowLine(self.s3.port, **options) as line:
            yield line

    @contextmanager
    def line_to_ssh(self, **options: float) -> Iterator[SlowLine]:
        """A counted line to the SSH server, which all clients take meanwhile."""
        with SlowLine(self.ssh.port, **options) as line:
            known = self.ssh.known_hosts.read_text()
            key = known.splitlines()[0].split(" ", 1)[1]
            self.ssh.known_hosts.write_text(f"{known.rstrip()}\n[127.0.0.1]:{line.port} {key}\n")
            self.ssh.configure_client(f"Host {HOST}\n  Port {line.port}\n")
            try:
                yield line
            finally:
                self.ssh.configure_client()
                self.ssh.known_hosts.write_text(known)


@contextmanager
def run_servers(folder: Path) -> Iterator[Servers]:
    """Start both, with all that they keep below `folder`."""
    with seaweedfs(folder / "seaweedfs") as s3, ssh_server(folder / "ssh") as ssh:
        yield Servers(s3, ssh, s3.make_bucket())
