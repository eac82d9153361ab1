# SPDX-License-Identifier: Apache-2.0
"""The process that has a running qemu end its point in time, where the backup that began it was killed.

Old content would be kept for ever otherwise, until there is no room for it and the guest's writes fail. It is started before
anything is begun, in a session of its own, and waits on a pipe that only the backup writes to: `.` when all is undone. The end
of the pipe without that says that the backup died. What the guard cannot undo, the next backup of that qemu does.

A script of its own that imports nothing of deltaimg:  python -I -S qmp_guard.py MONITOR NAME TAG SCRATCH [NAME TAG SCRATCH ...]
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_ANSWER_S = 30.0
_TRIES = 500
_PAUSE_S = 0.02


def main(monitor: str, *words: str) -> None:
    """Wait for the end of the standard input, and undo what was begun if that says nothing."""
    for number in _OURS:
        signal.signal(number, signal.SIG_IGN)
    os.write(1, b"r")
    os.close(1)
    if os.read(0, 1) == b".":
        return
    parts = list(zip(words[::3], words[1::3], words[2::3], strict=True))
    for _, _, scratch in parts:
        with suppress(OSError):
            os.unlink(scratch)
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connected:
        # A monitor has one client at a time, and others wait.
        connected.connect(monitor)
        connected.settimeout(_ANSWER_S)
        _undo(_Monitor(connected), [each[:2] for each in parts], os.path.dirname(monitor))


class _Monitor:
    """What is needed of `deltaimg.image.qemu.monitor`."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket, self._lines = connected, connected.makefile("rb")
        self._lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """Run a command and return what it returns; None where it fails."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named, "id": 1}).encode())
        while line := self._lines.readline():
            reply = json.loads(line)
            if "id" in reply:
                return reply.get("return")
        return None


def _undo(monitor: _Monitor, parts: list[tuple[str, str]], folder: str) -> None:
    """End exports, then jobs, then the rest, as `qmp_undo.undo` does."""
    for name, _ in parts:
        for query, command, arguments in (
            ("query-block-exports", "block-export-del", {"mode": "hard"}),
            ("query-jobs", "job-cancel", {}),
        ):
            for _ in range(_TRIES):
                if not any(each["id"] == name for each in monitor.ask(query) or ()):
                    break
                monitor.ask(command, id=name, **arguments)
                time.sleep(_PAUSE_S)
    for _, tag in parts:
        server = os.path.join(folder, f".dimg-{tag}.nbd")
        if os.path.lexists(server):
            monitor.ask("nbd-server-stop")
            with suppress(OSError):
                os.unlink(server)
    for _, tag in parts:
        for node in ("disk", "file"):
            monitor.ask("blockdev-del", node_name=f"dimg-{tag}-{node}")


if __name__ == "__main__":
    main(*sys.argv[1:])
