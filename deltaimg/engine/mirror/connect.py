# SPDX-License-Identifier: Apache-2.0
"""Starting the far side: over the system's ssh, or as a process of this host; and why it ended, where it ended too early."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from deltaimg.engine.mirror.protocol import PROTOCOL, Channel, ChannelClosed, Hello, Kind, Pace
from deltaimg.errors import FarSideUnusable, MirrorProtocolError, UsageError
from deltaimg.text import as_text
from deltaimg.threads import delaying_interruption

SERVE = ("mirror", "--serve")
_SSH_FAILED = 255
_NOT_FOUND = (126, 127)
_END_S = 10.0
_REMOTE = re.compile(r"(?P<host>(?:[^/:\[]*@)?(?:\[[^\]/]*\]|[^/:]+)):(?P<path>.*)", re.DOTALL)


class Destination(Struct, frozen=True):
    """A path, and the host that it is on; None for this host."""

    host: str | None
    path: str

    def __str__(self) -> str:
        return self.path if self.host is None else f"{self.host}:{self.path}"


def parse_destination(text: str) -> Destination:
    """Return what `HOST:/path`, `user@host:path` or a path of this host means; raises UsageError.

    A path with a colon before its first slash begins with `./`.
    """
    match = _REMOTE.fullmatch(text)
    if match is None:
        if not text:
            raise UsageError("the copy has no name", hint="write HOST:/path/copy.img, or a path of this host")
        return Destination(None, os.path.abspath(text))
    host, path = match["host"], match["path"]
    if host.startswith("-") or not host.isprintable() or any(each.isspace() for each in host):
        raise UsageError(f"'{host[:60]}' is no host", hint="write HOST:/path/copy.img, or ./PATH for a file here")
    if not path:
        raise UsageError(f"'{text[:60]}' names no copy", hint="write HOST:/path/copy.img")
    return Destination(host.replace("[", "").replace("]", ""), path)


class Connection(Struct, frozen=True):
    """How the far side is started: by which ssh, and as what there."""

    destination: Destination
    ssh_command: str
    remote_command: str

    def make_command(self) -> list[str]:
        """Return the command line; raises UsageError."""
        if self.destination.host is None:
            return [sys.executable, "-m", "deltaimg", *SERVE]
        try:
            ssh = shlex.split(self.ssh_command)
        except ValueError as error:
            raise UsageError(f"--ssh '{self.ssh_command[:60]}': {error}") from error
        if not ssh:
            raise UsageError("--ssh is empty", hint="leave it out, or give a command such as 'ssh -p 2222'")
        return [*ssh, self.destination.host, f"{self.remote_command} {shlex.join(SERVE)}"]


@contextmanager
def open_far_side(connection: Connection, pace: Pace | None) -> Iterator[Channel]:
    """Start the far side, and end it; raises FarSideUnusable, or what it failed with."""
    command = connection.make_command()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        with delaying_interruption():
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=environment if connection.destination.host is None else None,
            )
    except OSError as error:
        raise FarSideUnusable(
            f"{command[0]}: cannot be started: {os.strerror(error.errno or 0)}",
            hint="install OpenSSH's client, or give --ssh",
        ) from error
    assert process.stdin is not None
    assert process.stdout is not None
    said = _Said(process)
    channel = Channel(process.stdout.fileno(), process.stdin.fileno(), pace)
    try:
        _greet(channel, connection.destination)
        yield channel
        _end(process)
    except ChannelClosed as error:
        raise _explain(connection, _end(process), said.last_line()) from error
    finally:
        _end(process, is_urgent=True)
        said.close()


def _greet(channel: Channel, destination: Destination) -> None:
    channel.receive_magic()
    hello = channel.receive_message(Kind.HELLO, Hello)
    if hello.protocol != PROTOCOL:
        raise MirrorProtocolError(
            f"{destination.host or 'this host'} has deltaimg {as_text(hello.version)[:40]}, which speaks protocol "
            f"{hello.protocol}; this side speaks {PROTOCOL}"
        )


class _Said:
    """The end of what a process prints on its standard error."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._pipe, self._end = process.stderr, b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def last_line(self) -> str:
        """Return the last line that says anything, hints left out."""
        self._thread.join(_END_S)
        lines = [line.strip() for line in self._end.decode(errors="replace").splitlines()]
        said = [line for line in lines if line and not line.startswith("hint:")]
        return as_text(said[-1])[:300] if said else ""

    def close(self) -> None:
        self._thread.join(1.0)
        if self._pipe is not None and not self._thread.is_alive():
            self._pipe.close()

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            while self._pipe is not None and (data := os.read(self._pipe.fileno(), 4096)):
                self._end = (self._end + data)[-4096:]


def _end(process: subprocess.Popen[bytes], *, is_urgent: bool = False) -> int:
    """Close the pipes to the far side, wait for its end, and return its exit code."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            with suppress(OSError):
                pipe.close()
    try:
        return process.wait(1.0 if is_urgent else _END_S)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        return process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _explain(connection: Connection, code: int, said: str) -> FarSideUnusable:
    """Return why the far side ended before it had done what it was asked for."""
    host = connection.destination.host
    if host is None:
        return FarSideUnusable(
            f"the process that writes {connection.destination.path} ended (exit code {code}): {said}"
        )
    if code in _NOT_FOUND:
        return FarSideUnusable(
            f"{host}: deltaimg does not answer there: {said or 'command not found'}",
            hint=f"install it there, or give --remote-command; '{connection.remote_command}' was tried",
        )
    if code == _SSH_FAILED:
        hint = "see whether 'ssh' to the host works, then run again; what arrived is not sent again"
        return FarSideUnusable(f"{host}: the connection failed{': ' * bool(said)}{said}", hint=hint)
    return FarSideUnusable(
        f"{host}: deltaimg ended there (exit code {code}){': ' * bool(said)}{said}",
        hint="run again; what arrived is not sent again",
    )
