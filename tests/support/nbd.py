# SPDX-License-Identifier: Apache-2.0
"""NBD servers: qemu-nbd and nbdkit as real ones, and one that lies."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.components import requires_program, run_or_skip

SHARE = 4


def make_qcow2(path: Path, size: str, *options: str) -> Path:
    """Return the path of a new qcow2 file, or skip."""
    run_or_skip("qemu-img", requires_program("qemu-img"), "create", "-q", "-f", "qcow2", *options, str(path), size)
    return path


def qemu_io(path: Path, *commands: str, kind: str = "qcow2") -> None:
    """Do things to an image as a guest would: `write -P 1 0 64k`."""
    arguments = [word for each in commands for word in ("-c", each)]
    done = subprocess.run(["qemu-io", "-f", kind, *arguments, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout, done.stdout


def make_filled_qcow2(path: Path, size_mib: int, data_mib: int) -> Path:
    """Return the path of a new qcow2 file whose every second MiB is full of its number, until there are so many, or skip."""
    make_qcow2(path, f"{size_mib}M")
    qemu_io(path, *(f"write -P {number + 1} {2 * number}M 1M" for number in range(data_mib)))
    return path


@contextmanager
def serving(socket_path: Path, *command: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the context, from when it listens at a socket; what it prints goes to a file."""
    with open(socket_path.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen([str(each) for each in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        for _ in range(500):
            with suppress(OSError), socket.socket(socket.AF_UNIX) as trial:
                trial.connect(str(socket_path))
                break
            assert process.poll() is None, socket_path.with_suffix(".log").read_text()
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()
        with suppress(FileNotFoundError):
            socket_path.unlink()


@contextmanager
def qemu_nbd(folder: Path, path: Path, *options: str, kind: str = "raw") -> Iterator[str]:
    """Yield the address of an image that qemu-nbd serves read-only."""
    requires_program("qemu-nbd")
    where = folder / "qemu-nbd.sock"
    with serving(where, "qemu-nbd", "-r", "-t", "-e", SHARE, "-f", kind, "-x", "disk", "-k", where, *options, path):
        yield f"nbd+unix:///disk?socket={where}"


@contextmanager
def nbdkit(folder: Path, *arguments: object) -> Iterator[str]:
    """Yield the address of what nbdkit serves; its own options may come anywhere."""
    requires_program("nbdkit")
    where = folder / "nbdkit.sock"
    own = [each for each in arguments if str(each).startswith("--")]
    with serving(where, "nbdkit", "-f", "-r", "-U", where, *own, *(each for each in arguments if each not in own)):
        yield f"nbd+unix:///?socket={where}"


def find_servers(path: Path) -> list[int]:
    """Return the numbers of the processes of qemu-nbd whose command line names a file."""
    found = []
    for each in Path("/proc").iterdir():
        with suppress(OSError):
            words = (each / "cmdline").read_bytes() if each.name.isdigit() else b""
            if words.startswith(b"qemu-nbd\0") and bytes(path) in words:
                found.append(int(each.name))
    return found


class FakeServer:
    """A server that agrees to everything about an export of zeros, and lies where it is told to."""

    def __init__(self, size_bytes: int = 1 << 20, *, contexts: tuple[str, ...] = ("base:allocation",)) -> None:
        self.size_bytes, self.contexts = size_bytes, contexts
        self.greeting = b"NBDMAGICIHAVEOPT\0\3"
        self.min_block_bytes, self.max_block_bytes = 1, 32 << 20
        self.is_structured = True
        self.answer_go: Callable[[], bytes] | None = None
        self.answer_request: Callable[[int, int, int, int], bytes | None] = self.answer_well
        """Of command, cookie, offset, length; None closes the connection."""

    def answer_well(self, command: int, cookie: int, offset: int, length: int) -> bytes:
        """Return what a good server sends."""
        if command == 7:
            return self.chunk(cookie, 5, struct.pack(">LLL", 1, length, 0))
        if not self.is_structured:
            return struct.pack(">LLQ", 0x67446698, 0, cookie) + bytes(length)
        return self.chunk(cookie, 1, struct.pack(">Q", offset) + bytes(length))

    @staticmethod
    def chunk(cookie: int, kind: int, payload: bytes, *, is_last: bool = True, length: int | None = None) -> bytes:
        """Return a chunk of a structured reply."""
        size = len(payload) if length is None else length
        return struct.pack(">LHHQL", 0x668E33EF, is_last, kind, cookie, size) + payload

    @staticmethod
    def option_reply(option: int, kind: int, data: bytes = b"", length: int | None = None) -> bytes:
        """Return a reply to an option."""
        return struct.pack(">QLLL", 0x3E889045565A9, option, kind, len(data) if length is None else length) + data

    def serve(self, connection: socket.socket) -> None:
        """Serve one client, until either of both has enough."""
        with connection, suppress(OSError, struct.error, EOFError):
            connection.sendall(self.greeting)
            _receive(connection, 4)
            while self._answer_option(connection):
                pass
            while True:
                _, _, command, cookie, offset, length = struct.unpack(">LHHQQL", _receive(connection, 28))
                answer = None if command == 2 else self.answer_request(command, cookie, offset, length)
                if answer is None:
                    return
                connection.sendall(answer)

    def _answer_option(self, connection: socket.socket) -> bool:
        """Answer an option; return whether another one follows."""
        _, option, length = struct.unpack(">8sLL", _receive(connection, 16))
        _receive(connection, length)
        if option == 8:
            connection.sendall(self.option_reply(8, 1 if self.is_structured else (1 << 31) + 1))
        elif option == 10:
            for number, name in enumerate(self.contexts, 1):
                connection.sendall(self.option_reply(10, 4, struct.pack(">L", number) + name.encode()))
            connection.sendall(self.option_reply(10, 1))
        else:
            if self.answer_go is not None:
                connection.sendall(self.answer_go())
                return False
            sizes = struct.pack(">HLLL", 3, self.min_block_bytes, 4096, self.max_block_bytes)
            connection.sendall(self.option_reply(7, 3, struct.pack(">HQH", 0, self.size_bytes, 3)))
            connection.sendall(self.option_reply(7, 3, sizes) + self.option_reply(7, 1))
        return option != 7


@contextmanager
def fake_server(folder: Path, server: FakeServer) -> Iterator[str]:
    """Yield the address of a server that lies."""
    where = folder / "fake.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(where))
        listening.listen()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    server.serve(listening.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"nbd+unix:///x?socket={where}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data
