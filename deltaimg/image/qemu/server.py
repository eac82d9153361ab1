# SPDX-License-Identifier: Apache-2.0
"""A qemu-nbd of our own: read-only, for one client that is connected before it starts, gone with its client.

The socket has its name for a moment only, in a folder of its own that other users may not enter. So no other process connects,
and nothing is left in the file system of a run that was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

from deltaimg.errors import ImageError, ImageInUse, OutOfResources
from deltaimg.image.nbd.connection import Connection
from deltaimg.image.qemu import launcher
from deltaimg.text import as_text
from deltaimg.threads import delaying_interruption

PROGRAM = "qemu-nbd"
_PATIENCE_S = 5.0
_SAID_BYTES = 1 << 16


class QemuServer:
    """The process, and the connection to it."""

    def __init__(self, shown: str, options: Mapping[str, Any], bitmaps: Sequence[str] = ()) -> None:
        """Start it; raises ImageError.

        Args:
            shown: what messages call the image. options: of qemu's block device. bitmaps: dirty bitmaps to serve.
        """
        if shutil.which(PROGRAM) is None:
            hint = "apt install qemu-utils; --raw stores the file as it is"
            raise ImageError(shown, f"is read through {PROGRAM}, which is not installed", hint=hint)
        self._shown = shown
        self._said = tempfile.TemporaryFile()
        try:
            listening, connected = _make_pair()
        except OSError as error:
            self._said.close()
            raise ImageError(shown, f"no socket can be made: {os.strerror(error.errno or 0)}") from error
        command = [PROGRAM, "--read-only", "--export-name=", *(f"--bitmap={each}" for each in bitmaps)]
        command.append("json:" + json.dumps(options))
        try:
            with closing(listening):
                self._process = self._start(command, listening)
        except BaseException:
            connected.close()
            self._said.close()
            raise
        self.connection = Connection(connected)

    def explain(self) -> ImageError | None:
        """Return why the server ended by itself; None if it did not."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)
        if self._process.returncode is None:
            return None
        self._said.seek(0)
        said = as_text(self._said.read(_SAID_BYTES).decode(errors="replace").strip())
        if "lock" in said and "Failed to get" in said:
            hint = (
                "name the disk by the monitor of that qemu, 'qmp+unix:///DEVICE?socket=PATH', or the guest with --guest; "
                "or freeze the file with --freeze reflink, btrfs or lvm"
            )
            return ImageInUse(self._shown, "is open in another process of qemu, which may write to it", hint=hint)
        # What comes before it is the description of the block device.
        reason = said.rpartition("}': ")[2] or f"it ended with status {self._process.returncode}"
        return ImageError(self._shown, f"cannot be opened by {PROGRAM}: {reason}")

    def stop(self) -> None:
        """Wait for it to end, once its client is gone; else end it."""
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._said.close()

    def _start(self, command: list[str], listening: socket.socket) -> subprocess.Popen[bytes]:
        own = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), str(listening.fileno())]
        try:
            with delaying_interruption():
                return subprocess.Popen(
                    own + command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._said,
                    pass_fds=[listening.fileno()],
                    start_new_session=True,
                )
        except BlockingIOError as error:
            raise OutOfResources("threads", PROGRAM) from error
        except OSError as error:
            raise ImageError(self._shown, f"{PROGRAM} cannot be started: {os.strerror(error.errno or 0)}") from error


def _make_pair() -> tuple[socket.socket, socket.socket]:
    """Return a listening socket, and one that is connected to it; raises OSError."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with tempfile.TemporaryDirectory(prefix="deltaimg-") as folder:
            number = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # A socket's path has 107 bytes at most, and that of a folder may be longer.
                path = f"/proc/self/fd/{number}/nbd"
                listening.bind(path)
                listening.listen(1)
                connected.connect(path)
            finally:
                os.close(number)
    except BaseException:
        listening.close()
        connected.close()
        raise
    return listening, connected
