# SPDX-License-Identifier: Apache-2.0
"""The monitor of a running qemu: commands and replies as lines of JSON on a socket (qemu's docs/interop/qmp-spec).

Any thread may use it. What the other side sends has a bound, and so has the time that it may take.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from typing import Any, Final

from deltaimg.text import as_text

_ANSWER_S: Final = 30.0
_GREETING_S: Final = 10.0
_PAUSE_S: Final = 0.05
_MAX_LINE_BYTES: Final = 1 << 24
_CHUNK_BYTES: Final = 1 << 16


class MonitorFailure(Exception):
    """A command failed, or the monitor does not answer; in words."""


class Monitor:
    """A connection to a monitor."""

    def __init__(self, path: str) -> None:
        """Connect to the monitor's socket; raises MonitorFailure."""
        self._lock = threading.Lock()
        self._received = bytearray()
        self._last_id = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            deadline_s = time.monotonic() + _GREETING_S
            self._connect(path, deadline_s)
            if "QMP" not in self._read_line(deadline_s):
                raise MonitorFailure(f"{path} is no monitor of qemu")
            self.execute("qmp_capabilities")
        except OSError as error:
            self._socket.close()
            raise MonitorFailure(f"{path} cannot be connected to: {_explain(error)}") from error
        except BaseException:
            self._socket.close()
            raise

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return what it returns; raises MonitorFailure. Names in it have '-' where `arguments` have '_'."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        with self._lock:
            self._last_id += 1
            message = {"execute": command, "arguments": named, "id": self._last_id}
            deadline_s = time.monotonic() + _ANSWER_S
            try:
                self._send(json.dumps(message).encode() + b"\n")
                while True:
                    reply = self._read_line(deadline_s)
                    if reply.get("id") == self._last_id:
                        break
            except OSError as error:
                raise MonitorFailure(f"qemu does not answer {command}: {_explain(error)}") from error
        if "error" in reply:
            said = reply["error"].get("desc") if isinstance(reply["error"], dict) else None
            raise MonitorFailure(as_text(f"qemu: {said}"))
        return reply.get("return")

    def close(self) -> None:
        """Close the connection; what was begun stays."""
        self._socket.close()

    def _connect(self, path: str, deadline_s: float) -> None:
        """Connect; a monitor has one client at a time, and a short queue of others. Raises OSError."""
        self._socket.settimeout(_GREETING_S)
        while True:
            try:
                self._socket.connect(path)
                return
            except BlockingIOError as error:
                if time.monotonic() > deadline_s:
                    raise TimeoutError(0, "it took too long") from error
                time.sleep(_PAUSE_S)

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._socket.sendmsg([left]) :]

    def _read_line(self, deadline_s: float) -> dict[str, Any]:
        """Return the next line, which may be an event; raises MonitorFailure or OSError."""
        while (end := self._received.find(b"\n")) < 0:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(0, "it took too long")
            self._socket.settimeout(left_s)
            chunk = self._socket.recv(_CHUNK_BYTES)
            if not chunk:
                raise MonitorFailure("qemu closed its monitor")
            self._received += chunk
            if len(self._received) > _MAX_LINE_BYTES:
                raise MonitorFailure("the monitor sends a line without an end")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MonitorFailure("the monitor sends what is no JSON") from error
        if not isinstance(found, dict):
            raise MonitorFailure("the monitor sends what is no message")
        return found


def _explain(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long; another program may be connected to it, as libvirt always is"
    return os.strerror(error.errno or 0)
