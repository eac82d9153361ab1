# SPDX-License-Identifier: Apache-2.0
"""Run the program as a fork of a process that has loaded it already: its start takes more than most of what tests do with it.

A server, one for each process that runs tests, imports all modules of the program, and forks for each command line. The fork
gets arguments, variables, folder and standard streams, and does what `python -m deltaimg` does.

The first command line of its kind, one with other options than those before it in any worker, is run by a new interpreter, as
users do: so each is seen to import what it needs. So is one with a locale, limits or signals that the server does not have.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_START_VARIABLES = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "MALLOC_", "OPENBLAS_", "DELTAIMG_KERNELS")
"""What begins so counts when a process starts, or a module is imported."""

_LENGTH = struct.Struct("<I")
_lock = threading.Lock()


class ForkServer:
    """Starts forks of itself, as long as this process lives."""

    def __init__(self) -> None:
        self.world = describe_world(dict(os.environ))
        self.control, its_own = socket.socketpair()
        with its_own:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(its_own.fileno())],
                cwd=Path(__file__).parents[2],
                pass_fds=[its_own.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self.close)

    def start(self, arguments: Sequence[str], variables: dict[str, str], streams: Sequence[int]) -> socket.socket:
        """Start the program; its process id is read from the socket that is returned, and its status once it has ended."""
        request = json.dumps({"arguments": arguments, "variables": variables, "folder": os.getcwd()}).encode()
        ours, its_own = socket.socketpair()
        with its_own, _lock:
            socket.send_fds(self.control, [_LENGTH.pack(len(request))], [*streams, its_own.fileno()])
            self.control.sendall(request)
        return ours

    def close(self) -> None:
        self.control.close()
        self.process.terminate()
        self.process.wait()


@dataclass
class Forks:
    """Who forks, and what was started before."""

    folder: Path | None = None
    """Where all workers note the kinds of command lines that a new interpreter ran; None: no process is forked."""
    servers: dict[int, ForkServer] = field(default_factory=dict)
    """By the process that they serve."""


forks = Forks()


def run_forked(
    arguments: Sequence[str], variables: dict[str, str], stdin: bytes | None, timeout_s: float
) -> subprocess.CompletedProcess[bytes] | None:
    """Run the program in a fork, as `subprocess.run` does; None where a new interpreter has to."""
    if forks.folder is None or is_first(arguments, forks.folder):
        return None
    with _lock:
        server = forks.servers.get(os.getpid())
        if server is None:
            server = forks.servers[os.getpid()] = ForkServer()
    if server.world != describe_world(variables):
        return None
    given = os.pipe() if stdin is not None else None
    out, err = os.pipe(), os.pipe()
    with server.start(arguments, variables, [given[0] if given else 0, out[1], err[1]]) as child:
        for each in (out[1], err[1], *([given[0]] if given else [])):
            os.close(each)
        process_id = _LENGTH.unpack(_receive(child))[0]
        child.settimeout(timeout_s)
        try:
            texts = _communicate(given[1] if given else None, stdin or b"", (out[0], err[0]), timeout_s)
            status = _LENGTH.unpack(_receive(child))[0]
        except TimeoutError:
            os.kill(process_id, 9)
            raise
    return subprocess.CompletedProcess(list(arguments), os.waitstatus_to_exitcode(status), *texts)


def is_first(arguments: Sequence[str], folder: Path) -> bool:
    """Note the command and the options of a command line; return whether no worker has run any like it."""
    words = [each for each in arguments if not each.startswith("-")]
    options = sorted({each.partition("=")[0] for each in arguments if each.startswith("-")})
    kind = hashlib.blake2s(repr((words[:1], options)).encode(errors="surrogateescape")).hexdigest()
    with suppress(FileExistsError):
        (folder / kind).touch(exist_ok=False)
        return True
    return False


def describe_world(variables: dict[str, str]) -> tuple[object, ...]:
    """Return what a process has from its parent, besides what a fork is given."""
    status = Path("/proc/self/status").read_text()
    return (
        sorted((name, value) for name, value in variables.items() if name.startswith(_START_VARIABLES)),
        [line for line in status.splitlines() if line.startswith(("Umask:", "SigBlk:", "SigIgn:", "CapEff:"))],
        Path("/proc/self/limits").read_text(),
        [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "pid", "user")],
    )


def _receive(child: socket.socket) -> bytes:
    """Return the next number that the server sends of a child."""
    if not (received := child.recv(_LENGTH.size, socket.MSG_WAITALL)):
        raise RuntimeError("the server of forks has ended")
    return received


def _communicate(given: int | None, stdin: bytes, ends: tuple[int, int], timeout_s: float) -> list[bytes]:
    """Write what a process reads, and return what it writes to each end."""
    texts: dict[int, list[bytes]] = {end: [] for end in ends}
    left = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        for end in ends:
            selector.register(end, selectors.EVENT_READ)
        if given is not None:
            os.set_blocking(given, False)
            selector.register(given, selectors.EVENT_WRITE)
        while selector.get_map():
            ready = selector.select(timeout_s)
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                end = key.fd
                if end == given:
                    try:
                        left = left[os.write(end, left[:65536]) :] if left else left
                    except BrokenPipeError:
                        left = left[:0]
                    is_done = not left
                else:
                    received = os.read(end, 1 << 16)
                    texts[end].append(received)
                    is_done = not received
                if is_done:
                    selector.unregister(end)
                    os.close(end)
    return [b"".join(texts[end]) for end in ends]
