# SPDX-License-Identifier: Apache-2.0
"""The server of `forking.py`: a process of one thread that has all of the program loaded, and forks for each request."""

from __future__ import annotations

import gc
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import sys
import time
from importlib import import_module
from typing import Any, NoReturn

_LENGTH = struct.Struct("<I")
_STREAMS = 3


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    load_program()
    assert len(os.listdir("/proc/self/task")) == 1, "a fork has one thread only"
    gc.freeze()
    serve(control)


def load_program() -> None:
    """Import all modules of the program but the ones that are programs themselves."""
    package = import_module("deltaimg")
    for module in pkgutil.walk_packages(package.__path__, "deltaimg."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


def serve(control: socket.socket) -> None:
    """Start a fork for each request, and report how it ended, until nobody is left who could ask."""
    running: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready == control.fileno():
                header, descriptors, _flags, _address = socket.recv_fds(control, _LENGTH.size, _STREAMS + 1)
                if not header:
                    return
                process_id = start(receive(control, _LENGTH.unpack(header)[0]), descriptors[:_STREAMS])
                reports = socket.socket(fileno=descriptors[_STREAMS])
                reports.sendall(_LENGTH.pack(process_id))
                watched = os.pidfd_open(process_id)
                running[watched] = (process_id, reports)
                poll.register(watched, select.POLLIN)
            else:
                process_id, reports = running.pop(ready)
                poll.unregister(ready)
                os.close(ready)
                with reports:
                    reports.sendall(_LENGTH.pack(os.waitpid(process_id, 0)[1]))


def receive(control: socket.socket, size: int) -> dict[str, Any]:
    request = bytearray()
    while len(request) < size:
        request += control.recv(size - len(request))
    return dict(json.loads(request))


def start(request: dict[str, Any], streams: list[int]) -> int:
    """Return the process id of a fork that runs the program with these standard streams."""
    process_id = os.fork()
    if process_id == 0:
        try:
            become_program(request, streams)
        finally:
            os._exit(1)
    for stream in streams:
        os.close(stream)
    return process_id


def become_program(request: dict[str, Any], streams: list[int]) -> NoReturn:
    """Do what `python -m deltaimg` does."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(_STREAMS, 1024)
    sys.stdin = sys.__stdin__ = reopen(0, "rb", sys.__stdin__)
    sys.stdout = sys.__stdout__ = reopen(1, "wb", sys.__stdout__)
    sys.stderr = sys.__stderr__ = reopen(2, "wb", sys.__stderr__)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["-m", *request["arguments"]]
    sys.path[0] = request["folder"]
    try:
        runpy.run_module("deltaimg", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    os._exit(0)


def reopen(number: int, mode: str, like: Any) -> io.TextIOWrapper:
    """Return a standard stream as Python opens it."""
    return io.TextIOWrapper(
        open(number, mode, closefd=False),
        encoding=like.encoding,
        errors=like.errors,
        newline=None if mode == "rb" else "\n",
        line_buffering=number == _STREAMS - 1,
    )


if __name__ == "__main__":
    main()
